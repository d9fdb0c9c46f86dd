"""A clock that ran ahead and was set back: what it wrote keeps nobody waiting for years."""

import datetime as dt

from sqlalchemy import select

from support.received import EARLY, QUIET, received
from thinfilm_gateway.index import clock, commitments, jobs
from thinfilm_gateway.index.commitments import Reference
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.jobs import DueJob
from thinfilm_gateway.index.models import Job

LEASE = dt.timedelta(minutes=15)
AHEAD = EARLY + dt.timedelta(days=3650)  # what the clock said before it was set back
RESEND = dt.timedelta(minutes=2)
SECOND = dt.timedelta(seconds=1)


def arrive(database: Database, now: dt.datetime) -> None:
    register_all(database, [received()], QUIET, now)


def job(database: Database) -> Job:
    with database.reading() as session:
        return session.scalars(select(Job)).one()


def pull_back(database: Database, now: dt.datetime) -> int:
    with database.session() as session:
        return clock.pull_back(session, LEASE, QUIET, now)


def test_a_series_that_was_received_in_the_future_is_compressed_when_it_has_been_quiet(database: Database) -> None:
    arrive(database, AHEAD)
    assert pull_back(database, EARLY) == 1
    with database.session() as session:
        assert jobs.claim(session, "worker", LEASE, [jobs.COMPRESS_CPU], EARLY + QUIET - SECOND) is None
        assert jobs.claim(session, "worker", LEASE, [jobs.COMPRESS_CPU], EARLY + QUIET) is not None


def test_a_job_of_a_dead_worker_with_a_lease_in_the_future_comes_back_after_one_lease(database: Database) -> None:
    arrive(database, AHEAD - QUIET)
    with database.session() as session:
        assert jobs.claim(session, "dead worker", LEASE, [jobs.COMPRESS_CPU], AHEAD)
    assert pull_back(database, EARLY) == 1
    with database.session() as session:
        assert jobs.release_expired(session, 3, EARLY + LEASE - SECOND) == []
        (released,) = jobs.release_expired(session, 3, EARLY + LEASE + SECOND)
    assert released.state == "waiting"


def test_a_worker_that_lives_keeps_its_job_over_the_jump(database: Database) -> None:
    arrive(database, AHEAD - QUIET)
    with database.session() as session:
        claimed = jobs.claim(session, "worker", LEASE, [jobs.COMPRESS_CPU], AHEAD)
    assert claimed is not None
    pull_back(database, EARLY)
    with database.session() as session:
        assert jobs.renew(session, claimed.id, "worker", LEASE, EARLY + LEASE / 4)
        assert jobs.release_expired(session, 3, EARLY + LEASE + SECOND) == []
        assert jobs.claim(session, "another", LEASE, [jobs.COMPRESS_CPU], EARLY + LEASE) is None
        assert jobs.finish(session, claimed.id, "worker", EARLY + LEASE + SECOND)


def test_a_job_of_which_the_broker_was_told_in_the_future_is_sent_again(database: Database) -> None:
    arrive(database, EARLY - QUIET)
    sent = job(database)
    with database.session() as session:
        jobs.mark_sent(session, sent.id, AHEAD)
    with database.reading() as session:
        assert jobs.due_unsent(session, RESEND, EARLY) == [DueJob(sent.id, sent.queue)]


def test_a_report_of_storage_commitment_that_is_due_in_the_future_is_due_now(database: Database) -> None:
    hold = dt.timedelta(minutes=3)
    commitments.request(database, "2.25.1", "MODALITY", [Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3")], hold, AHEAD)
    assert commitments.claim_due(database, hold, EARLY) is None
    assert pull_back(database, EARLY) == 1
    assert commitments.claim_due(database, hold, EARLY) is not None


def test_clocks_that_differ_a_little_change_nothing(database: Database) -> None:
    arrive(database, EARLY)
    commitments.request(database, "2.25.1", "MODALITY", [], dt.timedelta(minutes=3), EARLY)
    assert pull_back(database, EARLY - dt.timedelta(minutes=5)) == 0
    with database.session() as session:
        assert jobs.claim(session, "worker", LEASE, [jobs.COMPRESS_CPU], EARLY + QUIET)
    assert pull_back(database, EARLY - dt.timedelta(minutes=5)) == 0
