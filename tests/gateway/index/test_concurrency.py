"""Several processes at work on one index."""

import datetime as dt
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from sqlalchemy import func, select

from support.index_processes import claim_all, register_shared
from support.received import new_uid, received
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.models import Instance, Job, Patient, Series, Study

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


def test_processes_that_claim_at_once_share_the_jobs_out(database: Database, database_url: str) -> None:
    register_all(database, [received() for _ in range(30)], dt.timedelta(0))
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(claim_all, [database_url] * PROCESSES, [f"worker {n}" for n in range(PROCESSES)]))
    ids = [job for jobs in done for job in jobs]
    assert len(ids) == len(set(ids)) == 30
