"""The Celery application over a Redis broker; only with `broker_url`.

    celery -A thinfilm_workers.app worker -Q compress.cpu,maintenance          one a host: a process a core
    celery -A thinfilm_workers.app worker -Q compress.gpu --pool=solo          one a GPU
    celery -A thinfilm_workers.app beat                                        one a site: the periodic sweep

The broker carries ids of jobs and nothing else; the job table says what is to be done and whether it was.
"""

from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init

from thinfilm_gateway import config, logs
from thinfilm_gateway.background import keep_linear_algebra_on_one_thread, step_back
from thinfilm_gateway.index.jobs import COMPRESS_CPU, MAINTENANCE

LONGEST_JOB_SECONDS = 6 * 3600

SWEEP = "thinfilm.sweep"
EVICT = "thinfilm.evict"
TIDY = "thinfilm.tidy"
LOSSY_RULES = "thinfilm.lossy_rules"
PERIODS = {SWEEP: 30.0, EVICT: 5.0, LOSSY_RULES: 600.0, TIDY: 3600.0}  # seconds between two runs


def create_app(settings: config.Settings) -> Celery:
    """Return the application for these settings; connects to nothing yet."""
    app = Celery("thinfilm", broker=settings.broker_url, include=["thinfilm_workers.tasks"])
    app.conf.update(
        # A message is acknowledged when its job has ended; a copy that comes again finds the job taken. For the same
        # reason a job goes on when the broker is lost: ended, it would cost its series a lease and an attempt.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_time_limit=LONGEST_JOB_SECONDS,
        broker_transport_options={"visibility_timeout": 2 * LONGEST_JOB_SECONDS},
        broker_connection_retry_on_startup=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=COMPRESS_CPU,
        task_routes={name: {"queue": MAINTENANCE} for name in PERIODS},
        beat_schedule={
            name: {"task": name, "schedule": seconds, "options": {"expires": seconds}}
            for name, seconds in PERIODS.items()
        },
        worker_soft_shutdown_timeout=30.0,
    )
    return app


@setup_logging.connect
def _configure_logs(**named: Any) -> None:
    """Log in our form; that anyone listens here keeps Celery from setting up its own."""
    del named
    logs.configure(settings.log_level)


@worker_init.connect
def _step_back(**named: Any) -> None:
    """Let the receivers on this host go first."""
    del named
    step_back()


keep_linear_algebra_on_one_thread()  # before the tasks are loaded
settings = config.load()
app = create_app(settings)
