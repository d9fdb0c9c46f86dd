"""Originals that come again after they were retired: they are served, not the objects derived from them."""

import datetime as dt
from collections.abc import Collection

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Derivation, Instance

_RETIRED = select(
    Derivation.id, Derivation.derived_sop_instance_uid, Derivation.decided_at, Derivation.retire_at
).where(
    Derivation.original_sop_instance_uid.in_(bindparam("originals", expanding=True)),
    Derivation.retired_at.is_not(None),
)


def serve_again(session: Session, sop_instance_uids: Collection[str], now: dt.datetime) -> None:
    """Serve those of the objects whose derived ones are served; they stay for as long as they did the first time."""
    for row in session.connection().execute(_RETIRED, {"originals": list(sop_instance_uids)}).all():
        again = None if row.retire_at is None else now + (row.retire_at - row.decided_at)
        unserved = update(Instance).where(Instance.sop_instance_uid == row.derived_sop_instance_uid)
        kept = update(Derivation).where(Derivation.id == row.id)
        for statement in (
            unserved.values(current=False),
            kept.values(decided_at=now, retire_at=again, retired_at=None),
        ):
            session.execute(statement.execution_options(synchronize_session=False))
