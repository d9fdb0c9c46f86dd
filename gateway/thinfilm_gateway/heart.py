"""The beat of a process: a thread that writes into the index, every few seconds, that the process lives."""

import datetime as dt
import os
import socket
import time
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import heartbeats
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.heartbeats import Beat
from thinfilm_gateway.lasting_thread import LastingThread

log = structlog.get_logger()

LOOK_SECONDS = 1.0  # what is wrong is written that soon; while nothing changes, a beat comes as often as it must


def process_name(process_id: int | None = None) -> str:
    """Name this process, or another one of this host, as the index knows it: holder of leases, writer of beats."""
    return f"{socket.gethostname()}:{process_id or os.getpid()}"


class Heart(LastingThread):
    """Beats until it is stopped; takes leave then. An index that is away only delays it."""

    def __init__(
        self,
        database: Database,
        kind: str,
        queues: Sequence[str],
        examine: Callable[[], Sequence[HealthWarning]],
        threads: Sequence[LastingThread] = (),
    ) -> None:
        """examine: says every second what is wrong with this process, hence quickly. threads: of which it tells too."""
        super().__init__("heart", self._beat)
        self._database = database
        self._kind = kind
        self._queues = tuple(queues)
        self._examine = examine
        self._threads = (self, *threads)
        self._process_name = process_name()
        self._started_at = dt.datetime.now(dt.UTC)

    def stop(self) -> None:
        """End the thread and take leave."""
        super().stop()
        try:
            with self._database.session() as session:
                heartbeats.leave(session, self._process_name)
        except SQLAlchemyError as error:  # then it counts as alive a little longer
            log.debug("no_leave_taken", error=type(error).__name__)

    def _beat(self) -> None:
        told: tuple[HealthWarning, ...] = ()
        due = time.monotonic()
        while not self.stopping.is_set():
            warnings = (*_of_threads(self._threads), *self._examine())
            if warnings != told or time.monotonic() >= due:
                told, due = warnings, time.monotonic() + heartbeats.BEAT.total_seconds()
                self._write(Beat(self._process_name, self._kind, self._queues, self._started_at, warnings))
            self.stopping.wait(LOOK_SECONDS)

    def _write(self, beat: Beat) -> None:
        try:
            with self._database.session() as session:
                heartbeats.record(session, beat, dt.datetime.now(dt.UTC))
        except SQLAlchemyError as error:  # those who need it tell more
            log.debug("not_heard", error=type(error).__name__)


def _of_threads(threads: Sequence[LastingThread]) -> list[HealthWarning]:
    troubles = {thread.name: thread.trouble for thread in threads}
    return [HealthWarning(f"thread_fails {name}", trouble) for name, trouble in troubles.items() if trouble]
