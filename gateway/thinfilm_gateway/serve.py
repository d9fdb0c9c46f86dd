"""`thinfilm serve`: one process that prepares the data folder and the index, then keeps the gateway's processes alive.

Children: the receivers, which share one DICOM port, the process that answers HTTP, and, without a broker, the local
worker. In this process: who tells the log of the health, and, with a broker, the dispatcher. A child that dies is
started again; SIGTERM and SIGINT stop all.
"""

import contextlib
import datetime as dt
import multiprocessing
import os
import socket
from collections.abc import Iterator, MutableSequence, Sequence
from functools import partial

import structlog

from thinfilm_gateway import data_folder, installation, volumes
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dimse import sharing, tls
from thinfilm_gateway.dimse.sharing import Shared
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.heart import Heart
from thinfilm_gateway.index import heartbeats
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.lasting_thread import LastingThread
from thinfilm_gateway.policy import lossless
from thinfilm_gateway.privacy import make_private
from thinfilm_gateway.stop_signal import stop_signal
from thinfilm_gateway.supervisor import Child, answer_http, receive, stop_all, supervise, work
from thinfilm_gateway.watch import HealthWatch

log = structlog.get_logger()


class CannotServe(Exception):
    """The gateway cannot start; the message is one sentence that says why."""


def serve(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Raises CannotServe, NotReady, UnusableDataFolder, NotPrivate, UnknownTreatment for a codec that there is not,
    UnusableCodec, UnusableTls, or UnusableIndex; nothing is left running then.
    """
    with contextlib.ExitStack() as cleanup:
        stop = cleanup.enter_context(stop_signal())
        lossless.treatment(settings.lossless_codecs)
        if not settings.broker_url and settings.local_workers:
            installation.check(settings)
        tls.check(settings)
        data_folder.make(settings.data_dir)
        make_private(settings)
        if not settings.database_url:
            cleanup.enter_context(data_folder.held(settings.data_dir))
        host, tls_port = settings.dicom_host, settings.dicom_tls_port
        listener = cleanup.enter_context(_listening(host, settings.dicom_port))
        tls_listener = None if tls_port is None else cleanup.enter_context(_listening(host, tls_port))
        http_listener = cleanup.enter_context(_listening(settings.http_host, settings.http_port))
        ports = {
            "dicom_port": sharing.port_of(listener),
            "dicom_tls_port": tls_listener and sharing.port_of(tls_listener),
            "http_port": sharing.port_of(http_listener),
        }
        settings = settings.model_copy(update=ports)
        database = _open_index(settings)
        cleanup.callback(database.dispose)
        volumes.settle(settings, database)
        if not settings.database_url:
            _sweep_half_objects(settings, database)

        shares = [Shared(listener, tls_listener, load) for load in sharing.loads(settings.receivers)]
        receivers = [
            Child(f"receiver {number}", partial(receive, shared), settings) for number, shared in enumerate(shares, 1)
        ]
        workers = [] if settings.broker_url or not settings.local_workers else [Child("worker", work, settings)]
        alive = multiprocessing.get_context("spawn").RawArray("b", len(receivers))
        web = Child("http", partial(answer_http, http_listener, alive), settings)
        children = [*receivers, web, *workers]
        cleanup.callback(stop_all, children)
        cleanup.callback(shares[0].end_listening)  # first of all: callers are refused, instead of waiting
        watch = HealthWatch(settings, database)
        threads: list[LastingThread] = [watch]
        if settings.broker_url:
            from thinfilm_gateway.dispatch import Broker, Dispatcher  # Celery, which nobody else needs here

            dispatcher = Dispatcher(database, Broker(settings.broker_url, settings.gpu_workers))
            cleanup.callback(dispatcher.stop)
            dispatcher.start()
            threads.append(dispatcher)
        for child in children:
            child.start()
        _count(receivers, alive)
        for child in (*receivers, web):
            child.await_ready(stop)
        cleanup.callback(watch.stop)
        watch.start()
        lacks = installation.examination(settings, database)
        heart = Heart(database, heartbeats.GATEWAY, (), lambda: [*_dead(children), *lacks()], threads)
        cleanup.callback(heart.stop)
        heart.start()
        log.info(
            "ready",
            ae_title=settings.ae_title,
            dicom_port=settings.dicom_port,
            dicom_tls_port=settings.dicom_tls_port,
            http_port=settings.http_port,
            data_dir=str(settings.data_dir),
            pid=os.getpid(),
        )
        supervise(children, stop, lambda: _count(receivers, alive))
        log.info("stopping")
    log.info("stopped")


def _dead(children: Sequence[Child]) -> list[HealthWarning]:
    """Say what is wrong with the children."""
    troubles = {child.name: child.trouble for child in children}
    return [HealthWarning(f"process_died {name}", trouble) for name, trouble in troubles.items() if trouble]


def _count(receivers: Sequence[Child], alive: MutableSequence[int]) -> None:
    """Tell the process that answers HTTP which receivers live."""
    alive[:] = [int(child.alive) for child in receivers]


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


def _sweep_half_objects(settings: Settings, database: Database) -> None:
    """Remove what killed receivers left of objects that never became whole.

    Only where nobody else can be receiving: on an embedded index, once what an earlier `serve` left has ended.
    """
    with data_folder.is_received_into(settings.data_dir) as others_receive:
        if others_receive:
            return
        try:
            swept = volumes.open_spool(settings, database).sweep_temporary(older_than=dt.timedelta(0))
        except OSError as error:  # the spool is away, of which others tell
            log.warning("half_objects_not_removed", error=str(error))
            return
    if swept:
        log.info("half_objects_removed", files=swept)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on a port, a free one for 0, as long as the gateway runs. Raises CannotServe if it is taken."""
    try:
        listener = sharing.listen(host, port)
    except (OSError, UnicodeError) as error:
        raise CannotServe(_cannot_listen(host, port, error)) from None
    with listener:
        yield listener


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> str:
    reason = error.strerror if isinstance(error, OSError) else "this can be no name of a host"
    return f"The gateway cannot listen on {host} port {port}: {reason}."
