"""Accepting connections when the process has no file descriptor left for one."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

log = structlog.get_logger()

PAUSE_SECONDS = 0.5  # between two tries; callers wait in the backlog of the port meanwhile

_NOTHING_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Request = TypeVar("Request")


class Patience:
    """Waits for descriptors to come free, where socketserver would try again at once and for ever."""

    def __init__(self) -> None:
        self._starved = False

    def accept(self, get_request: Callable[[], Request]) -> Request:
        """Return what `get_request` of a server returns. Raises its OSError, after a pause where nothing is left."""
        try:
            return get_request()
        except OSError as error:
            self.pause_over(error)
            raise

    def pause_over(self, error: BaseException | None) -> bool:
        """Pause if it was for want of descriptors that a connection could not be accepted or served; tell whether."""
        if not isinstance(error, OSError) or error.errno not in _NOTHING_LEFT:
            return False
        if not self._starved:  # said once, not twice a second
            mend = "Raise the limit of open files (LimitNOFILE), or lower maximum_associations."
            log.error("cannot_accept", error=error.strerror, mend=mend)
        self._starved = True
        time.sleep(PAUSE_SECONDS)
        return True

    def served(self) -> None:
        """Take note that a connection is being served."""
        if self._starved:
            log.warning("accepts_again")
            self._starved = False
