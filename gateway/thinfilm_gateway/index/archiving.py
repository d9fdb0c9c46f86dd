"""What the archive tells the index: which instances wait, which lie in a container, and which must not be trusted."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index import audit
from thinfilm_gateway.index.jobs import COMPRESS
from thinfilm_gateway.index.models import Container, Instance, Job
from thinfilm_gateway.index.sql import insert_missing_into
from thinfilm_gateway.index.states import InstanceState, JobState
from thinfilm_gateway.index.transitions import move_instances


@dataclass(frozen=True)
class PendingInstance:
    """An instance that is in the spool only. sha256, dataset_bytes: of the encoded data set, from dataset_offset on."""

    instance_pk: int
    sop_instance_uid: str
    transfer_syntax_uid: str
    spool_name: str
    sha256: str
    dataset_bytes: int
    dataset_offset: int


@dataclass(frozen=True)
class Placement:
    """Where an instance lies in a container, and its share of the container's bytes."""

    instance_pk: int
    entry: int
    stored_bytes: int


def pending(session: Session, series_pk: int) -> list[PendingInstance]:
    """Return the instances of a series that wait for the archive, further revisions too, in the order of arrival."""
    statement: Any = (
        select(
            Instance.id,
            Instance.sop_instance_uid,
            Instance.transfer_syntax_uid,
            Instance.spool_name,
            Instance.sha256,
            Instance.dataset_bytes,
            Instance.dataset_offset,
        )
        .where(Instance.series_pk == series_pk, Instance.state == InstanceState.RECEIVED)
        .where(Instance.spool_name.is_not(None))
        .order_by(Instance.id)
    )
    return [PendingInstance(*row) for row in session.execute(statement)]


def record_container(
    session: Session,
    key: str,
    size_bytes: int,
    codecs: Sequence[str],
    placements: Sequence[Placement],
    now: dt.datetime | None = None,
) -> list[int]:
    """Enter a container that was proven, and make it the home of its instances; return the keys of those it took.

    An instance that has a home by now, or that is quarantined, is not taken; if none is, nothing is entered and the
    container is not needed.
    """
    now = now or dt.datetime.now(dt.UTC)
    pks = [placement.instance_pk for placement in placements]
    homeless = (InstanceState.RECEIVED, InstanceState.AS_RECEIVED)
    rows = session.execute(
        select(Instance.id, Instance.state).where(Instance.id.in_(pks), Instance.state.in_(homeless)).with_for_update()
    )
    states = {row.id: row.state for row in rows}
    if not states:
        return []
    container = insert(Container).values(
        key=key, size_bytes=size_bytes, codecs=",".join(codecs), created_at=now, verified_at=now
    )
    container_pk = session.execute(container.returning(Container.id)).scalar_one()
    taken = [placement for placement in placements if placement.instance_pk in states]
    for placement in taken:
        move_instances(
            session,
            [placement.instance_pk],
            states[placement.instance_pk],
            InstanceState.ARCHIVED,
            container_pk=container_pk,
            container_entry=placement.entry,
            stored_bytes=placement.stored_bytes,
        )
    return [placement.instance_pk for placement in taken]


def attach(
    session: Session,
    key: str,
    size_bytes: int,
    codecs: Sequence[str],
    placements: Sequence[Placement],
    created_at: dt.datetime,
) -> None:
    """Make a container that was read and proven the home of instances that have no other proven one.

    Another container that the index named is given up. This one may be in the index already.
    """
    now = dt.datetime.now(dt.UTC)
    row = {"key": key, "size_bytes": size_bytes, "codecs": ",".join(codecs), "created_at": created_at}
    session.execute(insert_missing_into(session, Container).values(**row, verified_at=now))
    renewed = update(Container).where(Container.key == key).values(verified_at=now, unused_since=None)
    session.execute(renewed.execution_options(synchronize_session=False))
    container_pk = session.execute(select(Container.id).where(Container.key == key).with_for_update()).scalar_one()
    pks = [placement.instance_pk for placement in placements]
    states = {
        row.id: row.state
        for row in session.execute(select(Instance.id, Instance.state).where(Instance.id.in_(pks)).with_for_update())
    }
    for placement in placements:
        pk = placement.instance_pk
        if states[pk] is InstanceState.ARCHIVED:  # in a container that is gone or damaged
            move_instances(session, [pk], InstanceState.ARCHIVED, InstanceState.QUARANTINED)
            states[pk] = InstanceState.QUARANTINED
        move_instances(
            session,
            [pk],
            states[pk],
            InstanceState.ARCHIVED,
            container_pk=container_pk,
            container_entry=placement.entry,
            stored_bytes=placement.stored_bytes,
        )
    audit.record(session, "container_attached", detail=f"{len(placements)} objects were found in {key}.", now=now)


def give_up(session: Session, series_pk: int, reason: str) -> int:
    """Leave what waits in a series as received, since its last job failed; return how many instances that are.

    If objects have arrived since, their job will try the whole series again, and nothing is given up yet.
    """
    later = select(Job.id).where(Job.series_pk == series_pk, Job.kind == COMPRESS, Job.state == JobState.WAITING)
    if session.execute(later).first() is not None:
        return 0
    waiting = pending(session, series_pk)
    leave_as_received(session, waiting, reason)
    return len(waiting)


def leave_as_received(session: Session, waiting: Sequence[PendingInstance], reason: str) -> None:
    """Let instances that wait be objects of record in the spool, and note why."""
    move_instances(session, [one.instance_pk for one in waiting], InstanceState.RECEIVED, InstanceState.AS_RECEIVED)
    for instance in waiting:
        audit.record(session, "left_as_received", instance.sop_instance_uid, detail=reason)


def quarantine(session: Session, instance_pk: int, reason: str) -> bool:
    """Mark an instance whose bytes do not match their SHA-256, so that it is never sent; False if it was marked."""
    statement = select(Instance.state, Instance.sop_instance_uid).where(Instance.id == instance_pk).with_for_update()
    found = session.execute(statement).first()
    if found is None or found.state is InstanceState.QUARANTINED:
        return False
    move_instances(session, [instance_pk], found.state, InstanceState.QUARANTINED)
    audit.record(session, "quarantined", found.sop_instance_uid, detail=reason)
    return True
