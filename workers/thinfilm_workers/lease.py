"""The lease of a job: renewed while its worker lives, and checked before anything is made final."""

import datetime as dt
import threading
import time
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.jobs import ClaimedJob

log = structlog.get_logger()

RENEWALS_PER_LEASE = 4  # so that a few missed beats, a busy database for example, do not cost the job


class LeaseLost(Exception):
    """Another worker may have the job by now: whatever this one still does must not reach the index."""


class Lease:
    """A context in which a heartbeat thread keeps a claimed job ours."""

    def __init__(self, database: Database, job: ClaimedJob, owner: str, duration: dt.timedelta) -> None:
        self._database = database
        self._job_id = job.id
        self._owner = owner
        self._duration = duration
        self._held_until = time.monotonic() + duration.total_seconds()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of job {job.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost if the job is no longer ours."""
        if self._lost.is_set() or time.monotonic() > self._held_until:
            raise LeaseLost(f"The lease of job {self._job_id} has passed to another worker.")

    def confirm(self, session: Session) -> None:
        """Renew the lease within a transaction, so that what it writes is committed only while the job is ours.

        Raises LeaseLost, upon which the transaction must be rolled back.
        """
        if not jobs.renew(session, self._job_id, self._owner, self._duration):
            self._lost.set()
        self.check()

    def _beat(self) -> None:
        while not self._stop.wait(self._duration.total_seconds() / RENEWALS_PER_LEASE):
            asked_at = time.monotonic()
            try:
                with self._database.session() as session:
                    held = jobs.renew(session, self._job_id, self._owner, self._duration)
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", job=self._job_id, error=str(error))
                continue
            if not held:
                self._lost.set()
                return
            self._held_until = asked_at + self._duration.total_seconds()
