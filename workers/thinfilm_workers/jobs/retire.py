"""Let lossless originals go whose time is over, once the objects derived from them are proven again."""

import datetime as dt
from collections.abc import Sequence
from itertools import groupby

import structlog

from thinfilm_gateway.archive.container.format import DamagedContainer
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.index import archiving, derivations
from thinfilm_gateway.index.derivations import Retiring
from thinfilm_gateway.index.jobs import ClaimedJob
from thinfilm_workers.context import Context
from thinfilm_workers.lease import Lease
from thinfilm_workers.proof import container_damage

log = structlog.get_logger()


def retire_series(context: Context, job: ClaimedJob, lease: Lease) -> None:
    """Serve the derived objects of a series in the place of the originals that may go, and forget these.

    A derived object that does not read back is quarantined, and its original stays. Containers in which nothing lies
    any more are removed by the sweep. Raises LeaseLost, StorageAway while the archive is not mounted, and whatever
    files and database raise.
    """
    assert job.series_pk is not None
    now = dt.datetime.now(dt.UTC)
    with context.database.reading() as session:
        rule = derivations.rule_of(session, context.settings.lossy, job.series_pk)
        if rule is None:  # it was withdrawn since the job was asked for
            return
        retiring = derivations.originals_to_retire(session, job.series_pk, rule, now)
    sound = _proven(context, retiring, lease)
    with context.database.session() as session:
        lease.confirm(session)
        gone = derivations.retire(session, sound, rule.declared_retention, now)
    for one in gone:
        if one.original_spool_name:
            context.spool.remove(one.original_spool_name)
    log.info("originals_retired", instances=len(gone))


def _proven(context: Context, retiring: Sequence[Retiring], lease: Lease) -> list[Retiring]:
    """Return those whose derived object reads back from storage as it was put there."""
    sound = []
    for key, of_container in groupby(retiring, key=lambda one: one.derived.container_key):
        ones = list(of_container)
        try:
            with context.store.open(key) as reader:
                container = open_container(reader, key)
                damages = []
                for one in ones:
                    lease.check()
                    damages.append(container_damage(container, one.derived.entry, one.derived.sha256))
        except (DamagedContainer, FileNotFoundError) as error:
            context.store.check_mounted()
            damages = [f"The container cannot be read back: {error}"] * len(ones)
        for one, damage in zip(ones, damages, strict=True):
            if damage is None:
                sound.append(one)
                continue
            log.error("derived_object_damaged", sop_instance_uid=one.derived.sop_instance_uid, reason=damage)
            with context.database.session() as session:
                archiving.quarantine(session, one.derived.instance_pk, damage)
    return sound
