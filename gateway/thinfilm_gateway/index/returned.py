"""Originals that come again after they were retired: they are served, not the objects derived from them."""

from collections.abc import Collection

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Derivation, Instance
from thinfilm_gateway.index.sql import one_of


def serve_again(session: Session, sop_instance_uids: Collection[str]) -> None:
    """Serve those of the objects whose derived ones are served, until they are retired anew."""
    retired = select(Derivation.derived_sop_instance_uid).where(
        one_of(session, Derivation.original_sop_instance_uid, list(sop_instance_uids)),
        Derivation.retired_at.is_not(None),
    )
    derived = [uid for uid in session.scalars(retired) if uid]
    if not derived:
        return
    unserved = update(Instance).where(one_of(session, Instance.sop_instance_uid, derived)).values(current=False)
    kept = update(Derivation).where(Derivation.derived_sop_instance_uid.in_(derived)).values(retired_at=None)
    for statement in (unserved, kept):
        session.execute(statement.execution_options(synchronize_session=False))
