"""Bring back what crashes left behind: jobs, spool files, containers and temporary files."""

import contextlib
import datetime as dt
import itertools
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import structlog
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.presence import Presence
from thinfilm_gateway.dispatch import Broker, send_due
from thinfilm_gateway.index import archiving, clock, commitments, holdings, jobs
from thinfilm_gateway.index.holdings import HeldContainer
from thinfilm_gateway.index.ingest import Outcome, Received, register, register_all
from thinfilm_workers.context import Context
from thinfilm_workers.receipt import DAMAGED, NotReceived, read_spooled
from thinfilm_workers.runner import record_released

log = structlog.get_logger()

GRACE = dt.timedelta(days=1)
"""How old a file must be to count as left behind: far longer than any object is between its file and its row."""


def sweep(context: Context) -> None:
    """Free expired leases, and see that all that waits has a job and the broker knows of it. Cheap: run it often."""
    now = dt.datetime.now(dt.UTC)
    lease = dt.timedelta(seconds=context.settings.job_lease_seconds)
    quiet = dt.timedelta(seconds=context.settings.series_quiet_seconds)
    with context.database.session() as session:
        if pulled_back := clock.pull_back(session, lease, quiet, now):
            log.warning("clock_was_set_back", rows=pulled_back, mend="Let NTP keep the clocks of all hosts.")
        record_released(session, jobs.release_expired(session, context.settings.max_attempts))
        if orphans := holdings.request_missing_jobs(session, now):
            log.warning("jobs_missing", series=orphans)
    if context.settings.broker_url:
        broker = Broker(context.settings.broker_url, context.settings.gpu_workers)
        try:
            send_due(context.database, broker)
        finally:
            broker.close()


def tidy(context: Context, grace: dt.timedelta = GRACE) -> None:
    """Compare files and rows: adopt spool files without a row, remove containers and temporary files of nobody.

    Storage commitments that were finished long ago are forgotten.

    Reads every name in spool and archive; run it seldom. Files younger than `grace` may still get their row. What goes
    wrong with one file is logged and keeps nothing from being done for the others.
    """
    limit = time.time() - grace.total_seconds()
    with context.database.session() as session:
        commitments.forget(session, dt.datetime.now(dt.UTC) - commitments.KEPT_FOR)
    for name in _unknown(context, context.spool.names(), holdings.known_spool_names):
        with _one_at_a_time("spool file", name):
            _adopt(context, name, limit)
    with context.database.reading() as session:
        unused = holdings.unused_containers(session, dt.datetime.fromtimestamp(limit, dt.UTC))
    for container in unused:
        with _one_at_a_time("container", container.key):
            _remove_unused(context, container)
    for key in _unknown(context, context.store.keys(), holdings.known_container_keys):
        with _one_at_a_time("container", key):
            _remove_stray(context, key, limit)
    with _one_at_a_time("folder", "incoming"):
        context.spool.sweep_temporary(grace)
    for file in context.work_dir.iterdir():
        with _one_at_a_time("temporary file", file.name):
            if file.stat().st_mtime < limit:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
                log.info("temporary_file_removed", name=file.name)


@contextlib.contextmanager
def _one_at_a_time(what: str, name: str) -> Iterator[None]:
    """Look at one file; one that vanishes meanwhile needs nothing more, and any other error is its own alone."""
    try:
        yield
    except FileNotFoundError:
        pass
    except Exception as error:  # its text may hold values of the row, and so patient data
        log.error("tidy_failed", what=what, name=name, error=type(error).__name__)


def _adopt(context: Context, name: str, limit: float) -> None:
    """Enter a whole object that a crash left without a row; a copy of what lies safe already is removed."""
    if context.spool.path(name).stat().st_mtime >= limit:
        return
    try:
        spooled = read_spooled(context.spool, name)
    except NotReceived as error:
        log.warning("spool_file_unknown", name=name, reason=str(error))
        return
    if spooled.is_damaged:
        _adopt_damaged(context, spooled.received)
        return
    received = spooled.received
    presence = Presence(context.spool, context.store)
    (outcome,) = register_all(context.database, [received], dt.timedelta(0), presence=presence)
    if outcome is Outcome.IDENTICAL:
        context.spool.remove(name)
    log.info("spool_file_adopted", name=name, sop_instance_uid=received.sop_instance_uid, outcome=outcome.value)


def _adopt_damaged(context: Context, received: Received) -> None:
    """Enter an object whose bytes are no longer those received, so that it is missed but never served.

    Where the index knows the object already, the file is left as it is.
    """
    with context.database.session() as session:
        if holdings.instance_pk(session, received) is None:
            register(session, received, dt.timedelta(0))
            pk = holdings.instance_pk(session, received)
            assert pk is not None, "It was registered just now."
            archiving.quarantine(session, pk, DAMAGED)
    log.error("spool_file_damaged", name=received.spool_name, sop_instance_uid=received.sop_instance_uid)


def _remove_unused(context: Context, container: HeldContainer) -> None:
    """Remove a container that the index knows and in which no instance lies any more: object first, then row."""
    with contextlib.suppress(FileNotFoundError):
        context.store.delete(container.key)
    with context.database.session() as session:
        holdings.drop_container(session, container.container_pk)
    log.info("container_removed", key=container.key)


def _remove_stray(context: Context, key: str, limit: float) -> None:
    """Remove a container that a worker left when it died before its commit.

    It is removed only if the index has a home for all that lies in it: the index may be the one that is wrong, after a
    loss or an old backup.
    """
    if context.store.stored_at(key).timestamp() >= limit:
        return
    try:
        with context.store.open(key) as reader:
            entries = open_container(reader, key).entries
    except DamagedContainer as error:
        log.warning("container_unknown", key=key, reason=str(error))
        return
    contents = {(entry.dicom.sop_instance_uid, entry.dicom.dataset_sha256) for entry in entries if entry.dicom}
    with context.database.reading() as session:
        kept = len(contents) > 0 and holdings.has_all(session, contents)
    if kept:
        context.store.delete(key)
        log.info("container_removed", key=key)
    else:
        log.warning("container_unknown", key=key, reason="It holds objects that are not in the index: run reindex.")


def _unknown(
    context: Context, names: Iterable[str], known: Callable[[Session, Collection[str]], set[str]]
) -> Iterator[str]:
    """Give those of the names that the index does not know."""
    remaining = iter(names)
    while page := list(itertools.islice(remaining, holdings.PAGE_ROWS)):
        with context.database.reading() as session:
            found = known(session, page)
        yield from (name for name in page if name not in found)
