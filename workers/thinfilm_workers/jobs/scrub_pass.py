"""The scrub that runs by itself: everything is read once in `scrub_days`, a little at a time.

How far it has come is kept in the index, so that a pass goes on after a restart, and on any host.
"""

import datetime as dt
import time
from dataclasses import replace

import structlog

from thinfilm_gateway.index import holdings, scrub_passes
from thinfilm_gateway.index.scrub_passes import Pass
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.scrub import Scrubbing

log = structlog.get_logger()

SECONDS = 20.0  # of one run; what it has begun by then it ends
SPOOL_COPIES = 64  # read at a time


def scrub_on(context: Context, seconds: float = SECONDS) -> None:
    """Read on as far as the time that has passed asks for; begin a pass when the last one began `scrub_days` ago.

    Raises StorageAway as `scrub` does, OSError, and whatever the database raises; the pass then goes on where it was.
    """
    ends = time.monotonic() + seconds
    days = dt.timedelta(days=context.settings.scrub_days)
    _begin_if_due(context, days)
    while time.monotonic() < ends:
        with context.database.reading() as session:
            current = scrub_passes.under_way(session)
        now = dt.datetime.now(dt.UTC)
        if current is None or (now - current.began_at) / days < current.share < 1:
            return
        if not _advance(context, current, days):
            return


def _begin_if_due(context: Context, days: dt.timedelta) -> None:
    now = dt.datetime.now(dt.UTC)
    with context.database.session() as session:
        last = scrub_passes.last_whole(session)
        is_due = last is None or now - last >= days or last > now
        if is_due and scrub_passes.under_way(session) is None and not holdings.is_empty(session):
            scrub_passes.begin(session, now)


def _advance(context: Context, current: Pass, days: dt.timedelta) -> bool:
    """Read one container, or a few spool copies; False if another worker does the same."""
    scrubbing = Scrubbing(context, lambda: None)
    now = dt.datetime.now(dt.UTC)
    finished_at: dt.datetime | None = None
    with context.database.reading() as session:
        following = holdings.next_container(session, current.last_container_pk)
        alone = [] if following else holdings.next_without_container(session, current.last_instance_pk, SPOOL_COPIES)
    if following:
        container, verified_at = following
        if verified_at < now - days / 2:  # it is read anyway when it is made
            scrubbing.container(container)
        read = replace(current, last_container_pk=container.container_pk)
    elif alone:
        scrubbing.spool_only(alone)
        read = replace(current, last_instance_pk=alone[-1].instance_pk)
    else:
        read, finished_at = current, now
    damages = scrubbing.report().damages
    with context.database.session() as session:
        share = scrub_passes.share_read(session, read.last_container_pk, read.last_instance_pk)
        read = replace(read, share=1.0 if finished_at else min(share, 1.0), damages=current.damages + len(damages))
        went_on = scrub_passes.advance(session, current, read, finished_at)
    for damage in damages:
        log.error("scrub_damage", damage=damage)
    if finished_at and went_on:
        log.info("scrub_pass_finished", damages=read.damages)
    return went_on
