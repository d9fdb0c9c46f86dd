"""Originals that come again after they were retired: they are served, not the objects derived from them."""

import datetime as dt
from collections.abc import Collection

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Derivation, Instance
from thinfilm_gateway.index.sql import one_of


def serve_again(session: Session, sop_instance_uids: Collection[str], now: dt.datetime) -> None:
    """Serve those of the objects whose derived ones are served; they stay for as long as they did the first time."""
    retired = select(
        Derivation.id, Derivation.derived_sop_instance_uid, Derivation.decided_at, Derivation.retire_at
    ).where(
        one_of(session, Derivation.original_sop_instance_uid, list(sop_instance_uids)),
        Derivation.retired_at.is_not(None),
    )
    for row in session.execute(retired).all():
        again = None if row.retire_at is None else now + (row.retire_at - row.decided_at)
        unserved = update(Instance).where(Instance.sop_instance_uid == row.derived_sop_instance_uid)
        kept = update(Derivation).where(Derivation.id == row.id)
        for statement in (
            unserved.values(current=False),
            kept.values(decided_at=now, retire_at=again, retired_at=None),
        ):
            session.execute(statement.execution_options(synchronize_session=False))
