import datetime as dt
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from support.received import EARLY, QUIET, new_uid, received
from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.jobs import COMPRESS_CPU, COMPRESS_GPU, MAINTENANCE, ClaimedJob, DueJob, ReleasedJob
from thinfilm_gateway.index.models import Job, Series
from thinfilm_gateway.index.states import ForbiddenTransition, JobState, check_job
from thinfilm_gateway.index.transitions import move_job

LEASE = dt.timedelta(minutes=5)
DUE = EARLY + QUIET
QUEUES = (COMPRESS_CPU, COMPRESS_GPU, MAINTENANCE)
SERIES = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}


def arrive(database: Database, now: dt.datetime = EARLY, **values: Any) -> None:
    register_all(database, [received(**(SERIES | values))], QUIET, now)


def claim(database: Database, now: dt.datetime = DUE, owner: str = "worker") -> ClaimedJob | None:
    with database.session() as session:
        return jobs.claim(session, owner, LEASE, QUEUES, now)


def claimed(database: Database, now: dt.datetime = DUE, owner: str = "worker") -> ClaimedJob:
    job = claim(database, now, owner)
    assert job is not None
    return job


def fail(database: Database, job: ClaimedJob, max_attempts: int = 3, now: dt.datetime = DUE) -> JobState | None:
    with database.session() as session:
        return jobs.fail(session, job.id, "worker", "The codec failed.", max_attempts, now)


def all_jobs(database: Database) -> list[Job]:
    with database.reading() as session:
        return list(session.scalars(select(Job).order_by(Job.id)))


def states(database: Database) -> list[JobState]:
    return [job.state for job in all_jobs(database)]


def test_a_job_is_not_claimed_before_its_series_was_quiet(database: Database) -> None:
    arrive(database)
    assert claim(database, DUE - dt.timedelta(seconds=1)) is None
    job = claimed(database)
    assert (job.kind, job.queue, job.attempts) == ("compress", COMPRESS_CPU, 1)
    assert all_jobs(database)[0].lease_until == DUE + LEASE


def test_a_claimed_job_is_nobody_elses(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    assert claim(database) is None
    with database.session() as session:
        assert jobs.claim_by_id(session, job.id, "other", LEASE, DUE) is None


def test_a_job_can_be_claimed_by_its_id_once_and_only_when_due(database: Database) -> None:
    arrive(database)
    job_id = all_jobs(database)[0].id
    with database.session() as session:
        assert jobs.claim_by_id(session, job_id, "worker", LEASE, DUE - dt.timedelta(seconds=1)) is None
        job = jobs.claim_by_id(session, job_id, "worker", LEASE, DUE)
        assert job is not None
        assert job.id == job_id
        assert jobs.claim_by_id(session, job_id + 1, "worker", LEASE, DUE) is None


def test_the_job_that_has_been_due_the_longest_comes_first(database: Database) -> None:
    for seconds in (20, 0, 10):
        arrive(database, EARLY + dt.timedelta(seconds=seconds), SeriesInstanceUID=new_uid())
    order = [claimed(database, DUE + dt.timedelta(hours=1)).id for _ in range(3)]
    assert [job.not_before for job in sorted(all_jobs(database), key=lambda job: order.index(job.id))] == [
        DUE + dt.timedelta(seconds=seconds) for seconds in (0, 10, 20)
    ]


def test_a_worker_takes_only_from_its_queues(database: Database) -> None:
    arrive(database)
    with database.session() as session:
        assert jobs.claim(session, "worker", LEASE, [COMPRESS_GPU, MAINTENANCE], DUE) is None
    with database.reading() as session:
        assert jobs.next_due(session, [COMPRESS_GPU]) is None
        assert jobs.next_due(session, QUEUES) == DUE


def test_a_finished_job_is_done_once(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    with database.session() as session:
        assert not jobs.finish(session, job.id, "somebody else", DUE)
        assert jobs.finish(session, job.id, "worker", DUE)
        assert not jobs.finish(session, job.id, "worker", DUE)
    done = all_jobs(database)[0]
    assert (done.state, done.finished_at, done.lease_owner, done.lease_until) == (JobState.DONE, DUE, None, None)


def test_a_lease_is_renewed_by_its_owner_alone(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    later = DUE + dt.timedelta(minutes=4)
    with database.session() as session:
        assert not jobs.renew(session, job.id, "somebody else", LEASE, later)
        assert jobs.renew(session, job.id, "worker", LEASE, later)
        assert jobs.release_expired(session, 3, DUE + LEASE + dt.timedelta(seconds=1)) == []
    assert all_jobs(database)[0].lease_until == later + LEASE


def test_a_failed_attempt_is_tried_again_after_a_pause_that_doubles(database: Database) -> None:
    arrive(database)
    now = DUE
    for pause in (5, 10, 20):
        job = claimed(database, now)
        assert fail(database, job, max_attempts=9, now=now) is JobState.WAITING
        assert claim(database, now + dt.timedelta(seconds=pause - 1)) is None
        now += dt.timedelta(seconds=pause)
    assert all_jobs(database)[0].error == "The codec failed."


def test_the_pause_never_exceeds_ten_minutes(database: Database) -> None:
    arrive(database)
    with database.session() as session:
        session.execute(update(Job).values(attempts=50))
    job = claimed(database)
    assert fail(database, job, max_attempts=99) is JobState.WAITING
    assert all_jobs(database)[0].not_before == DUE + dt.timedelta(minutes=10)


def test_after_the_last_attempt_a_job_stays_failed(database: Database) -> None:
    arrive(database)
    now = DUE
    for expected in (JobState.WAITING, JobState.WAITING, JobState.FAILED):
        assert fail(database, claimed(database, now), now=now) is expected
        now += dt.timedelta(hours=1)
    failed = all_jobs(database)[0]
    assert (failed.state, failed.attempts, failed.error) == (JobState.FAILED, 3, "The codec failed.")
    assert claim(database, now) is None


def test_a_worker_that_lost_its_job_cannot_fail_it(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    with database.session() as session:
        jobs.finish(session, job.id, "worker", DUE)
    assert fail(database, job) is None
    assert states(database) == [JobState.DONE]


def test_a_job_whose_worker_fell_silent_comes_back_and_its_attempt_counts(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    expired = DUE + LEASE + dt.timedelta(seconds=1)
    with database.session() as session:
        released = jobs.release_expired(session, 2, expired)
    assert released == [
        ReleasedJob(job.id, "compress", job.series_pk, JobState.WAITING, "The worker worker fell silent.")
    ]
    assert claimed(database, expired + dt.timedelta(minutes=1)).attempts == 2
    with database.session() as session:
        released = jobs.release_expired(session, 2, expired + dt.timedelta(hours=1))
    assert [one.state for one in released] == [JobState.FAILED]


def test_a_postponed_job_waits_and_its_attempt_does_not_count(database: Database) -> None:
    arrive(database)
    for attempt in range(5):
        now = DUE + attempt * dt.timedelta(minutes=1)
        job = claimed(database, now)
        assert job.attempts == 1
        with database.session() as session:
            assert not jobs.postpone(session, job.id, "other", "The disk is full.", dt.timedelta(minutes=1), now)
            assert jobs.postpone(session, job.id, "worker", "The disk is full.", dt.timedelta(minutes=1), now)
        (row,) = all_jobs(database)
        assert (row.state, row.attempts, row.error) == (JobState.WAITING, 0, "The disk is full.")
        assert row.not_before == now + dt.timedelta(minutes=1)
        assert claim(database, now) is None


def test_a_postponed_job_takes_the_late_arrivals_along(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    arrive(database, DUE)
    with database.session() as session:
        assert jobs.postpone(session, job.id, "worker", "The disk is full.", dt.timedelta(seconds=1), DUE)
    (merged,) = all_jobs(database)
    assert (merged.id, merged.attempts, merged.not_before) == (job.id, 0, DUE + QUIET)


def test_all_running_jobs_can_be_taken_back_at_once_and_their_attempts_do_not_count(database: Database) -> None:
    for _ in range(3):
        arrive(database, SeriesInstanceUID=new_uid())
    done, running = claimed(database), claimed(database)
    with database.session() as session:
        jobs.finish(session, done.id, "worker", DUE)
        assert jobs.release_all(session, DUE) == 1
    assert states(database) == [JobState.DONE, JobState.WAITING, JobState.WAITING]
    assert claimed(database, owner="next").attempts == 1
    assert fail(database, running) is None


def test_a_late_arrival_waits_until_the_running_job_of_its_series_has_ended(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    arrive(database)
    assert states(database) == [JobState.RUNNING, JobState.WAITING]
    later = DUE + dt.timedelta(hours=1)
    assert claim(database, later, "other") is None
    with database.session() as session:
        assert jobs.finish(session, job.id, "worker", later)
    assert claim(database, later, "other") is not None


def test_a_failed_job_takes_the_late_arrivals_along(database: Database) -> None:
    arrive(database)
    job = claimed(database)
    arrive(database, DUE)
    assert fail(database, job) is JobState.WAITING
    (merged,) = all_jobs(database)
    assert (merged.id, merged.attempts, merged.not_before) == (job.id, 1, DUE + QUIET)


def test_a_series_never_has_two_jobs_that_wait(database: Database) -> None:
    arrive(database)
    with database.reading() as session:
        (series_pk,) = session.scalars(select(Series.id))
    waiting = Job(
        kind="compress", series_pk=series_pk, queue=COMPRESS_CPU, state=JobState.WAITING, not_before=DUE, attempts=0,
        created_at=EARLY,
    )  # fmt: skip
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(waiting)


def test_compression_can_be_asked_for_many_series_at_once(database: Database) -> None:
    for _ in range(3):
        arrive(database, SeriesInstanceUID=new_uid())
    with database.session() as session:
        session.execute(update(Job).values(state=JobState.DONE))
        series_pks = session.scalars(select(Series.id)).all()
        jobs.request_compression(session, [], DUE)
        for _ in range(2):
            jobs.request_compression(session, series_pks, DUE)
    assert states(database) == [JobState.DONE] * 3 + [JobState.WAITING] * 3


def test_a_due_job_is_sent_once_and_again_when_the_broker_may_have_lost_it(database: Database) -> None:
    arrive(database)
    resend = dt.timedelta(minutes=2)
    with database.session() as session:
        assert jobs.due_unsent(session, resend, EARLY) == []
        (due,) = jobs.due_unsent(session, resend, DUE)
        assert due == DueJob(due.id, COMPRESS_CPU)
        jobs.mark_sent(session, due.id, DUE)
        assert jobs.due_unsent(session, resend, DUE + resend) == []
        assert jobs.due_unsent(session, resend, DUE + resend + dt.timedelta(seconds=1)) == [due]


def test_a_job_that_was_put_off_after_it_was_sent_is_sent_again_when_due(database: Database) -> None:
    arrive(database)
    resend = dt.timedelta(hours=9)
    with database.session() as session:
        jobs.mark_sent(session, jobs.due_unsent(session, resend, DUE)[0].id, DUE)
    arrive(database, DUE)
    with database.session() as session:
        assert jobs.due_unsent(session, resend, DUE) == []
        assert len(jobs.due_unsent(session, resend, DUE + QUIET)) == 1


def test_a_running_job_is_not_sent(database: Database) -> None:
    arrive(database)
    claimed(database)
    with database.session() as session:
        assert jobs.due_unsent(session, dt.timedelta(0), DUE + dt.timedelta(days=1)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [(JobState.WAITING, JobState.DONE), (JobState.DONE, JobState.WAITING), (JobState.FAILED, JobState.DONE)],
)
def test_what_the_table_of_transitions_does_not_know_is_refused(
    database: Database, old: JobState, new: JobState
) -> None:
    with pytest.raises(ForbiddenTransition, match="cannot go"):
        check_job(old, new)
    with database.session() as session, pytest.raises(ForbiddenTransition):
        move_job(session, 1, old, new, None)
