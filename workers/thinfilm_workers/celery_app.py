"""How our Celery application is set up: what goes through the broker, and what comes round from time to time.

The broker carries ids of jobs and nothing else; the job table says what is to be done and whether it was.
"""

import datetime as dt

from celery import Celery
from celery.concurrency.prefork import TaskPool

from thinfilm_gateway.config import ConfigError, Settings
from thinfilm_gateway.index.jobs import COMPRESS_CPU, MAINTENANCE

LONGEST_JOB_SECONDS = 6 * 3600
CHILD_START_SECONDS = 60.0  # for a process of the pool to come up, on a busy machine; else it is replaced

SWEEP = "thinfilm.sweep"
EVICT = "thinfilm.evict"
TIDY = "thinfilm.tidy"
LOSSY_RULES = "thinfilm.lossy_rules"
RESENT = "thinfilm.resent"
SCRUB = "thinfilm.scrub"
PERIODS = {
    SWEEP: 30.0,
    EVICT: 5.0,
    LOSSY_RULES: 600.0,
    TIDY: 3600.0,
    RESENT: 5.0,
    SCRUB: 60.0,
}  # seconds between two runs

_LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


class LastingPool(TaskPool):
    """A pool of processes that replaces a process which died at its start, where Celery's main process would end."""

    def did_start_ok(self) -> bool:
        """Say so; dead processes are found and replaced as later ones are."""
        return True


def create_app(settings: Settings) -> Celery:
    """Return the application for these settings; connects to nothing yet. Raises ConfigError without a broker_url."""
    if not settings.broker_url:
        raise ConfigError(
            "Celery needs a broker_url, redis://HOST:6379/0, in the settings file (--config, THINFILM_CONFIG) or as "
            "THINFILM_BROKER_URL; without a broker, `thinfilm serve` runs the local worker."
        )
    app = Celery("thinfilm", broker=settings.broker_url, include=["thinfilm_workers.tasks"])
    app.conf.update(
        # A message is acknowledged when its job has ended; a copy that comes again finds the job taken. For the same
        # reason a job goes on when the broker is lost: ended, it would cost its series a lease and an attempt.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_pool=f"{LastingPool.__module__}:{LastingPool.__name__}",
        worker_proc_alive_timeout=CHILD_START_SECONDS,
        task_time_limit=LONGEST_JOB_SECONDS,
        broker_transport_options={"visibility_timeout": 2 * LONGEST_JOB_SECONDS},
        broker_connection_retry_on_startup=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=COMPRESS_CPU,
        task_routes={name: {"queue": MAINTENANCE} for name in PERIODS},
        # Beat keeps no file: as with the local worker, everything is due at the start.
        beat_scheduler="celery.beat:Scheduler",
        beat_schedule={
            name: {"task": name, "schedule": seconds, "options": {"expires": seconds}, "last_run_at": _LONG_AGO}
            for name, seconds in PERIODS.items()
        },
        worker_soft_shutdown_timeout=30.0,
    )
    return app
