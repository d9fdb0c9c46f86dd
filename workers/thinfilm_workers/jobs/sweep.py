"""Bring back what crashes left behind: jobs, spool files, containers and temporary files."""

import contextlib
import datetime as dt
import itertools
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import structlog
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.container.format import DamagedContainer, MissingDecoder
from thinfilm_gateway.archive.presence import Presence
from thinfilm_gateway.dispatch import Broker, send_due
from thinfilm_gateway.index import archiving, clock, commitments, holdings, jobs
from thinfilm_gateway.index.ingest import Outcome, Received, register, register_all
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.orphans import settle
from thinfilm_workers.jobs.resent import check_resent
from thinfilm_workers.receipt import DAMAGED, NotReceived, read_spooled
from thinfilm_workers.runner import record_released

log = structlog.get_logger()

GRACE = dt.timedelta(days=1)
"""How old a file must be to count as left behind: far longer than any object is between its file and its row."""


ATTACH_AFTER = dt.timedelta(minutes=10)
"""How old a container must be for its row to be missed: a worker that still proves an older one only toils in vain."""


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


def tidy(context: Context, grace: dt.timedelta = GRACE, attach_after: dt.timedelta = ATTACH_AFTER) -> None:
    """Compare files and rows: adopt spool files without a row, settle containers without one, remove temporary files.

    Storage commitments that were finished long ago are forgotten.

    Reads every name in spool and archive; run it seldom. Files younger than `grace` may still get their row, containers
    younger than `attach_after`. What goes wrong with one file is logged and keeps nothing from being done for the
    others.
    """
    limit = time.time() - grace.total_seconds()
    with context.database.session() as session:
        commitments.forget(session, dt.datetime.now(dt.UTC) - commitments.KEPT_FOR)
    for name in _unknown(context, context.spool.names(), holdings.known_spool_names):
        with _one_at_a_time("spool file", name):
            _adopt(context, name, limit)
    with _one_at_a_time("folder", "resent"):
        check_resent(context, math.inf)
    _settle_containers(context, time.time() - min(grace, attach_after).total_seconds())
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
    """Enter a whole object that a crash left without a row; one that the index has already is set aside."""
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
        context.spool.set_aside(name)
    log.info("spool_file_adopted", name=name, sop_instance_uid=received.sop_instance_uid, outcome=outcome.value)


def _adopt_damaged(context: Context, received: Received) -> None:
    """Enter an object whose bytes are no longer those received, so that it is missed but never served.

    Where the index knows the object already, the file is set aside: it goes if the other copy is right.
    """
    with context.database.session() as session:
        known = holdings.instance_pk(session, received) is not None
        if not known:
            register(session, received, dt.timedelta(0))
            pk = holdings.instance_pk(session, received)
            assert pk is not None, "It was registered just now."
            archiving.quarantine(session, pk, DAMAGED)
    if known:
        context.spool.set_aside(str(received.spool_name))
    log.error("spool_file_damaged", name=received.spool_name, sop_instance_uid=received.sop_instance_uid)


def _settle_containers(context: Context, limit: float) -> None:
    """Look at the containers in which no instance lies by the index, known ones and others."""
    with context.database.reading() as session:
        waiting = {unused.key: unused.since for unused in holdings.unused_containers(session)}
    unknown = _unknown(context, context.store.keys(), holdings.known_container_keys)
    waiting |= dict.fromkeys((key for key in unknown if _is_finished(context, key, limit)), None)
    # First those that cannot hold derived objects without the originals, since what is served depends on these.
    for derived_too in (False, True):
        for key, since in list(waiting.items()):
            with _one_at_a_time("container", key):
                if _is_settled(context, key, since, derived_too=derived_too):
                    del waiting[key]


def _is_finished(context: Context, key: str, limit: float) -> bool:
    """Tell whether no worker is about to name the container: it is old enough, or dated by a clock that was ahead.

    limit: what was stored before is old enough; what is dated as far ahead of now was not stored now either.
    """
    try:
        stored_at = context.store.stored_at(key).timestamp()
    except FileNotFoundError:
        return False
    now = time.time()
    return abs(now - stored_at) >= now - limit


def _is_settled(context: Context, key: str, since: dt.datetime | None, *, derived_too: bool) -> bool:
    try:
        return settle(context, key, since, derived_too=derived_too)
    except (DamagedContainer, MissingDecoder) as error:
        log.warning("container_unknown", key=key, reason=str(error))
    except FileNotFoundError:
        context.store.check_mounted()
        with context.database.session() as session:
            holdings.drop_container(session, key, lambda: None)
    return True


def _unknown(
    context: Context, names: Iterable[str], known: Callable[[Session, Collection[str]], set[str]]
) -> Iterator[str]:
    """Give those of the names that the index does not know."""
    remaining = iter(names)
    while page := list(itertools.islice(remaining, holdings.PAGE_ROWS)):
        with context.database.reading() as session:
            found = known(session, page)
        yield from (name for name in page if name not in found)
