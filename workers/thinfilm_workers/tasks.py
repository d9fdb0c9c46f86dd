"""The Celery tasks: job functions under a task name."""

import functools

from thinfilm_gateway.dispatch import RUN_JOB
from thinfilm_workers import runner
from thinfilm_workers.app import EVICT, SWEEP, TIDY, app, settings
from thinfilm_workers.context import Context
from thinfilm_workers.jobs import evict, sweep


@functools.cache
def _context() -> Context:
    """Open the rooms on the first task, hence after the fork of a pool process."""
    return Context.open(settings)


@app.task(name=RUN_JOB)
def run_job(job_id: int) -> None:
    """Do one job of the job table."""
    runner.run_by_id(_context(), job_id, runner.owner_name())


@app.task(name=SWEEP)
def run_sweep() -> None:
    """Bring back what crashes left behind."""
    sweep.sweep(_context())


@app.task(name=EVICT)
def run_evict() -> None:
    """Let the spool cache shrink to its limit."""
    evict.evict(_context())


@app.task(name=TIDY)
def run_tidy() -> None:
    """Compare files and rows."""
    sweep.tidy(_context())
