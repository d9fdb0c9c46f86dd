"""The Celery tasks: job functions under a task name."""

import functools
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown

from thinfilm_gateway import installation
from thinfilm_gateway.dispatch import RUN_JOB
from thinfilm_gateway.heart import Heart, process_name
from thinfilm_gateway.index import heartbeats
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.jobs import COMPRESS_GPU
from thinfilm_workers import runner
from thinfilm_workers.app import app, settings
from thinfilm_workers.celery_app import EVICT, LOSSY_RULES, RESENT, SCRUB, SWEEP, TIDY
from thinfilm_workers.context import Context
from thinfilm_workers.jobs import evict, lossy_rules, resent, scrub_pass, sweep


@functools.cache
def _context(on_gpu: bool = False) -> Context:
    """Open the rooms on the first task, hence after the fork of a pool process."""
    return Context.open(settings, on_gpu)


@functools.cache
def _heart() -> Heart:
    """Return the beat of this process of the pool: of those that do the jobs, not of the one that hands them out."""
    queues = sorted(app.amqp.queues.consume_from)
    database = Database(settings.index_url)
    return Heart(database, heartbeats.CELERY_WORKER, queues, installation.examination(settings, database))


@worker_process_init.connect
def _begin_to_beat(**named: Any) -> None:
    del named
    _heart().start()


@worker_process_shutdown.connect
def _take_leave(**named: Any) -> None:
    del named
    _heart().stop()


@app.task(name=RUN_JOB, bind=True)
def run_job(task: Any, job_id: int) -> None:
    """Do one job of the job table; what comes through the queue of the GPU workers is for the GPU."""
    on_gpu = task.request.delivery_info["routing_key"] == COMPRESS_GPU
    runner.run_by_id(_context(on_gpu), job_id, process_name())


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


@app.task(name=RESENT)
def run_resent() -> None:
    """Read the kept copies of what came again."""
    resent.check_resent(_context())


@app.task(name=SCRUB)
def run_scrub() -> None:
    """Read on in what is kept."""
    scrub_pass.scrub_on(_context())
