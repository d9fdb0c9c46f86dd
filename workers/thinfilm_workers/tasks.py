"""The Celery tasks: job functions under a task name."""

import functools
from typing import Any

from thinfilm_gateway.dispatch import RUN_JOB
from thinfilm_gateway.index.jobs import COMPRESS_GPU
from thinfilm_workers import runner
from thinfilm_workers.app import app, settings
from thinfilm_workers.celery_app import EVICT, LOSSY_RULES, SWEEP, TIDY
from thinfilm_workers.context import Context
from thinfilm_workers.jobs import evict, lossy_rules, sweep


@functools.cache
def _context(on_gpu: bool = False) -> Context:
    """Open the rooms on the first task, hence after the fork of a pool process."""
    return Context.open(settings, on_gpu)


@app.task(name=RUN_JOB, bind=True)
def run_job(task: Any, job_id: int) -> None:
    """Do one job of the job table; what comes through the queue of the GPU workers is for the GPU."""
    on_gpu = task.request.delivery_info["routing_key"] == COMPRESS_GPU
    runner.run_by_id(_context(on_gpu), job_id, runner.owner_name())


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


@app.task(name=LOSSY_RULES)
def run_lossy_rules() -> None:
    """Give jobs to what lossy rules are due for."""
    lossy_rules.apply_lossy_rules(_context())
