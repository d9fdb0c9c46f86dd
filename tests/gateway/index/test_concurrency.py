"""Several processes at work on one index."""

import datetime as dt
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text

from support.index_processes import claim_all, register_contents, register_shared
from support.received import QUIET, new_uid, received
from thinfilm_gateway.config import Duplicates
from thinfilm_gateway.index import archiving
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome, register, register_all
from thinfilm_gateway.index.models import AuditEvent, Instance, Job, Patient, Series, Study

PROCESSES = 3


def test_processes_that_send_the_same_series_at_once_lose_and_double_nothing(
    database: Database, database_url: str
) -> None:
    shared = {"StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid()}
    common = [new_uid() for _ in range(24)]
    own = [[new_uid() for _ in common] for _ in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        sent = [
            pool.submit(register_shared, database_url, shared, uids, common, batch_size)
            for uids, batch_size in zip(own, (1, 3, 8), strict=True)
        ]
        outcomes = Counter(outcome for future in sent for outcome in future.result())
    everything = [*common, *(uid for uids in own for uid in uids)]
    assert outcomes == {"STORED": len(everything), "IDENTICAL": (PROCESSES - 1) * len(common)}
    with database.reading() as session:
        assert sorted(session.scalars(select(Instance.sop_instance_uid))) == sorted(everything)
        for model in (Patient, Study, Series, Job):
            assert session.scalar(select(func.count()).select_from(model)) == 1


def test_of_two_copies_that_heal_an_instance_at_once_one_is_kept(database: Database) -> None:
    one = received()
    register_all(database, [one], QUIET)
    with database.session() as session:
        assert archiving.quarantine(session, session.scalars(select(Instance.id)).one(), "It is damaged.")
    with ThreadPoolExecutor(1) as pool:
        with database.session() as session:
            assert register(session, replace(one, spool_name="first"), QUIET) is Outcome.STORED
            second = pool.submit(register_all, database, [replace(one, spool_name="second")], QUIET)
            while not database.is_sqlite and not session.scalar(
                text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            ):
                assert not second.done()
        assert second.result() == [Outcome.IDENTICAL]
    with database.reading() as session:
        assert session.scalars(select(Instance.spool_name)).all() == ["first"]


@pytest.mark.parametrize("duplicates", ["keep-first", "version", "reject"])
def test_processes_that_send_other_contents_of_one_uid_at_once_leave_one_served_and_drop_none(
    database: Database, database_url: str, duplicates: Duplicates
) -> None:
    uid = new_uid()
    contents = [[f"{process}/{number}" for number in range(8)] for process in range(2)]
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(register_contents, database_url, uid, own, duplicates) for own in contents]
        outcomes = Counter(outcome for future in sent for outcome in future.result())
    kept = 1 if duplicates == "reject" else 16
    assert outcomes == {"STORED": 1, "REJECTED" if duplicates == "reject" else "CONFLICT": 15}
    with database.reading() as session:
        rows = session.execute(select(Instance.revision, Instance.current).order_by(Instance.revision)).all()
        assert session.scalar(select(func.count()).select_from(AuditEvent)) == 15
    assert [row.revision for row in rows] == list(range(1, kept + 1))
    assert [row.revision for row in rows if row.current] == [kept if duplicates == "version" else 1]


def test_processes_that_claim_at_once_share_the_jobs_out(database: Database, database_url: str) -> None:
    register_all(database, [received() for _ in range(30)], dt.timedelta(0))
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(claim_all, [database_url] * PROCESSES, [f"worker {n}" for n in range(PROCESSES)]))
    ids = [job for jobs in done for job in jobs]
    assert len(ids) == len(set(ids)) == 30
