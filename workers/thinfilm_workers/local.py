"""The embedded worker: processes that take jobs straight from the job table, no broker."""

import datetime as dt
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import structlog
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway import installation, logs
from thinfilm_gateway.background import keep_linear_algebra_on_one_thread, step_back
from thinfilm_gateway.config import Settings
from thinfilm_gateway.heart import Heart, process_name
from thinfilm_gateway.index import heartbeats, jobs
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.lasting_thread import LastingThread
from thinfilm_gateway.stop_signal import stop_signal
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.evict import evict
from thinfilm_workers.jobs.lossy_rules import apply_lossy_rules
from thinfilm_workers.jobs.resent import check_resent
from thinfilm_workers.jobs.scrub_pass import scrub_on
from thinfilm_workers.jobs.sweep import sweep, tidy
from thinfilm_workers.runner import QUEUES, record_released, run_next

log = structlog.get_logger()

POLL_SECONDS = 0.5  # how long a due job may wait for an idle process
Piece = Callable[[Context], object]
Periods = Mapping[Piece, float]

PERIODS: Periods = {
    sweep: 30.0,
    evict: 5.0,
    apply_lossy_rules: 600.0,
    tidy: 3600.0,
}
READING_PERIODS: Periods = {check_resent: 5.0, scrub_on: 60.0}
"""What reads much, and must not hold up the rest."""
RESTART_SECONDS = 1.0  # between the death of a process and its replacement
STOP_SECONDS = 60.0  # what a running job gets to end in; then its process is killed and the job comes back by its lease


@dataclass(frozen=True)
class _Child:
    process: SpawnProcess
    life_line: Connection  # the child ends when this is closed, be it on purpose or because the parent died


def run_workers(settings: Settings, stop_seconds: float = STOP_SECONDS) -> None:
    """Run settings.local_workers processes and the periodic sweep until SIGTERM or SIGINT."""
    with stop_signal() as stop:
        if not settings.database_url:
            _release_jobs(settings)
        keep_linear_algebra_on_one_thread()
        # All containers of an embedded index are finished when its workers start: nobody else has made any.
        first = None if settings.database_url else partial(tidy, attach_after=dt.timedelta(0))
        maintenance = _Maintenance("maintenance", settings, PERIODS, first)
        reading = _Maintenance("reading", settings, READING_PERIODS)
        maintenance.start()
        reading.start()
        heart = Heart(maintenance.database, heartbeats.LOCAL_WORKER, (), list, [maintenance, reading])
        heart.start()
        children = [_start(settings) for _ in range(settings.local_workers)]
        while not stop.poll(0):
            wait([stop, *(child.process.sentinel for child in children)])
            children = [child if child.process.is_alive() else _replace(settings, child, stop) for child in children]
        _stop(children, stop_seconds)
        heart.stop()
        maintenance.stop()
        reading.stop()
    log.info("workers_stopped")


def _release_jobs(settings: Settings) -> None:
    """Free the jobs of a gateway that was killed: nobody else works on an embedded index, and the lease would be long.

    A process of it that still ends its job finds that it lost the lease.
    """
    database = Database(settings.index_url)
    try:
        with database.session() as session:
            released = jobs.release_all(session)
            heartbeats.leave_all(session, heartbeats.LOCAL_WORKER)
    except SQLAlchemyError as error:  # then they come back by their lease
        log.warning("index_away", error=str(error))
    else:
        if released:
            log.warning("jobs_released", jobs=released)
    finally:
        database.dispose()


def _start(settings: Settings) -> _Child:
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(settings, theirs), name="thinfilm worker")
    process.start()
    log.info("worker_started", pid=process.pid)
    theirs.close()
    return _Child(process, ours)


def _replace(settings: Settings, dead: _Child, stop: Connection) -> _Child:
    killed = dead.process.exitcode == -signal.SIGKILL
    fate = "was killed, perhaps for want of memory" if killed else f"died with exit status {dead.process.exitcode}"
    mend = "If the system was out of memory, lower local_workers or add memory." if killed else "See the log above."
    log.error("worker_died", pid=dead.process.pid, exit_code=dead.process.exitcode, mend=mend)
    dead.life_line.close()
    _release_job(settings, process_name(dead.process.pid), fate)
    stop.poll(RESTART_SECONDS)
    return _start(settings)


def _release_job(settings: Settings, owner: str, fate: str) -> None:
    """Free the job of a dead process now, not when its lease ends: it is tried again with less, or given up."""
    database = Database(settings.index_url)
    try:
        with database.session() as session:
            record_released(session, jobs.release_of(session, owner, fate, settings.max_attempts))
            heartbeats.leave(session, owner)
    except SQLAlchemyError as error:  # then it comes back by its lease
        log.warning("index_away", error=str(error))
    finally:
        database.dispose()


def _stop(children: list[_Child], stop_seconds: float) -> None:
    for child in children:
        child.life_line.close()
    deadline = time.monotonic() + stop_seconds
    for child in children:
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            log.warning("worker_killed", pid=child.process.pid)
            child.process.kill()
            child.process.join()


def work(settings: Settings, life_line: Connection) -> None:
    """Take jobs one at a time until the life line is closed: the main function of a worker process."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a signal to the whole group is the parent's to answer
        signal.signal(number, signal.SIG_IGN)
    step_back()
    logs.configure(settings.log_level)
    context = Context.open(settings)
    lacks = installation.examination(settings, context.database)
    heart = Heart(context.database, heartbeats.LOCAL_WORKER, QUEUES, lacks)
    heart.start()
    owner = process_name()
    while not life_line.poll(0):
        try:
            busy = run_next(context, owner, QUEUES)
        except SQLAlchemyError as error:
            log.warning("index_away", error=str(error))
            busy = False
        if not busy:
            life_line.poll(POLL_SECONDS)
    heart.stop()
    context.database.dispose()


class _Maintenance(LastingThread):
    """Does what is due from time to time. May be cut off anywhere: all of it survives a crash."""

    def __init__(self, name: str, settings: Settings, periods: Periods, first: Piece | None = None) -> None:
        """periods: seconds between two runs of each piece. first: what is done before all else."""
        super().__init__(name, self._maintain)
        self._context = Context.open(settings)
        self._periods = periods
        self._first = first

    @property
    def database(self) -> Database:
        """The index that it works with."""
        return self._context.database

    def _maintain(self) -> None:
        """Do each piece at once, then whenever its period is over."""
        due = dict.fromkeys(self._periods, 0.0)
        if self._first is not None:
            self._do(self._first, "first")
        while not self.stopping.wait(max(0.0, min(due.values()) - time.monotonic())):
            piece = min(due, key=due.__getitem__)
            due[piece] = time.monotonic() + self._periods[piece]
            self._do(piece, piece.__name__)

    def _do(self, piece: Piece, name: str) -> None:
        try:
            piece(self._context)
        except Exception as error:  # the next time may be better; jobs go on meanwhile
            log.warning("maintenance_failed", piece=name, error=str(error))

    def stop(self) -> None:
        """End the thread, in the middle of a piece if that takes long."""
        self.stopping.set()
        self.join(timeout=5)
