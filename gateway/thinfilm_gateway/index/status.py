"""What `thinfilm status` and the health page tell: how much there is, and what needs a hand."""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, func, select, text
from sqlalchemy.orm import Session

from thinfilm_gateway.index.duplicates import CONTENT_CONFLICT, RELATIONAL_MISMATCH
from thinfilm_gateway.index.jobs import count_due
from thinfilm_gateway.index.models import (
    AuditEvent,
    Base,
    Commitment,
    Container,
    Derivation,
    Instance,
    Job,
    Patient,
    Series,
    Study,
)
from thinfilm_gateway.index.patients import PATIENT_MISMATCH, mismatches
from thinfilm_gateway.index.states import CommitmentState, InstanceState, JobState

_EXCEPTIONAL = text("instances.state IN ('as_received', 'quarantined')")  # word for word what a partial index covers


@dataclass(frozen=True)
class Summary:
    """Numbers of rows and bytes.

    conflicts: further revisions that are kept but not served; they are instances too. lossy: images of which a derived
    object is kept. retired: those of them whose original is gone. jobs_due: those that wait and could be done now.
    oldest_due: since when the first of them could.
    """

    patients: int
    studies: int
    series: int
    instances: int
    conflicts: int
    lossy: int
    retired: int
    received: int
    archived: int
    as_received: int
    quarantined: int
    containers: int
    jobs_waiting: int
    jobs_due: int
    jobs_running: int
    jobs_failed: int
    commitments_waiting: int
    commitments_failed: int
    oldest_due: dt.datetime | None

    @property
    def needs_a_hand(self) -> bool:
        """Whether something will not mend itself."""
        return bool(self.jobs_failed or self.as_received or self.quarantined or self.commitments_failed)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name; the time in ISO 8601."""
        return asdict(self) | {"oldest_due": self.oldest_due.isoformat() if self.oldest_due else None}


@dataclass(frozen=True)
class GivenUp:
    """How much will not mend itself."""

    jobs_failed: int
    as_received: int
    quarantined: int
    commitments_failed: int


@dataclass(frozen=True)
class Problem:
    """Something that an admin should look at.

    kind: "failed_job", "commitment_not_reported", "as_received", "quarantined", "conflict" or "patient_mismatch". uid:
    of the series of a job, of the study of a mismatch, of the transaction of a commitment, else of the instance.
    reason: one sentence, empty if none is known.
    """

    kind: str
    uid: str
    reason: str


def summary(session: Session, now: dt.datetime | None = None) -> Summary:
    """Count everything. Reads every row of the instances: about a second for a million."""
    now = now or dt.datetime.now(dt.UTC)
    instances = session.execute(
        select(
            Instance.state,
            func.count(),
            func.count().filter(_is_conflict()),
        ).group_by(Instance.state)
    ).all()
    states = {row[0]: row[1] for row in instances}
    jobs = {row[0]: row[1] for row in session.execute(select(Job.state, func.count()).group_by(Job.state))}
    requests = select(Commitment.state, func.count()).group_by(Commitment.state)
    commitments = {row[0]: row[1] for row in session.execute(requests)}
    lossy, retired = session.execute(
        select(func.count(Derivation.derived_sop_instance_uid), func.count(Derivation.retired_at))
    ).one()
    return Summary(
        patients=_count(session, Patient),
        studies=_count(session, Study),
        series=_count(session, Series),
        instances=sum(states.values()),
        conflicts=sum(row[2] for row in instances),
        lossy=lossy,
        retired=retired,
        received=states.get(InstanceState.RECEIVED, 0),
        archived=states.get(InstanceState.ARCHIVED, 0),
        as_received=states.get(InstanceState.AS_RECEIVED, 0),
        quarantined=states.get(InstanceState.QUARANTINED, 0),
        containers=_count(session, Container),
        jobs_waiting=jobs.get(JobState.WAITING, 0),
        jobs_due=count_due(session, now),
        jobs_running=jobs.get(JobState.RUNNING, 0),
        jobs_failed=jobs.get(JobState.FAILED, 0),
        commitments_waiting=sum(
            commitments.get(state, 0) for state in (CommitmentState.REQUESTED, CommitmentState.EXAMINED)
        ),
        commitments_failed=commitments.get(CommitmentState.FAILED, 0),
        oldest_due=session.scalar(
            select(func.min(Job.not_before)).where(Job.state == JobState.WAITING, Job.not_before <= now)
        ),
    )


def given_up(session: Session) -> GivenUp:
    """Count what will not mend itself, by indexes alone."""
    exceptional = select(Instance.state, func.count()).where(_EXCEPTIONAL).group_by(Instance.state)
    states = {row[0]: row[1] for row in session.execute(exceptional)}
    failed = {
        model: session.scalar(select(func.count()).select_from(model).where(model.state == state)) or 0
        for model, state in ((Job, JobState.FAILED), (Commitment, CommitmentState.FAILED))
    }
    return GivenUp(
        jobs_failed=failed[Job],
        as_received=states.get(InstanceState.AS_RECEIVED, 0),
        quarantined=states.get(InstanceState.QUARANTINED, 0),
        commitments_failed=failed[Commitment],
    )


def problems(session: Session, limit: int = 100) -> list[Problem]:
    """Return what needs a hand, up to `limit` of each kind, the latest first."""
    found = []
    failed = select(Series.series_instance_uid, Job.error).join(Series, Series.id == Job.series_pk)
    failed = failed.where(Job.state == JobState.FAILED).order_by(Job.id.desc()).limit(limit)
    found += [Problem("failed_job", uid, error or "") for uid, error in session.execute(failed)]
    unreported = select(Commitment.transaction_uid, Commitment.error).where(Commitment.state == CommitmentState.FAILED)
    unreported = unreported.order_by(Commitment.id.desc()).limit(limit)
    found += [Problem("commitment_not_reported", uid, error or "") for uid, error in session.execute(unreported)]
    for kind, condition, event_kinds in (
        ("as_received", Instance.state == InstanceState.AS_RECEIVED, ("left_as_received",)),
        ("quarantined", Instance.state == InstanceState.QUARANTINED, ("quarantined",)),
        ("conflict", _is_conflict(), (CONTENT_CONFLICT, RELATIONAL_MISMATCH)),
    ):
        detail = (
            select(AuditEvent.detail)
            .where(AuditEvent.sop_instance_uid == Instance.sop_instance_uid, AuditEvent.kind.in_(event_kinds))
            .order_by(AuditEvent.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        rows = select(Instance.sop_instance_uid, detail).where(condition).order_by(Instance.id.desc()).limit(limit)
        found += [Problem(kind, uid, reason or "") for uid, reason in session.execute(rows)]
    found += [
        Problem(PATIENT_MISMATCH, mismatch.study_instance_uid, mismatch.sentence)
        for mismatch in mismatches(session, limit)
    ]
    return found


def _is_conflict() -> Any:
    """Return the condition that an instance is a further revision, not one derived from an original that is served."""
    derived = select(Derivation.derived_sop_instance_uid).where(Derivation.derived_sop_instance_uid.is_not(None))
    return and_(Instance.current.is_(False), Instance.sop_instance_uid.not_in(derived))


def _count(session: Session, model: type[Base]) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0
