"""The child processes of `thinfilm serve`: started, started again when they die, stopped in order."""

import contextlib
import importlib.metadata
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from thinfilm_gateway import logs
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dimse.sharing import Shared

log = structlog.get_logger()

STILL_STARTING_SECONDS = 30.0  # between two lines of the log about a child that is not ready yet
STOP_SECONDS = 75.0  # for a child to end by itself: more than it gives its own running operations and jobs
LONGEST_PAUSE_SECONDS = 30.0  # between the death of a child and its next start
STARTED_AGAIN_SECONDS = 0.25  # between two looks whether a child is to be started again
RESERVED_DESCRIPTORS = 12  # for the start of one child: its pipes, and those by which it is told what to run
HEALTHY_SECONDS = 60.0  # a child that lived so long is started again almost at once

LOCAL_WORKER = ("thinfilm.services", "local_worker")
"""Entry point of the local worker, which stands above the gateway: a function that takes the Settings and returns on
SIGTERM."""

Service = Callable[[Settings, Callable[[], None]], None]
"""What a child runs until SIGTERM; it calls the second argument when it is ready."""


class NotReady(Exception):
    """A child did not come up; the message is one sentence."""


class Child:
    """A process of the gateway, which is started again when it dies."""

    def __init__(self, name: str, service: Service, settings: Settings) -> None:
        self.name = name
        self._service = service
        self._settings = settings
        self._process: SpawnProcess | None = None
        self._ready: Connection | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None  # None while it lives
        self._failures = 0  # starts that failed, or were followed by an early death, one after the other
        self._reserve = Reserve()

    @property
    def process(self) -> SpawnProcess:
        """The process as it was last started."""
        assert self._process is not None, "The child was not started."
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process runs.

        Asked of its sentinel, since only one of two threads that reap a process learns that it ended.
        """
        process = self._process  # asked from other threads too, while it is started again
        return process is not None and not wait([process.sentinel], 0)

    @property
    def trouble(self) -> str | None:
        """One sentence while the process is dead, or has just been started after failing again and again; else None."""
        if not self.alive:
            return f"The process {self.name} does not run and is being started again; the log says why."
        if self._failures > 1 and time.monotonic() - self._started_at < HEALTHY_SECONDS:
            return (
                f"The process {self.name} died soon after its start, or could not be started, {self._failures} times;"
                " the log says why."
            )
        return None

    def start(self) -> None:
        """Start the process; where the system has no room for it, `keep_alive` tries again."""
        self._let_go()
        try:
            with self._reserve.lent():
                self._launch()
        except OSError as error:
            pause = self._pause_after_failure()
            log.error("process_not_started", process=self.name, error=str(error), next_try_in_seconds=pause)
            return
        log.info("process_started", process=self.name, pid=self.process.pid)
        self._started_at = time.monotonic()
        self._restart_at = None

    def await_ready(self, stop: Connection) -> None:
        """Wait until the process is ready or `stop` is readable, however long: a busy machine takes its time.

        Raises NotReady if it ends before.
        """
        while self._ready is None:
            if wait([stop], STARTED_AGAIN_SECONDS):
                return
            self.keep_alive()
        while not (signs := wait([self._ready, stop], STILL_STARTING_SECONDS)):
            log.warning("still_starting", process=self.name, seconds=round(time.monotonic() - self._started_at))
        try:
            if self._ready in signs:
                self._ready.recv_bytes()
        except EOFError:
            raise NotReady(f"The {self.name} ended before it was ready; the log above says why.") from None

    def keep_alive(self) -> None:
        """Start a dead process again, after a pause that grows while it keeps dying young."""
        if self.alive:
            self._reserve.fill()
            return
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started_at >= HEALTHY_SECONDS:
                self._failures = -1  # this death is the first of a new row, after which it is started almost at once
            pause = self._pause_after_failure()
            self.process.join()
            log.error("process_died", process=self.name, exit_code=self.process.exitcode, restart_in_seconds=pause)
        if self._restart_at is not None and now >= self._restart_at:
            self.start()

    def _launch(self) -> None:
        """Start the process. Raises OSError."""
        context = multiprocessing.get_context("spawn")
        ready, theirs = context.Pipe(duplex=False)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ready.close)
            process = context.Process(
                target=_run, args=(self._service, self._settings, theirs), name=f"thinfilm {self.name}"
            )
            process.start()
            undo.pop_all()
        self._process, self._ready = process, ready

    def _let_go(self) -> None:
        """Give back the descriptors of the process that was."""
        if self._ready is not None:
            self._ready.close()
        self._process = self._ready = None  # which closes those of the process, unless somebody looks at it right now

    def _pause_after_failure(self) -> float:
        """Return how long to wait until the next start, in seconds."""
        self._failures += 1
        pause = float(min(LONGEST_PAUSE_SECONDS, 0.25 * 2**self._failures))
        self._restart_at = time.monotonic() + pause
        return pause


class Reserve:
    """File descriptors that are kept for the start of a process, which needs them just when there may be none left."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.fill()

    def fill(self) -> None:
        """Hold as many as a start needs, or as many as there are."""
        with contextlib.suppress(OSError):
            while len(self._held) < RESERVED_DESCRIPTORS:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let them go for the time of a start."""
        while self._held:
            os.close(self._held.pop())
        try:
            yield
        finally:
            self.fill()


def supervise(children: Sequence[Child], stop: Connection, tell: Callable[[], None]) -> None:
    """Keep the children alive until `stop` is readable; `tell` is called whenever one may have died or started."""
    while not stop.poll(0):
        for child in children:
            child.keep_alive()
        tell()
        living = [child.process.sentinel for child in children if child.alive]
        wait([stop, *living], None if len(living) == len(children) else STARTED_AGAIN_SECONDS)


def stop_all(children: Sequence[Child]) -> None:
    """Ask all children to end, receivers first; kill what does not."""
    running = [child for child in children if child.alive]
    for child in running:
        child.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for child in running:
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.alive:
            log.warning("process_killed", process=child.name)
            child.process.kill()
            child.process.join()


def receive(shared: Shared, settings: Settings, on_ready: Callable[[], None]) -> None:
    """Run one of several receivers."""
    from thinfilm_gateway.dimse.server import serve_receiver

    threading.Thread(target=_after_parent, args=(shared.end_listening,), daemon=True).start()
    serve_receiver(settings, on_ready, shared)


def answer_http(
    listener: socket.socket, receivers_alive: Sequence[int], settings: Settings, on_ready: Callable[[], None]
) -> None:
    """Run the HTTP side."""
    from thinfilm_gateway.web.server import serve_http

    on_ready()
    serve_http(listener, receivers_alive, settings)


def work(settings: Settings, on_ready: Callable[[], None]) -> None:
    """Run the local worker."""
    group, name = LOCAL_WORKER
    (entry_point,) = importlib.metadata.entry_points(group=group, name=name)
    run_workers = entry_point.load()
    on_ready()
    run_workers(settings)


def _run(service: Service, settings: Settings, ready: Connection) -> None:
    """Run the service of a child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent asks us by SIGTERM
    logs.configure(settings.log_level)
    _show_name()
    end = partial(os.kill, os.getpid(), signal.SIGTERM)
    threading.Thread(target=_after_parent, args=(end,), daemon=True).start()
    try:
        service(settings, lambda: ready.send_bytes(b"ready"))
    except Exception:
        log.exception("process_failed", process=multiprocessing.current_process().name)
        sys.exit(1)


def _show_name() -> None:
    """Let `ps` and `top` tell the children apart."""
    with contextlib.suppress(OSError):
        name = multiprocessing.current_process().name.removeprefix("thinfilm ")
        Path("/proc/self/comm").write_text(name[:15], encoding="utf-8")


def _after_parent(act: Callable[[], None]) -> None:
    """Act when the parent of this process is gone, even if killed: a new `serve` needs folder and ports."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "Runs in a child process."
    wait([parent.sentinel])
    act()
