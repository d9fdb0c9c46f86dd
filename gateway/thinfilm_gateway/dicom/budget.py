"""How much memory decoders take at a time in one process: waited for, never exceeded."""

import functools
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

DECODE_BUDGET_BYTES = 320 * 1024**2
"""The budget of a process that was not told another."""


class DecodeBudget:
    """Bytes that are shared by all who decode; for many threads.

    Whoever comes is served in turn, so that what needs much is not kept waiting by those who need little. Nobody may
    ask for more while holding some, or wait for another who does.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Start with all of it free."""
        self._capacity = capacity_bytes
        self._taken = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def capacity_bytes(self) -> int:
        """The most that is taken at a time."""
        return self._capacity

    def resize(self, capacity_bytes: int) -> None:
        """Share so much from now on."""
        with self._changed:
            self._capacity = capacity_bytes
            self._changed.notify_all()

    @contextmanager
    def taken(self, nbytes: int) -> Iterator[None]:
        """Wait for `nbytes` and hold them while the block runs; more than all there is means all, and so alone."""
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                self._changed.wait_for(lambda: self._queue[0] is turn and self._has_room(nbytes))
            except BaseException:
                self._queue.remove(turn)
                self._changed.notify_all()
                raise
            self._queue.popleft()
            self._taken += nbytes
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= nbytes
                self._changed.notify_all()

    def _has_room(self, nbytes: int) -> bool:
        return not self._taken or self._taken + nbytes <= self._capacity


@functools.cache
def decode_budget() -> DecodeBudget:
    """Return the budget of this process."""
    return DecodeBudget(DECODE_BUDGET_BYTES)


os.register_at_fork(after_in_child=decode_budget.cache_clear)  # who holds of it does not survive it
