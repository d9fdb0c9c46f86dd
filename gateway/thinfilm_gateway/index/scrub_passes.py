"""How far the scrub has come that reads everything by and by, and when it was through last."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, func, insert, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Container, Instance, ScrubPass


@dataclass(frozen=True)
class Pass:
    """A pass; see ScrubPass."""

    pass_pk: int
    began_at: dt.datetime
    last_container_pk: int
    last_instance_pk: int
    share: float
    damages: int


@dataclass(frozen=True)
class Scrubbed:
    """How far the scrub is.

    share: of the pass under way, None between two. whole_at, damages: of the last one that is over.
    """

    share: float | None
    whole_at: dt.datetime | None
    damages: int

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values, the time in ISO 8601."""
        whole_at = self.whole_at.isoformat() if self.whole_at else None
        return {"share": self.share, "whole_at": whole_at, "damages": self.damages}


def under_way(session: Session) -> Pass | None:
    """Return the pass that is not finished; None between two."""
    statement = select(
        ScrubPass.id,
        ScrubPass.began_at,
        ScrubPass.last_container_pk,
        ScrubPass.last_instance_pk,
        ScrubPass.share,
        ScrubPass.damages,
    ).where(ScrubPass.finished_at.is_(None))
    row = session.execute(statement.order_by(ScrubPass.id.desc()).limit(1)).first()
    return None if row is None else Pass(*row)


def last_whole(session: Session) -> dt.datetime | None:
    """Return when the last whole pass began; None before the first."""
    return session.scalar(select(func.max(ScrubPass.began_at)).where(ScrubPass.finished_at.is_not(None)))


def scrubbed(session: Session) -> Scrubbed:
    """Tell how far the scrub is."""
    running = under_way(session)
    whole = select(ScrubPass.finished_at, ScrubPass.damages).where(ScrubPass.finished_at.is_not(None))
    last = session.execute(whole.order_by(ScrubPass.finished_at.desc()).limit(1)).first()
    share = running.share if running else None
    return Scrubbed(share, last.finished_at if last else None, last.damages if last else 0)


def begin(session: Session, now: dt.datetime) -> None:
    """Begin a pass."""
    session.execute(
        insert(ScrubPass).values(began_at=now, last_container_pk=0, last_instance_pk=0, share=0.0, damages=0)
    )


def record_whole(session: Session, began_at: dt.datetime, damages: int, now: dt.datetime) -> None:
    """Note a pass that was made in one go; one that was under way is over with it."""
    over = update(ScrubPass).where(ScrubPass.finished_at.is_(None), ScrubPass.began_at <= began_at)
    session.execute(over.values(finished_at=now, share=1.0).execution_options(synchronize_session=False))
    whole = {"last_container_pk": 0, "last_instance_pk": 0, "share": 1.0, "damages": damages, "finished_at": now}
    session.execute(insert(ScrubPass).values(began_at=began_at, **whole))


def advance(session: Session, old: Pass, new: Pass, finished_at: dt.datetime | None) -> bool:
    """Note how far a pass has come; False if another worker has brought it on meanwhile."""
    statement = update(ScrubPass).where(
        ScrubPass.id == old.pass_pk,
        ScrubPass.last_container_pk == old.last_container_pk,
        ScrubPass.last_instance_pk == old.last_instance_pk,
        ScrubPass.finished_at.is_(None),
    )
    values: dict[str, Any] = {
        "last_container_pk": new.last_container_pk,
        "last_instance_pk": new.last_instance_pk,
        "share": new.share,
        "damages": new.damages,
        "finished_at": finished_at,
    }
    statement = statement.values(values).execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1


def share_read(session: Session, last_container_pk: int, last_instance_pk: int) -> float:
    """Return which share of all bytes lies in what was read: containers, then what lies in none."""
    of_containers = func.coalesce(func.sum(Container.size_bytes), 0)
    of_spool = func.coalesce(func.sum(Instance.dataset_bytes), 0)
    alone = Instance.container_pk.is_(None)
    whole = session.scalar(select(of_containers)) + session.scalar(select(of_spool).where(alone))  # type: ignore[operator]
    read = session.scalar(select(of_containers).where(Container.id <= last_container_pk))
    read += session.scalar(select(of_spool).where(alone, Instance.id <= last_instance_pk))  # type: ignore[operator]
    return float(read / whole) if whole else 1.0
