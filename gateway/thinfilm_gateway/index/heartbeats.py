"""Which processes of the site live, by the beats that they write, and what each finds wrong with itself.

The broker is not asked: it may be away, or know workers that nobody can reach (P5).
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from thinfilm_gateway.health_warning import HealthWarning
from thinfilm_gateway.index.models import Heartbeat
from thinfilm_gateway.index.sql import insert_into

GATEWAY = "gateway"
LOCAL_WORKER = "local worker"
CELERY_WORKER = "celery worker"

BEAT = dt.timedelta(seconds=10)  # between two beats of a process
ALIVE = dt.timedelta(seconds=45)  # without a beat for so long, a process is taken for dead
FORGOTTEN = dt.timedelta(days=1)  # after which the row of a process that did not take leave goes


@dataclass(frozen=True)
class Beat:
    """What a process says of itself.

    name: HOST:PID, as in the leases of jobs. kind: GATEWAY, LOCAL_WORKER or CELERY_WORKER. queues: those whose jobs it
    takes, none for a gateway. warnings: what it finds wrong with itself.
    """

    name: str
    kind: str
    queues: tuple[str, ...]
    started_at: dt.datetime
    warnings: tuple[HealthWarning, ...] = ()

    @property
    def host(self) -> str:
        """The host that the process runs on."""
        return self.name.rpartition(":")[0]


def record(session: Session, beat: Beat, now: dt.datetime) -> None:
    """Write the beat of a process, and forget those that have been silent for a day."""
    values = {
        "kind": beat.kind,
        "queues": ",".join(beat.queues),
        "started_at": beat.started_at,
        "beat_at": now,
        "warnings": json.dumps([asdict(warning) for warning in beat.warnings]),
    }
    insert = insert_into(session, Heartbeat).on_conflict_do_update(index_elements=["name"], set_=values)
    session.execute(insert.values(name=beat.name, **values))
    session.execute(delete(Heartbeat).where(Heartbeat.beat_at < now - FORGOTTEN))


def leave(session: Session, name: str) -> None:
    """Forget a process that has ended."""
    session.execute(delete(Heartbeat).where(Heartbeat.name == name))


def leave_all(session: Session, kind: str) -> None:
    """Forget all processes of a kind, where it is known that none lives."""
    session.execute(delete(Heartbeat).where(Heartbeat.kind == kind))


def living(session: Session, now: dt.datetime) -> list[Beat]:
    """Return the last beats of the processes that live, by name.

    A beat of the future, written before a clock was set back, tells no more than an old one.
    """
    recent = Heartbeat.beat_at.between(now - ALIVE, now + ALIVE)
    rows = session.scalars(select(Heartbeat).where(recent).order_by(Heartbeat.name))
    return [
        Beat(row.name, row.kind, tuple(filter(None, row.queues.split(","))), row.started_at, _read(row.warnings))
        for row in rows
    ]


def workers(beats: Sequence[Beat]) -> list[Beat]:
    """Return those of the processes that take jobs."""
    return [beat for beat in beats if beat.queues]


def _read(warnings: str) -> tuple[HealthWarning, ...]:
    return tuple(HealthWarning(**warning) for warning in json.loads(warnings))
