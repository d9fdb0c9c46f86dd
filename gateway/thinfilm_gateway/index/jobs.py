"""The job table: who does what, until when. The broker only carries ids of these rows.

A series has one job of a kind that waits and one that runs, at most. Whoever reads or ends a running job names itself
as its owner, so that a worker whose lease ran out changes nothing.
"""

import datetime as dt
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, and_, delete, func, literal_column, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from thinfilm_gateway.index.models import Job
from thinfilm_gateway.index.sql import insert_into, insert_missing_into
from thinfilm_gateway.index.states import JobState
from thinfilm_gateway.index.transitions import move_job

COMPRESS = "compress"
RECOMPRESS = "recompress"
RETIRE = "retire"

COMPRESS_CPU = "compress.cpu"
COMPRESS_GPU = "compress.gpu"
MAINTENANCE = "maintenance"

FIRST_BACKOFF = dt.timedelta(seconds=5)
LONGEST_BACKOFF = dt.timedelta(minutes=10)

# Columns, not objects: what a session has already seen of a row must not hide what another process made of it since.
_JOB: Any = select(Job.id, Job.kind, Job.series_pk, Job.queue, Job.attempts, Job.lease_owner)


@dataclass(frozen=True)
class ClaimedJob:
    """A job that its owner may work on until the lease ends."""

    id: int
    kind: str
    series_pk: int | None
    queue: str
    attempts: int  # this one counted


@dataclass(frozen=True)
class DueJob:
    """A job that a broker should be told of."""

    id: int
    queue: str


@dataclass(frozen=True)
class DueJobs:
    """How many jobs of a queue are due and not taken, and since when the oldest of them is."""

    queue: str
    count: int
    oldest: dt.datetime


@dataclass(frozen=True)
class OldJobs:
    """How many jobs wait too long. since, error: of the oldest of them, None where there is none."""

    count: int
    since: dt.datetime | None
    error: str | None


@dataclass(frozen=True)
class ReleasedJob:
    """A job that a dead worker had: WAITING for its next attempt, or FAILED because that was the last."""

    id: int
    kind: str
    series_pk: int | None
    state: JobState
    error: str


def request_compression(
    session: Session, series_pks: Collection[int], not_before: dt.datetime, now: dt.datetime | None = None
) -> None:
    """See to it that each series has a waiting compress job, due at `not_before` even if it was due earlier.

    A series whose job is running gets a further one, which waits until that has ended.
    """
    rows = _waiting_rows(COMPRESS, series_pks, not_before, now or _now())
    if not rows:
        return
    session.connection().execute(_delaying(insert_into(session, Job)), rows)


@functools.cache
def _delaying(insert: Any) -> Any:
    """Return an INSERT of waiting jobs that only moves the time of those that wait already."""
    return insert.on_conflict_do_update(
        index_elements=["series_pk", "kind", "state"],
        index_where=text("state IN ('waiting', 'running')"),
        set_={"not_before": literal_column("excluded.not_before"), "sent_at": None},
    )


def request(session: Session, kind: str, series_pks: Collection[int], now: dt.datetime | None = None) -> None:
    """See to it that each series has a waiting job of this kind, due at once where it had none."""
    now = now or _now()
    if rows := _waiting_rows(kind, series_pks, now, now):
        session.connection().execute(insert_missing_into(session, Job), rows)


def _waiting_rows(
    kind: str, series_pks: Collection[int], not_before: dt.datetime, now: dt.datetime
) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "series_pk": series_pk,
            "queue": COMPRESS_CPU,
            "state": JobState.WAITING,
            "not_before": not_before,
            "attempts": 0,
            "created_at": now,
        }
        for series_pk in sorted(series_pks)  # in one order everywhere, so that two transactions never lock crosswise
    ]


def retry_failed(session: Session, kinds: Collection[str], now: dt.datetime | None = None) -> int:
    """Let failed jobs of these kinds be tried again where no other is open; return how many."""
    other = aliased(Job)
    is_open = select(other.id).where(
        other.series_pk == Job.series_pk, other.kind == Job.kind, other.state.in_((JobState.WAITING, JobState.RUNNING))
    )
    failed = select(Job.id).where(Job.state == JobState.FAILED, Job.kind.in_(kinds), ~is_open.exists())
    again = {"not_before": now or _now(), "attempts": 0, "sent_at": None, "finished_at": None}
    pks = session.scalars(failed).all()
    return sum(move_job(session, pk, JobState.FAILED, JobState.WAITING, None, **again) for pk in pks)


def claim(
    session: Session, owner: str, lease: dt.timedelta, queues: Sequence[str], now: dt.datetime | None = None
) -> ClaimedJob | None:
    """Take the job of these queues that has been due the longest, if any; this counts as an attempt."""
    now = now or _now()
    candidates = _claimable(now).where(Job.queue.in_(queues)).order_by(Job.not_before, Job.id).limit(1)
    return _take(session, candidates, owner, lease, now)


def claim_by_id(
    session: Session, job_id: int, owner: str, lease: dt.timedelta, now: dt.datetime | None = None
) -> ClaimedJob | None:
    """Take this job if it is due and nobody has it."""
    now = now or _now()
    return _take(session, _claimable(now).where(Job.id == job_id), owner, lease, now)


def next_due(session: Session, queues: Sequence[str]) -> dt.datetime | None:
    """Return when the next waiting job of these queues is due, or was; None if there is none. Only reads."""
    return session.scalar(select(func.min(Job.not_before)).where(Job.state == JobState.WAITING, Job.queue.in_(queues)))


def count_due(session: Session, now: dt.datetime | None = None) -> int:
    """Return how many jobs are due and not taken."""
    due = (Job.state == JobState.WAITING, Job.not_before <= (now or _now()))
    return session.scalar(select(func.count()).select_from(Job).where(*due)) or 0


def due_by_queue(session: Session, now: dt.datetime) -> list[DueJobs]:
    """Return what is due and not taken, queue by queue."""
    due = (Job.state == JobState.WAITING, Job.not_before <= now)
    statement = select(Job.queue, func.count(), func.min(Job.not_before)).where(*due).group_by(Job.queue)
    return [DueJobs(queue, count, oldest) for queue, count, oldest in session.execute(statement.order_by(Job.queue))]


def queue_of_workers(queue: str, gpu_workers: bool) -> str:
    """Return the queue from which the workers of a site take the jobs of a queue of the job table."""
    return COMPRESS_GPU if gpu_workers and queue == COMPRESS_CPU else queue


def count_older(session: Session, since: dt.datetime) -> OldJobs:
    """Return what has waited since then: due, or put off again and again for a reason."""
    put_off = and_(Job.error.is_not(None), Job.created_at <= since)
    waits = (Job.state == JobState.WAITING, or_(Job.not_before <= since, put_off))
    count, oldest = session.execute(select(func.count(), func.min(Job.created_at)).where(*waits)).one()
    error = session.scalar(select(Job.error).where(*waits).order_by(Job.created_at).limit(1)) if count else None
    return OldJobs(count, oldest, error)


def count_ended_leases(session: Session, since: dt.datetime) -> int:
    """Return how many jobs run by a lease that ended before then, which a sweep should have taken back."""
    ended = (Job.state == JobState.RUNNING, Job.lease_until <= since)
    return session.scalar(select(func.count()).select_from(Job).where(*ended)) or 0


def renew(session: Session, job_id: int, owner: str, lease: dt.timedelta, now: dt.datetime | None = None) -> bool:
    """Extend the lease; False if the job is no longer the owner's."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING, Job.lease_owner == owner)
        .values(lease_until=(now or _now()) + lease)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1


def finish(session: Session, job_id: int, owner: str, now: dt.datetime | None = None) -> bool:
    """Record that the job is done; False if it is no longer the owner's."""
    done = {"finished_at": now or _now(), "error": None, "lease_owner": None, "lease_until": None}
    return move_job(session, job_id, JobState.RUNNING, JobState.DONE, owner, **done)


def fail(
    session: Session, job_id: int, owner: str, error: str, max_attempts: int, now: dt.datetime | None = None
) -> JobState | None:
    """Record that the attempt failed, for the reason `error`.

    Returns WAITING if the job will be tried again, after a pause that doubles with each attempt; FAILED if this was
    attempt number `max_attempts`; None if the job is no longer the owner's.
    """
    running = _JOB.where(Job.id == job_id, Job.state == JobState.RUNNING, Job.lease_owner == owner)
    job = session.execute(running.with_for_update()).first()
    return None if job is None else _end_attempt(session, job, error, max_attempts, now or _now())


def postpone(
    session: Session, job_id: int, owner: str, reason: str, pause: dt.timedelta, now: dt.datetime | None = None
) -> bool:
    """Let the job wait for `pause`, for a `reason` that is not its own; the attempt does not count.

    False if the job is no longer the owner's.
    """
    now = now or _now()
    running = _JOB.where(Job.id == job_id, Job.state == JobState.RUNNING, Job.lease_owner == owner)
    job = session.execute(running.with_for_update()).first()
    if job is None:
        return False
    _wait_again(session, job, now + pause, attempts=job.attempts - 1, error=reason)
    return True


def release_all(session: Session, now: dt.datetime | None = None) -> int:
    """Take back every job that is running; the attempts do not count. Return how many.

    Only for who knows that no worker of this index lives.
    """
    now = now or _now()
    running = session.execute(_JOB.where(Job.state == JobState.RUNNING).order_by(Job.id).with_for_update()).all()
    for job in running:
        _wait_again(session, job, now, attempts=job.attempts - 1, error=f"The worker {job.lease_owner} was ended.")
    return len(running)


def release_expired(session: Session, max_attempts: int, now: dt.datetime | None = None) -> list[ReleasedJob]:
    """Take back the jobs whose lease has run out; the attempt that the silent worker made counts."""
    now = now or _now()
    expired = _JOB.where(Job.state == JobState.RUNNING, Job.lease_until < now)
    return _release(session, expired, "fell silent", max_attempts, now)


def release_of(
    session: Session, owner: str, fate: str, max_attempts: int, now: dt.datetime | None = None
) -> list[ReleasedJob]:
    """Take back the job of a worker that is known to be dead; its attempt counts. fate: what became of the worker."""
    held = _JOB.where(Job.state == JobState.RUNNING, Job.lease_owner == owner)
    return _release(session, held, fate, max_attempts, now or _now())


def due_unsent(
    session: Session, resend_after: dt.timedelta, now: dt.datetime | None = None, window: int = 1000
) -> list[DueJob]:
    """Return the due jobs of which the broker was never told, or so long ago that it may have lost them.

    One that was told of in the future, by a clock that has been set back since, is told of again.

    Of each queue only so many that `window` jobs lie with the broker: however long the workers need, telling it again
    never piles up more messages than that.
    """
    now = now or _now()
    due = (Job.state == JobState.WAITING, Job.not_before <= now)
    first, last = now - resend_after, now + resend_after
    told = func.count(Job.id).filter(Job.sent_at.between(first, last))
    jobs: list[DueJob] = []
    for queue, with_broker in session.execute(select(Job.queue, told).where(*due).group_by(Job.queue)).all():
        unsent = or_(Job.sent_at.is_(None), ~Job.sent_at.between(first, last))
        statement = select(Job.id, Job.queue).where(*due, Job.queue == queue, unsent).order_by(Job.not_before, Job.id)
        jobs += [DueJob(*row) for row in session.execute(statement.limit(max(0, window - with_broker)))]
    return jobs


def mark_sent(session: Session, job_id: int, now: dt.datetime | None = None) -> None:
    """Record that the broker was told of a job."""
    statement = update(Job).where(Job.id == job_id).values(sent_at=now or _now())
    session.execute(statement.execution_options(synchronize_session=False))


def _claimable(now: dt.datetime) -> Any:
    """Select the jobs that are due, but for those whose series another worker has in hand."""
    running = aliased(Job)
    in_hand = select(running.id).where(
        running.series_pk == Job.series_pk, running.kind == Job.kind, running.state == JobState.RUNNING
    )
    return _JOB.where(Job.state == JobState.WAITING, Job.not_before <= now, ~in_hand.exists())


def _take(session: Session, candidates: Any, owner: str, lease: dt.timedelta, now: dt.datetime) -> ClaimedJob | None:
    job = session.execute(candidates.with_for_update(of=Job, skip_locked=True)).first()
    if job is None:
        return None
    leased = {"lease_owner": owner, "lease_until": now + lease, "attempts": job.attempts + 1}
    if not move_job(session, job.id, JobState.WAITING, JobState.RUNNING, None, **leased):
        return None
    return ClaimedJob(job.id, job.kind, job.series_pk, job.queue, job.attempts + 1)


def _release(session: Session, running: Any, fate: str, max_attempts: int, now: dt.datetime) -> list[ReleasedJob]:
    released = []
    for job in session.execute(running.order_by(Job.id).with_for_update(skip_locked=True)).all():
        error = f"The worker {job.lease_owner} {fate}."
        state = _end_attempt(session, job, error, max_attempts, now)
        released.append(ReleasedJob(job.id, job.kind, job.series_pk, state, error))
    return released


def _end_attempt(session: Session, job: Any, error: str, max_attempts: int, now: dt.datetime) -> JobState:
    if job.attempts >= max_attempts:
        ended = {"finished_at": now, "lease_owner": None, "lease_until": None, "error": error}
        move_job(session, job.id, JobState.RUNNING, JobState.FAILED, job.lease_owner, **ended)
        return JobState.FAILED
    _wait_again(session, job, now + backoff(job.attempts), attempts=job.attempts, error=error)
    return JobState.WAITING


def _wait_again(session: Session, job: Any, not_before: dt.datetime, attempts: int, error: str) -> None:
    """Let a running job wait, until the late arrivals of its series are due too."""
    arrived = _absorb_waiting(session, job)
    waiting = {
        "not_before": not_before if arrived is None else max(not_before, arrived),
        "attempts": attempts,
        "sent_at": None,
        "lease_owner": None,
        "lease_until": None,
        "error": error,
    }
    move_job(session, job.id, JobState.RUNNING, JobState.WAITING, job.lease_owner, **waiting)


def backoff(attempts: int) -> dt.timedelta:
    """Return how long to wait after attempt number `attempts`."""
    doublings = min(attempts - 1, 10)  # enough to reach the longest pause, and never too much for a timedelta
    return min(FIRST_BACKOFF * (1 << doublings), LONGEST_BACKOFF)


def _absorb_waiting(session: Session, job: Any) -> dt.datetime | None:
    """Delete the job that late arrivals made for the series, since `job` will wait again; return when it was due."""
    statement = delete(Job).where(
        Job.series_pk == job.series_pk, Job.kind == job.kind, Job.state == JobState.WAITING, Job.id != job.id
    )
    return session.scalar(statement.returning(Job.not_before).execution_options(synchronize_session=False))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
