"""What spool and archive must hold by the index, and the other way round: for the sweep, the scrub and the rebuild."""

import datetime as dt
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index import audit
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Received
from thinfilm_gateway.index.jobs import COMPRESS, request_compression
from thinfilm_gateway.index.models import Container, Instance, Job, Patient
from thinfilm_gateway.index.sql import insert_missing_into
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


@dataclass(frozen=True)
class UnusedContainer:
    """A container in which no instance lies. since: when all that lies in it was proven to be kept elsewhere."""

    key: str
    size_bytes: int
    since: dt.datetime | None


_HELD: Any = select(
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


def codecs(session: Session) -> set[str]:
    """Return the ids of all codecs that containers need. Reads every row."""
    joined = session.scalars(select(Container.codecs).distinct())
    return {codec_id for ids in joined for codec_id in ids.split(",")}


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


def next_container(session: Session, after_pk: int) -> tuple[HeldContainer, dt.datetime] | None:
    """Return the container that follows, and when it was proven last; None behind the newest."""
    statement: Any = select(Container.id, Container.key, Container.size_bytes, Container.verified_at)
    row = session.execute(statement.where(Container.id > after_pk).order_by(Container.id).limit(1)).first()
    return None if row is None else (HeldContainer(row[0], row[1], row[2]), row[3])


def next_without_container(session: Session, after_pk: int, limit: int) -> list[HeldInstance]:
    """Return the instances that follow, of those that lie in no container."""
    statement = _HELD.where(Instance.container_pk.is_(None), Instance.id > after_pk)
    return _held(session, statement.order_by(Instance.id).limit(limit))


def in_container(session: Session, container_pk: int) -> list[HeldInstance]:
    """Return the instances that lie in a container."""
    return _held(session, _HELD.where(Instance.container_pk == container_pk).order_by(Instance.container_entry))


def homes(session: Session, instance_pks: Collection[int]) -> dict[int, HeldContainer]:
    """Return the containers in which instances lie, by the key of the instance."""
    statement: Any = select(Instance.id, Container.id, Container.key, Container.size_bytes)
    statement = statement.join(Container, Container.id == Instance.container_pk).where(Instance.id.in_(instance_pks))
    return {row[0]: HeldContainer(*row[1:]) for row in session.execute(statement)}


def without_container(database: Database) -> Iterator[HeldInstance]:
    """Give all instances that lie in no container, oldest first, page by page."""
    last = 0
    while True:
        with database.reading() as session:
            page = next_without_container(session, last, PAGE_ROWS)
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
        Job.series_pk == Instance.series_pk,
        Job.kind == COMPRESS,
        Job.state.in_((JobState.WAITING, JobState.RUNNING)),
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


def unused_containers(session: Session) -> list[UnusedContainer]:
    """Return the containers in which no instance lies any more, by the index."""
    statement: Any = select(Container.key, Container.size_bytes, Container.unused_since)
    return [UnusedContainer(*row) for row in session.execute(statement.where(~_is_used()).order_by(Container.id))]


def list_unused(session: Session, key: str, size_bytes: int, codecs: str, now: dt.datetime) -> None:
    """Note that all that lies in a container is kept elsewhere too; it may be one that the index did not know."""
    row = {"key": key, "size_bytes": size_bytes, "codecs": codecs, "created_at": now, "verified_at": now}
    session.execute(insert_missing_into(session, Container).values(row))
    listed = update(Container).where(Container.key == key, Container.unused_since.is_(None), ~_is_used())
    session.execute(listed.values(unused_since=now).execution_options(synchronize_session=False))


def drop_container(session: Session, key: str, remove: Callable[[], None]) -> bool:
    """Remove a container that no instance lies in, and its row; False if one does by now.

    remove: removes the object. It is called while the row is locked, so that nothing can begin to lie in it meanwhile.
    """
    statement: Any = select(Container.id).where(Container.key == key, ~_is_used()).with_for_update()
    container_pk = session.scalar(statement)
    if container_pk is None:
        return False
    remove()
    row = delete(Container).where(Container.id == container_pk)
    session.execute(row.execution_options(synchronize_session=False))
    return True


def drop_unnamed(session: Session, key: str, remove: Callable[[], None]) -> bool:
    """Remove a container that was just made and that nothing needs; False if the index names it.

    remove: removes the object. A row keeps everybody else from naming it meanwhile.
    """
    if known_container_keys(session, [key]):
        return False
    now = dt.datetime.now(dt.UTC)
    list_unused(session, key, 0, "", now)
    return drop_container(session, key, remove)


def find(session: Session, received: Received) -> HeldInstance | None:
    """Return the revision that has the bytes of an object; None if there is none."""
    statement = _HELD.where(
        Instance.sop_instance_uid == received.sop_instance_uid,
        Instance.sha256 == received.sha256,
        Instance.transfer_syntax_uid == received.transfer_syntax_uid,
    )
    return next(iter(_held(session, statement)), None)


def with_content(session: Session, sop_instance_uid: str, sha256: str) -> HeldInstance | None:
    """Return a revision of this UID whose data set has this SHA-256; None if there is none."""
    statement = _HELD.where(Instance.sop_instance_uid == sop_instance_uid, Instance.sha256 == sha256)
    return next(iter(_held(session, statement)), None)


def drop_needless_jobs(session: Session) -> None:
    """Remove the waiting jobs of series in which nothing waits."""
    waiting = select(Instance.id).where(Instance.series_pk == Job.series_pk, Instance.state == InstanceState.RECEIVED)
    statement = delete(Job).where(Job.state == JobState.WAITING, Job.series_pk.is_not(None), ~waiting.exists())
    session.execute(statement.execution_options(synchronize_session=False))


def instance_pk(session: Session, received: Received) -> int | None:
    """Return the key of the revision that has the bytes of an object; None if there is none."""
    found = find(session, received)
    return None if found is None else found.instance_pk


def count_instances(session: Session) -> tuple[int, int]:
    """Return how many instances there are, and how many of them have a copy in the spool."""
    row = session.execute(select(func.count(Instance.id), func.count(Instance.spool_name))).one()
    return row[0], row[1]


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


def _is_used() -> Any:
    return select(Instance.id).where(Instance.container_pk == Container.id).exists()


def _held(session: Session, statement: Any) -> list[HeldInstance]:
    return [HeldInstance(*row) for row in session.execute(statement)]
