"""Threads of a process that must not end before it: what goes wrong in one is told, and it is run again."""

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

LONGEST_PAUSE_SECONDS = 30.0  # between a failure and the next run
HEALTHY_SECONDS = 60.0  # a run that lasted so long is in order again


class LastingThread(threading.Thread):
    """Runs `work` until it returns or the thread is stopped; whatever `work` raises is logged, and it is run again.

    The pause before that grows while it keeps failing early. `trouble` is for whoever tells people how things are.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """work: returns soon once `stopping` is set, and can be called again after it has raised."""
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        self._work = work
        self._began_at = 0.0
        self._failure: str | None = None  # of the last run that failed

    def run(self) -> None:
        """Work, again and again if need be."""
        early_failures = 0
        while not self.stopping.is_set():
            self._began_at = time.monotonic()
            try:
                self._work()
            except BaseException as error:  # SystemExit too would end the thread, without a word
                early_failures = early_failures + 1 if self._is_young() else 0
                pause = min(LONGEST_PAUSE_SECONDS, 0.25 * 2**early_failures)
                self._failure = f"{type(error).__name__}: {error}".strip().rstrip(".:")
                log.exception("thread_failed", thread=self.name, restart_in_seconds=pause)
                self.stopping.wait(pause)
            else:
                return

    @property
    def trouble(self) -> str | None:
        """One sentence if the thread is dead or failed a moment ago, else None; also before its start, after its end.

        What the thread waits out by itself, an absent database for example, is no trouble of the thread.
        """
        if self.stopping.is_set() or self.ident is None:
            return None
        if not self.is_alive():
            return f"The thread {self.name} has ended; restart the gateway."
        if self._failure is not None and self._is_young():
            return f"The thread {self.name} failed ({self._failure}) and is run again; see the log."
        return None

    def stop(self) -> None:
        """End the thread, once what it is doing is done."""
        self.stopping.set()
        if self.is_alive():
            self.join()

    def _is_young(self) -> bool:
        return time.monotonic() - self._began_at < HEALTHY_SECONDS
