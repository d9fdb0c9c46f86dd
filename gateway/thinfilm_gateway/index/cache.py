"""The spool copies of archived instances, a cache for fast retrieval: which were read last, and which may go."""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Instance
from thinfilm_gateway.index.states import InstanceState

_IS_CACHED = (Instance.state == InstanceState.ARCHIVED, Instance.spool_name.is_not(None))
_FILE_BYTES = Instance.dataset_offset + Instance.dataset_bytes


@dataclass(frozen=True)
class CachedCopy:
    """A spool file that is no longer the only copy. file_bytes: its length."""

    instance_pk: int
    spool_name: str
    file_bytes: int
    last_read_at: dt.datetime


def cached_bytes(session: Session) -> int:
    """Return the bytes of all spool copies that may go."""
    return int(session.execute(select(func.coalesce(func.sum(_FILE_BYTES), 0)).where(*_IS_CACHED)).scalar_one())


def least_recently_read(session: Session, limit: int = 1000) -> list[CachedCopy]:
    """Return up to `limit` spool copies that may go, in the order in which they should."""
    statement: Any = select(Instance.id, Instance.spool_name, _FILE_BYTES, Instance.last_read_at).where(*_IS_CACHED)
    rows = session.execute(statement.order_by(Instance.last_read_at, Instance.id).limit(limit))
    return [CachedCopy(*row) for row in rows]


def touch(session: Session, instance_pks: Collection[int], now: dt.datetime | None = None) -> None:
    """Record that instances have been read."""
    read_at = now or dt.datetime.now(dt.UTC)
    statement = update(Instance).where(Instance.id.in_(instance_pks)).values(last_read_at=read_at)
    session.execute(statement.execution_options(synchronize_session=False))


def forget(session: Session, instance_pk: int) -> bool:
    """Take the spool copy of an archived instance out of the index; False if it may not go.

    Its file is to be removed after the commit: until then the index would point at nothing after a crash.
    """
    statement = update(Instance).where(Instance.id == instance_pk, *_IS_CACHED).values(spool_name=None)
    statement = statement.execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1
