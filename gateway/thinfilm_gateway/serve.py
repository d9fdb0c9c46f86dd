"""`thinfilm serve`: one process that prepares the data folder and the index, then keeps the gateway's processes alive.

Children: the receivers, which share one DICOM port, and, without a broker, the local worker. In this process: the
health page and, with a broker, the dispatcher. A child that dies is started again; SIGTERM and SIGINT stop all.
"""

import contextlib
import fcntl
import importlib.metadata
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from thinfilm_gateway import logs
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dispatch import Dispatcher
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.policy import lossless
from thinfilm_gateway.web.health import HealthPage, Processes

log = structlog.get_logger()

START_SECONDS = 60.0  # for a receiver to listen
STOP_SECONDS = 75.0  # for a child to end by itself: more than it gives its own running operations and jobs
LONGEST_PAUSE_SECONDS = 30.0  # between the death of a child and its next start
HEALTHY_SECONDS = 60.0  # a child that lived so long is started again at once

LOCAL_WORKER = ("thinfilm.services", "local_worker")
"""Entry point of the local worker, which stands above the gateway: a function that takes the Settings and returns on
SIGTERM."""

Service = Callable[[Settings, Callable[[], None]], None]
"""What a child runs until SIGTERM; it calls the second argument when it is ready."""


class CannotServe(Exception):
    """The gateway cannot start; the message is one sentence that says why."""


def serve(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Raises CannotServe, UnknownTreatment for a codec that there is not, or UnusableIndex; nothing is left running then.
    """
    with contextlib.ExitStack() as cleanup:
        stop = cleanup.enter_context(_stop_signal())
        lossless.candidates(settings.lossless_codecs)
        _prepare_folder(settings.data_dir)
        if not settings.database_url:
            cleanup.enter_context(_only_one(settings.data_dir))
        settings = cleanup.enter_context(_reserved_port(settings))
        database = _open_index(settings)
        cleanup.callback(database.dispose)

        receivers = [Child(f"receiver {number}", _receive, settings) for number in range(1, settings.receivers + 1)]
        workers = [] if settings.broker_url or not settings.local_workers else [Child("worker", _work, settings)]
        children = receivers + workers
        try:
            page = HealthPage(settings, database, lambda: _count(receivers, workers))
        except OSError as error:
            raise CannotServe(_cannot_listen(settings.http_host, settings.http_port, error)) from None
        cleanup.callback(page.stop)
        cleanup.callback(_stop, children)
        if settings.broker_url:
            dispatcher = Dispatcher(database, settings.broker_url)
            cleanup.callback(dispatcher.stop)
            dispatcher.start()
        for child in children:
            child.start()
        for child in receivers:
            child.await_ready(stop)
        page.start()
        log.info(
            "ready",
            ae_title=settings.ae_title,
            dicom_port=settings.dicom_port,
            http_port=page.port,
            data_dir=str(settings.data_dir),
            pid=os.getpid(),
        )
        _supervise(children, stop)
        log.info("stopping")
    log.info("stopped")


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
        self._early_deaths = 0

    @property
    def process(self) -> SpawnProcess:
        """The process as it was last started."""
        assert self._process is not None, "The child was not started."
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self._ready, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_run_child, args=(self._service, self._settings, theirs), name=f"thinfilm {self.name}"
        )
        self._process.start()
        theirs.close()
        self._started_at = time.monotonic()
        self._restart_at = None

    def await_ready(self, stop: Connection) -> None:
        """Wait until the process is ready or `stop` is readable. Raises CannotServe if it does not come up."""
        assert self._ready is not None, "The child was not started."
        signs = wait([self._ready, stop], START_SECONDS)
        if not signs:
            raise CannotServe(f"The {self.name} was not ready within {START_SECONDS:g} s.")
        try:
            if self._ready in signs:
                self._ready.recv_bytes()
        except EOFError:
            raise CannotServe(f"The {self.name} ended before it was ready; the log above says why.") from None

    def keep_alive(self) -> None:
        """Start a dead process again, after a pause that grows while it keeps dying young."""
        if self.alive:
            return
        now = time.monotonic()
        if self._restart_at is None:
            young = now - self._started_at < HEALTHY_SECONDS
            self._early_deaths = self._early_deaths + 1 if young else 0
            pause = min(LONGEST_PAUSE_SECONDS, 0.25 * 2**self._early_deaths)
            self._restart_at = now + pause
            log.error("process_died", process=self.name, exit_code=self.process.exitcode, restart_in_seconds=pause)
        if now >= self._restart_at:
            self.start()


def _supervise(children: list[Child], stop: Connection) -> None:
    """Keep the children alive until `stop` is readable."""
    while not stop.poll(0):
        for child in children:
            child.keep_alive()
        living = [child.process.sentinel for child in children if child.alive]
        wait([stop, *living], None if len(living) == len(children) else 0.25)


def _stop(children: list[Child]) -> None:
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


def _count(receivers: list[Child], workers: list[Child]) -> Processes:
    return Processes(
        receivers=len(receivers),
        receivers_alive=sum(child.alive for child in receivers),
        workers=len(workers),
        workers_alive=sum(child.alive for child in workers),
    )


def _run_child(service: Service, settings: Settings, ready: Connection) -> None:
    """Run the service of a child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent asks us by SIGTERM
    logs.configure(settings.log_level)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        service(settings, lambda: ready.send_bytes(b"ready"))
    except Exception:
        log.exception("process_failed", process=multiprocessing.current_process().name)
        sys.exit(1)


def _end_with_parent() -> None:
    """Ask this process to stop when its parent is gone, even if killed: a new `serve` needs the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "Runs in a child process."
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _receive(settings: Settings, on_ready: Callable[[], None]) -> None:
    from thinfilm_gateway.dimse.server import serve_receiver

    serve_receiver(settings, on_ready)


def _work(settings: Settings, on_ready: Callable[[], None]) -> None:
    group, name = LOCAL_WORKER
    (entry_point,) = importlib.metadata.entry_points(group=group, name=name)
    run_workers = entry_point.load()
    on_ready()
    run_workers(settings)


def _open_index(settings: Settings) -> Database:
    """Open the index; an embedded one is brought up to date, a shared one must be so already."""
    database = Database(settings.index_url)
    try:
        if settings.database_url:
            database.check()
        else:
            database.upgrade()
    except BaseException:
        database.dispose()
        raise
    return database


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotServe(f"The data folder {folder} cannot be made: {error.strerror}.") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise CannotServe(f"The data folder {folder} cannot be written by this user.")


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder with an embedded index. Raises CannotServe if another process has it."""
    with (folder / "serve.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotServe(
                f"Another `thinfilm serve` (process {file.read().strip()}) uses the data folder {folder}; "
                "stop it, or give another --data-dir."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _reserved_port(settings: Settings) -> Iterator[Settings]:
    """Give the settings with the DICOM port that the receivers shall share. Raises CannotServe if it is taken.

    A first socket, without SO_REUSEPORT, finds out whether anyone listens; a second one, bound but never listening,
    keeps the port ours while receivers come and go.
    """
    host, port = settings.dicom_host, settings.dicom_port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            port = probe.getsockname()[1]
        reserved = socket.socket(family)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((address[0], port, *address[2:]))
    except OSError as error:
        raise CannotServe(_cannot_listen(host, port, error)) from None
    with reserved:
        yield settings.model_copy(update={"dicom_port": port})


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    return f"The gateway cannot listen on {host} port {port}: {error.strerror}."


@contextlib.contextmanager
def _stop_signal() -> Iterator[Connection]:
    """Give a connection that becomes readable when the process is asked to stop."""
    receiving, sending = multiprocessing.Pipe(duplex=False)

    def ask(signum: int, frame: object) -> None:
        del signum, frame
        sending.send_bytes(b"stop")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield receiving
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sending.close()
        receiving.close()
