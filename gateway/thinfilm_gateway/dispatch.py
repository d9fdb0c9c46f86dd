"""With a broker: tells the workers which jobs are due, by task name and job id, and again what the broker lost."""

import datetime as dt

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.lasting_thread import LastingThread

log = structlog.get_logger()

RUN_JOB = "thinfilm.run_job"  # the task that takes one job id
RESEND_AFTER = dt.timedelta(minutes=2)  # a job sent so long ago and still not taken may have been lost
POLL_SECONDS = 1.0


class BrokerAway(Exception):
    """The broker cannot be reached; the jobs stay in the job table."""


class Broker:
    """A sender of task names. Holds no state that a wiped broker could contradict."""

    def __init__(self, url: str, gpu_workers: bool = False) -> None:
        """gpu_workers: compression goes to the workers with a GPU, whatever waits for it already included."""
        self._gpu_workers = gpu_workers
        self._app = Celery("thinfilm-dispatch", broker=url, set_as_current=False)
        self._app.conf.update(
            task_ignore_result=True,
            task_serializer="json",
            # One try: the caller comes again by itself.
            broker_transport_options={
                "socket_connect_timeout": 5,
                "socket_timeout": 10,
                "max_retries": 1,
                "interval_start": 0,
            },
        )

    def send(self, job_id: int, queue: str) -> None:
        """Put the id of a job of this queue where its workers find it. Raises BrokerAway."""
        try:
            # Celery sends to a direct queue by its bare name: it arrives even after the broker forgot all bindings.
            queue = jobs.queue_of_workers(queue, self._gpu_workers)
            self._app.send_task(RUN_JOB, args=[job_id], queue=queue, retry=False)
        except (OperationalError, OSError) as error:
            raise BrokerAway(f"The broker does not answer: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


def send_due(database: Database, broker: Broker, resend_after: dt.timedelta = RESEND_AFTER) -> int:
    """Send the jobs that are due and not with the broker; return how many. Raises BrokerAway.

    A job is marked as sent only after the broker has it: a crash in between sends it twice, and the second taker of a
    job finds it taken.
    """
    with database.reading() as session:
        due = jobs.due_unsent(session, resend_after)
    for job in due:
        broker.send(job.id, job.queue)
        with database.session() as session:
            jobs.mark_sent(session, job.id)
    return len(due)


class Dispatcher(LastingThread):
    """A thread of the gateway that sends due jobs until it is stopped; an absent broker or database only delays it.

    It closes the broker in the end.
    """

    def __init__(self, database: Database, broker: Broker) -> None:
        super().__init__("dispatcher", self._dispatch)
        self._database = database
        self._broker = broker

    def stop(self) -> None:
        """End the thread after the job that it is sending."""
        super().stop()
        self._broker.close()

    def _dispatch(self) -> None:
        """Send due jobs every second."""
        away = False
        while not self.stopping.is_set():
            try:
                send_due(self._database, self._broker)
                away = False
            except (BrokerAway, SQLAlchemyError) as error:
                if not away:  # said once, not every second
                    log.warning("dispatch_delayed", error=str(error))
                away = True
            self.stopping.wait(POLL_SECONDS)
