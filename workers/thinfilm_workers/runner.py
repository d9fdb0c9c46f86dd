"""One claimed job from start to end: run its function under its lease and record how it went."""

import datetime as dt
import errno
import time
from collections.abc import Callable, Iterable

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.index import archiving, jobs
from thinfilm_gateway.index.jobs import ClaimedJob, ReleasedJob
from thinfilm_gateway.index.states import JobState
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.compress import compress_series
from thinfilm_workers.jobs.recompress import recompress_series
from thinfilm_workers.jobs.retire import retire_series
from thinfilm_workers.lease import Lease, LeaseLost

log = structlog.get_logger()

QUEUES = (jobs.COMPRESS_CPU, jobs.COMPRESS_GPU, jobs.MAINTENANCE)

JOB_FUNCTIONS: dict[str, Callable[[Context, ClaimedJob, Lease], None]] = {
    jobs.COMPRESS: compress_series,
    jobs.RECOMPRESS: recompress_series,
    jobs.RETIRE: retire_series,
}

PAUSE = dt.timedelta(minutes=1)  # of a job whose disk or index is in trouble
_ASK_AGAIN_SECONDS = 1.0  # between two tries to reach an index that is away

_TROUBLED_DISK = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO,
        errno.ENODEV, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT,  # a network's or a user's file system that is away
    }
)  # fmt: skip


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


def record_released(session: Session, released: Iterable[ReleasedJob]) -> None:
    """Note what became of jobs whose worker is gone; what waited for one that has failed stays as received."""
    for job in released:
        log.warning("job_released", job=job.id, state=job.state.value, reason=job.error)
        _give_up(session, job, job.state, job.error)


def _run(context: Context, job: ClaimedJob, owner: str) -> None:
    log.info("job_started", job=job.id, kind=job.kind, attempt=job.attempts)
    try:
        with Lease(context.database, job, owner, lease_duration(context)) as lease:
            JOB_FUNCTIONS[job.kind](context, job, lease)
        with context.database.session() as session:
            jobs.finish(session, job.id, owner)
        log.info("job_done", job=job.id)
    except LeaseLost as error:
        log.warning("job_lease_lost", job=job.id, error=str(error))
    except Exception as error:
        if _is_passing(error):
            _postpone(context, job, owner, str(error))
        else:
            log.exception("job_failed", job=job.id, attempt=job.attempts)
            _record_failure(context, job, owner, error)


def _is_passing(error: Exception) -> bool:
    """Tell whether disk or index is in trouble, not the job: it can be done once that has passed, however late."""
    if isinstance(error, OSError):
        return error.errno in _TROUBLED_DISK
    return isinstance(error, StorageAway | OperationalError)


def _postpone(context: Context, job: ClaimedJob, owner: str, reason: str) -> None:
    """Let the job wait without counting the attempt; an index that is away is waited for as long as the lease runs."""
    log.warning("job_postponed", job=job.id, seconds=PAUSE.total_seconds(), reason=reason)
    deadline = time.monotonic() + lease_duration(context).total_seconds()
    while True:
        try:
            with context.database.session() as session:
                jobs.postpone(session, job.id, owner, reason, PAUSE)
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ASK_AGAIN_SECONDS)
        else:
            return


def _record_failure(context: Context, job: ClaimedJob, owner: str, error: Exception) -> None:
    sentence = str(error) or type(error).__name__
    with context.database.session() as session:
        state = jobs.fail(session, job.id, owner, sentence, context.settings.max_attempts)
        _give_up(session, job, state, sentence)


def _give_up(session: Session, job: ClaimedJob | ReleasedJob, state: JobState | None, sentence: str) -> None:
    """Let what waited for a compression that has failed for good stay as received."""
    if state is JobState.FAILED and job.kind == jobs.COMPRESS and job.series_pk is not None:
        archiving.give_up(session, job.series_pk, sentence)
