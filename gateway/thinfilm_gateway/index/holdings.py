"""What spool and archive must hold by the index, and the other way round: for the sweep, the scrub and the rebuild."""

import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, Select, delete, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index import audit
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.jobs import request_compression
from thinfilm_gateway.index.models import Container, Instance, Job, Patient
from thinfilm_gateway.index.states import InstanceState, JobState
from thinfilm_gateway.index.transitions import move_instances

PAGE_ROWS = 500


@dataclass(frozen=True)
class HeldInstance:
    """An instance and where its copies should lie. sha256, dataset_bytes, dataset_offset: of the encoded data set."""

    instance_pk: int
    series_pk: int
    sop_instance_uid: str
    state: InstanceState
    sha256: str
    dataset_bytes: int
    dataset_offset: int
    spool_name: str | None
    container_pk: int | None
    container_entry: int | None


@dataclass(frozen=True)
class HeldContainer:
    """A container that should lie in the store."""

    container_pk: int
    key: str
    size_bytes: int


_HELD = select(
    Instance.id,
    Instance.series_pk,
    Instance.sop_instance_uid,
    Instance.state,
    Instance.sha256,
    Instance.dataset_bytes,
    Instance.dataset_offset,
    Instance.spool_name,
    Instance.container_pk,
    Instance.container_entry,
)


def is_empty(session: Session) -> bool:
    """Tell whether nothing was ever entered into the index."""
    return session.execute(select(Patient.id).limit(1)).first() is None


def known_spool_names(session: Session, names: Collection[str]) -> set[str]:
    """Return those of at most PAGE_ROWS spool names that belong to an instance."""
    return {name for name in session.scalars(select(Instance.spool_name).where(Instance.spool_name.in_(names))) if name}


def known_container_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Return those of at most PAGE_ROWS keys under which the index has a container."""
    return set(session.scalars(select(Container.key).where(Container.key.in_(keys))))


def containers(database: Database) -> Iterator[HeldContainer]:
    """Give all containers, oldest first, page by page, so that no transaction stays open."""
    last = 0
    while True:
        statement = select(Container.id, Container.key, Container.size_bytes).where(Container.id > last)
        with database.reading() as session:
            page = [HeldContainer(*row) for row in session.execute(statement.order_by(Container.id).limit(PAGE_ROWS))]
        if not page:
            return
        yield from page
        last = page[-1].container_pk


def in_container(session: Session, container_pk: int) -> list[HeldInstance]:
    """Return the instances that lie in a container."""
    return _held(session, _HELD.where(Instance.container_pk == container_pk).order_by(Instance.container_entry))


def without_container(database: Database) -> Iterator[HeldInstance]:
    """Give all instances that lie in no container, oldest first, page by page."""
    last = 0
    while True:
        statement = _HELD.where(Instance.container_pk.is_(None), Instance.id > last)
        with database.reading() as session:
            page = _held(session, statement.order_by(Instance.id).limit(PAGE_ROWS))
        if not page:
            return
        yield from page
        last = page[-1].instance_pk


def lock_unchanged(session: Session, held: HeldInstance) -> bool:
    """Lock an instance in a writing transaction; False if its state or its copies are others by now."""
    return _held(session, _HELD.where(Instance.id == held.instance_pk).with_for_update()) == [held]


def request_missing_jobs(session: Session, now: dt.datetime) -> int:
    """Give a job to each series that has instances to compress and no open job; return how many."""
    open_job = select(Job.id).where(
        Job.series_pk == Instance.series_pk, Job.state.in_((JobState.WAITING, JobState.RUNNING))
    )
    statement = select(Instance.series_pk).distinct().where(Instance.state == InstanceState.RECEIVED)
    series_pks = session.scalars(statement.where(~open_job.exists())).all()
    request_compression(session, series_pks, now, now)
    return len(series_pks)


def retry_given_up(session: Session, now: dt.datetime) -> int:
    """Let what was left as received be compressed after all; return how many instances that are."""
    statement = select(Instance.id, Instance.series_pk).where(Instance.state == InstanceState.AS_RECEIVED)
    rows = session.execute(statement).all()
    for start in range(0, len(rows), PAGE_ROWS):
        pks = [row.id for row in rows[start : start + PAGE_ROWS]]
        move_instances(session, pks, InstanceState.AS_RECEIVED, InstanceState.RECEIVED)
    request_compression(session, {row.series_pk for row in rows}, now, now)
    return len(rows)


def drop_unused_containers(session: Session, created_before: dt.datetime) -> list[str]:
    """Remove the rows of older containers that no instance lies in any more; return their keys."""
    used = select(Instance.id).where(Instance.container_pk == Container.id)
    statement = delete(Container).where(Container.created_at < created_before, ~used.exists())
    return list(session.scalars(statement.returning(Container.key).execution_options(synchronize_session=False)))


def mark_verified(session: Session, container_pk: int, now: dt.datetime) -> None:
    """Note that every instance of a container was read back and found right."""
    statement = update(Container).where(Container.id == container_pk).values(verified_at=now)
    session.execute(statement.execution_options(synchronize_session=False))


def return_to_spool(session: Session, held: HeldInstance, reason: str, now: dt.datetime) -> None:
    """Make the spool copy the object of record again, to be compressed anew."""
    if held.state is not InstanceState.QUARANTINED:
        move_instances(session, [held.instance_pk], held.state, InstanceState.QUARANTINED)
    nowhere: dict[str, Any] = {"container_pk": None, "container_entry": None, "stored_bytes": None}
    move_instances(session, [held.instance_pk], InstanceState.QUARANTINED, InstanceState.RECEIVED, **nowhere)
    request_compression(session, [held.series_pk], now, now)
    audit.record(session, "healed", held.sop_instance_uid, detail=reason, now=now)


def release_from_quarantine(session: Session, held: HeldInstance, reason: str, now: dt.datetime) -> None:
    """Serve an instance again whose container was read back and found right."""
    move_instances(session, [held.instance_pk], InstanceState.QUARANTINED, InstanceState.ARCHIVED)
    audit.record(session, "healed", held.sop_instance_uid, detail=reason, now=now)


def forget_spool_copy(session: Session, held: HeldInstance) -> bool:
    """Let the index know nothing of the spool copy of an archived instance any more; False if that is not possible."""
    statement = update(Instance).where(
        Instance.id == held.instance_pk,
        Instance.spool_name == held.spool_name,
        Instance.container_pk.is_not(None),
        Instance.state == InstanceState.ARCHIVED,
    )
    result = session.execute(statement.values(spool_name=None).execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount == 1


def _held(session: Session, statement: Select[Any]) -> list[HeldInstance]:
    return [HeldInstance(*row) for row in session.execute(statement)]
