"""One claimed job from start to end: run its function under its lease and record how it went."""

import datetime as dt
import os
import socket
from collections.abc import Callable

import structlog

from thinfilm_gateway.index import archiving, jobs
from thinfilm_gateway.index.jobs import ClaimedJob
from thinfilm_gateway.index.states import JobState
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.compress import compress_series
from thinfilm_workers.lease import Lease, LeaseLost

log = structlog.get_logger()

QUEUES = (jobs.COMPRESS_CPU, jobs.COMPRESS_GPU, jobs.MAINTENANCE)

JOB_FUNCTIONS: dict[str, Callable[[Context, ClaimedJob, Lease], None]] = {jobs.COMPRESS: compress_series}


def owner_name() -> str:
    """Name this process as the holder of leases."""
    return f"{socket.gethostname()}:{os.getpid()}"


def lease_duration(context: Context) -> dt.timedelta:
    """How long a job stays with a silent worker."""
    return dt.timedelta(seconds=context.settings.job_lease_seconds)


def run_next(context: Context, owner: str, queues: tuple[str, ...]) -> bool:
    """Claim a due job and do it; tell whether there was one."""
    with context.database.reading() as session:  # an idle worker never takes the write lock of an embedded index
        due = jobs.next_due(session, queues)
    if due is None or due > dt.datetime.now(dt.UTC):
        return False
    with context.database.session() as session:
        job = jobs.claim(session, owner, lease_duration(context), queues)
    if job is None:
        return False
    _run(context, job, owner)
    return True


def run_by_id(context: Context, job_id: int, owner: str) -> bool:
    """Claim this job and do it; tell whether it could be claimed. A second copy of a message finds it taken or done."""
    with context.database.session() as session:
        job = jobs.claim_by_id(session, job_id, owner, lease_duration(context))
    if job is None:
        return False
    _run(context, job, owner)
    return True


def _run(context: Context, job: ClaimedJob, owner: str) -> None:
    log.info("job_started", job=job.id, kind=job.kind, attempt=job.attempts)
    try:
        with Lease(context.database, job, owner, lease_duration(context)) as lease:
            JOB_FUNCTIONS[job.kind](context, job, lease)
    except LeaseLost as error:
        log.warning("job_lease_lost", job=job.id, error=str(error))
    except Exception as error:
        log.exception("job_failed", job=job.id, attempt=job.attempts)
        _record_failure(context, job, owner, error)
    else:
        with context.database.session() as session:
            jobs.finish(session, job.id, owner)
        log.info("job_done", job=job.id)


def _record_failure(context: Context, job: ClaimedJob, owner: str, error: Exception) -> None:
    sentence = str(error) or type(error).__name__
    with context.database.session() as session:
        state = jobs.fail(session, job.id, owner, sentence, context.settings.max_attempts)
        if state is JobState.FAILED and job.series_pk is not None:
            archiving.give_up(session, job.series_pk, sentence)
