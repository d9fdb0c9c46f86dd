"""Records what an admin may have to account for later."""

import datetime as dt

from sqlalchemy import insert
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import AuditEvent


def record(
    session: Session,
    kind: str,
    sop_instance_uid: str | None = None,
    peer: str | None = None,
    detail: str = "",
    now: dt.datetime | None = None,
) -> None:
    """Add an event to the audit trail, in the caller's transaction. `detail` is a sentence without patient data."""
    values = {"at": now or dt.datetime.now(dt.UTC), "kind": kind, "sop_instance_uid": sop_instance_uid}
    session.execute(insert(AuditEvent).values(**values, peer=peer, detail=detail))
