"""How hard a job tries: less when it failed before, and less while many others wait (P9)."""

from dataclasses import dataclass

import structlog

from thinfilm_codecs import registry
from thinfilm_gateway.background import usable_cores
from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.jobs import ClaimedJob
from thinfilm_gateway.policy import lossless
from thinfilm_gateway.policy.lossless import Treatment
from thinfilm_workers.context import Context

log = structlog.get_logger()

_ALL_STEPS = len(registry.PRESETS)  # down from any preset to the light codecs


@dataclass(frozen=True)
class Effort:
    """The treatment of a portion of a series, and how many groups or stacks are worked on at a time."""

    treatment: Treatment
    threads: int


def effort(context: Context, job: ClaimedJob) -> Effort:
    """Return what the settings ask for, less what failed attempts and the backlog take from it.

    Why an attempt failed is mostly unknown: a worker that the system killed for want of memory only falls silent. So
    each further one asks for less memory, and the last one for as little as there is.
    """
    with context.database.reading() as session:
        due = jobs.count_due(session)
    hurry = lossless.backlog_steps(due, context.settings.backlog_jobs)
    steps = max(hurry, _steps_of_attempt(job.attempts, context.settings.max_attempts))
    treatment = lossless.easier(context.treatment, steps)
    if treatment != context.treatment:
        log.warning(
            "tries_less_hard", job=job.id, attempt=job.attempts, jobs_due=due, codecs=treatment.codecs,
            preset=treatment.preset,
        )  # fmt: skip
    return Effort(treatment, usable_cores() if job.attempts == 1 else 1)


def _steps_of_attempt(attempt: int, max_attempts: int) -> int:
    if attempt == 1:
        return 0
    return _ALL_STEPS if attempt >= max_attempts else 1
