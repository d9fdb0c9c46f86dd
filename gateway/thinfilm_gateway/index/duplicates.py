"""What came with other content under one SOP Instance UID: the revisions that are kept, and what was noted of each."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import AuditEvent, Instance, Series, Study
from thinfilm_gateway.index.states import InstanceState

CONTENT_CONFLICT = "content_conflict"
RELATIONAL_MISMATCH = "relational_mismatch"


@dataclass(frozen=True)
class Revision:
    """One of several objects of the same SOP Instance UID.

    current: whether it is the one that is found and returned. sha256: of its data set.
    """

    sop_instance_uid: str
    revision: int
    current: bool
    study_instance_uid: str
    series_instance_uid: str
    state: InstanceState
    dataset_bytes: int
    sha256: str
    sender_ae_title: str
    received_at: dt.datetime


@dataclass(frozen=True)
class DuplicateEvent:
    """That an object came under a SOP Instance UID that was there with other content, and what became of it.

    kind: CONTENT_CONFLICT, or RELATIONAL_MISMATCH where it was in another study or series.
    """

    at: dt.datetime
    kind: str
    sop_instance_uid: str
    peer: str
    detail: str


def revisions(session: Session, limit: int = 100) -> list[Revision]:
    """Return all revisions of the `limit` SOP Instance UIDs that last got a further one, by UID and revision."""
    further = select(Instance.sop_instance_uid).where(Instance.revision > 1).order_by(Instance.id.desc())
    uids = list(dict.fromkeys(session.scalars(further.limit(limit))))
    statement: Any = (
        select(
            Instance.sop_instance_uid,
            Instance.revision,
            Instance.current,
            Study.study_instance_uid,
            Series.series_instance_uid,
            Instance.state,
            Instance.dataset_bytes,
            Instance.sha256,
            Instance.sender_ae_title,
            Instance.received_at,
        )
        .join(Series, Series.id == Instance.series_pk)
        .join(Study, Study.id == Series.study_pk)
        .where(Instance.sop_instance_uid.in_(uids))
        .order_by(Instance.sop_instance_uid, Instance.revision)
    )
    return [Revision(*row) for row in session.execute(statement)]


def events(session: Session, limit: int = 100) -> list[DuplicateEvent]:
    """Return what was noted of the last `limit` duplicates, rejected ones too, the latest first."""
    statement: Any = select(
        AuditEvent.at, AuditEvent.kind, AuditEvent.sop_instance_uid, AuditEvent.peer, AuditEvent.detail
    ).where(AuditEvent.kind.in_((CONTENT_CONFLICT, RELATIONAL_MISMATCH)))
    return [DuplicateEvent(*row) for row in session.execute(statement.order_by(AuditEvent.id.desc()).limit(limit))]
