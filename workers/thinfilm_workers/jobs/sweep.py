"""Bring back what crashes left behind: jobs, spool files, containers and temporary files."""

import contextlib
import datetime as dt
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import structlog
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.dispatch import Broker, send_due
from thinfilm_gateway.index import archiving, holdings, jobs
from thinfilm_gateway.index.ingest import Outcome, register_all
from thinfilm_gateway.index.states import JobState
from thinfilm_workers.context import Context
from thinfilm_workers.receipt import NotReceived, read_file

log = structlog.get_logger()

GRACE = dt.timedelta(days=1)
"""How old a file must be to count as left behind: far longer than any object is between its file and its row."""


def sweep(context: Context) -> None:
    """Free expired leases, and see that all that waits has a job and the broker knows of it. Cheap: run it often."""
    now = dt.datetime.now(dt.UTC)
    with context.database.session() as session:
        for job in jobs.release_expired(session, context.settings.max_attempts):
            log.warning("lease_expired", job=job.id, state=job.state.value)
            if job.state is JobState.FAILED and job.series_pk is not None:
                archiving.give_up(session, job.series_pk, job.error)
        if orphans := holdings.request_missing_jobs(session, now):
            log.warning("jobs_missing", series=orphans)
    if context.settings.broker_url:
        broker = Broker(context.settings.broker_url)
        try:
            send_due(context.database, broker)
        finally:
            broker.close()


def tidy(context: Context, grace: dt.timedelta = GRACE) -> None:
    """Compare files and rows: adopt spool files without a row, remove containers and temporary files of nobody.

    Reads every name in spool and archive; run it seldom. Files younger than `grace` may still get their row.
    """
    limit = time.time() - grace.total_seconds()
    _adopt_spool_files(context, limit)
    _remove_unused_containers(context, limit)
    _remove_stray_containers(context, limit)
    context.spool.sweep_temporary(grace)
    for file in context.work_dir.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime < limit:
                file.unlink()
                log.info("temporary_file_removed", name=file.name)


def _adopt_spool_files(context: Context, limit: float) -> None:
    """Enter whole objects that a crash left without a row; a copy of what is kept already is removed."""
    for name in _unknown(context, context.spool.names(), holdings.known_spool_names):
        try:
            if context.spool.path(name).stat().st_mtime >= limit:
                continue
            received = read_file(context.spool.path(name), name)
        except FileNotFoundError:
            continue
        except NotReceived as error:
            log.warning("spool_file_unknown", name=name, reason=str(error))
            continue
        (outcome,) = register_all(context.database, [received], dt.timedelta(0))
        if outcome is Outcome.IDENTICAL:
            context.spool.remove(name)
        log.info("spool_file_adopted", name=name, sop_instance_uid=received.sop_instance_uid, outcome=outcome.value)


def _remove_unused_containers(context: Context, limit: float) -> None:
    """Remove containers that the index knows and in which no instance lies any more: object first, then row."""
    with context.database.reading() as session:
        unused = holdings.unused_containers(session, dt.datetime.fromtimestamp(limit, dt.UTC))
    for container in unused:
        with contextlib.suppress(FileNotFoundError):
            context.store.delete(container.key)
        with context.database.session() as session:
            holdings.drop_container(session, container.container_pk)
        log.info("container_removed", key=container.key)


def _remove_stray_containers(context: Context, limit: float) -> None:
    """Remove containers that a worker left when it died before its commit.

    One that the index does not know is removed only if the index has a home for all that lies in it: the index may be
    the one that is wrong, after a loss or an old backup.
    """
    for key in _unknown(context, context.store.keys(), holdings.known_container_keys):
        try:
            if context.store.stored_at(key).timestamp() >= limit:
                continue
            with context.store.open(key) as reader:
                entries = open_container(reader, key).entries
        except FileNotFoundError:
            continue
        except DamagedContainer as error:
            log.warning("container_unknown", key=key, reason=str(error))
            continue
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
