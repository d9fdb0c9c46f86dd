"""The Celery application of this process, for the settings that file and environment give; only with `broker_url`.

    thinfilm celery worker                                      one a host: a process a core
    thinfilm celery worker --queues compress.gpu --pool solo    one a GPU
    thinfilm celery beat                                        one a site: the periodic sweep

`celery --app thinfilm_workers.app` does the same, with the settings file named by THINFILM_CONFIG.
"""

import sys
from typing import Any

import structlog
from celery.signals import beat_init, setup_logging, worker_init, worker_ready

from thinfilm_gateway import config, logs
from thinfilm_gateway.background import keep_linear_algebra_on_one_thread, step_back
from thinfilm_gateway.privacy import keep_new_files_private
from thinfilm_workers.celery_app import create_app

log = structlog.get_logger()


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


@worker_ready.connect
def _tell_ready(sender: Any, **named: Any) -> None:
    del named
    log.info(
        "celery_worker_ready", node=sender.hostname, queues=sorted(queue.name for queue in sender.task_consumer.queues)
    )


@beat_init.connect
def _tell_beat(**named: Any) -> None:
    del named
    log.info("celery_beat_ready")


keep_new_files_private()
keep_linear_algebra_on_one_thread()  # before the tasks are loaded
try:
    settings = config.load()
    app = create_app(settings)
except config.ConfigError as error:
    sys.exit(f"thinfilm: {error}")  # where Celery loads this module, it would show a traceback
