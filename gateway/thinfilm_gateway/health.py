"""The health of the gateway: the one place where all that is wrong with it is collected, each thing with its mend.

What a process finds wrong with itself comes by its beats; the rest is seen in the index, the settings and the folders.
The health page, `thinfilm status` and the log tell the same.
"""

import datetime as dt
from collections.abc import Sequence

from sqlalchemy.orm import Session

from thinfilm_gateway import certificates
from thinfilm_gateway.config import Settings
from thinfilm_gateway.data_folder import Room
from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index import durability, heartbeats, jobs, status
from thinfilm_gateway.index.heartbeats import Beat
from thinfilm_gateway.index.status import GivenUp

NOT_TAKEN = dt.timedelta(seconds=10)  # a job due for so long shows that nobody takes it, where no worker lives
OLD = dt.timedelta(hours=1)  # a job that waits so long, due or after failures
ENDED = dt.timedelta(minutes=5)  # a lease that ended so long ago shows that nobody frees jobs


def warnings(settings: Settings, session: Session, room: Room, now: dt.datetime | None = None) -> list[HealthWarning]:
    """Return what is wrong, what harms most first; empty while all is well. Cheap on an index of any size."""
    now = now or dt.datetime.now(dt.UTC)
    beats = heartbeats.living(session, now)
    found = [
        _of_room("storage_refused", room.refusal),
        _of_room("compression_stopped", room.obstacle),
        *_of_processes(beats),
        *_of_workers(settings, session, beats, now),
        *_of_old_jobs(session, now),
        *_of_what_was_given_up(status.given_up(session)),
        *certificates.warnings(settings, now),
        *_of_durability(session),
        _of_room("room_ends", room.warning),
    ]
    return [warning for warning in found if warning is not None]


def _of_room(name: str, sentence: str | None) -> HealthWarning | None:
    return HealthWarning(name, sentence) if sentence else None


def _of_durability(session: Session) -> list[HealthWarning]:
    complaints = durability.complaints(session.connection())
    return [HealthWarning(f"index_not_durable {name}", sentence) for name, sentence in complaints.items()]


def _of_processes(beats: Sequence[Beat]) -> list[HealthWarning]:
    """Say once a host what its processes find wrong with themselves."""
    found = {
        f"{warning.name} on {beat.host}": f"On {beat.host}: {warning.sentence}"
        for beat in beats
        for warning in beat.warnings
    }
    return [HealthWarning(name, sentence) for name, sentence in found.items()]


def _of_workers(settings: Settings, session: Session, beats: Sequence[Beat], now: dt.datetime) -> list[HealthWarning]:
    """Say which queues have jobs that are due and no worker that takes them."""
    taken = {queue for beat in beats for queue in beat.queues}
    mend = "look at the Celery workers" if settings.broker_url else "see that local_workers is not 0, and the log"
    found = []
    for due in jobs.due_by_queue(session, now):
        queue = jobs.queue_of_workers(due.queue, settings.gpu_workers)
        if queue not in taken and due.oldest <= now - NOT_TAKEN:
            sentence = f"No worker of the queue {queue} lives, and {due.count} jobs are due; {mend}."
            found.append(HealthWarning(f"no_worker {queue}", sentence))
    return found


def _of_old_jobs(session: Session, now: dt.datetime) -> list[HealthWarning]:
    found = []
    old = jobs.count_older(session, now - OLD)
    if old.count:
        reason = f" ({old.error.removesuffix('.')})" if old.error else ""
        sentence = (
            f"{old.count} jobs wait for more than an hour, the oldest since {old.since:%Y-%m-%d %H:%M} UTC{reason}; "
            "mend that, or add workers."
        )
        found.append(HealthWarning("old_jobs", sentence))
    if ended := jobs.count_ended_leases(session, now - ENDED):
        sentence = (
            f"{ended} jobs whose worker is gone are not given to another one; see that a worker of the queue "
            "maintenance, and with a broker Celery beat, are running."
        )
        found.append(HealthWarning("jobs_not_freed", sentence))
    return found


def _of_what_was_given_up(given_up: GivenUp) -> list[HealthWarning]:
    sentences = {
        "jobs_failed": "jobs have failed; mend what `thinfilm status` says of them, then `thinfilm retry`.",
        "as_received": "instances stay as received; mend what `thinfilm status` says of them, then `thinfilm retry`.",
        "quarantined": "instances are damaged; check the disk and send them again, see `thinfilm status`.",
        "commitments_failed": "reports of commitment were given up; see `thinfilm status`, then `thinfilm retry`.",
    }
    counts = {name: getattr(given_up, name) for name in sentences}
    return [HealthWarning(name, f"{count} {sentences[name]}") for name, count in counts.items() if count]
