"""What the index knows of spool and archive as a whole: their marks, and how much lies in the archive."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Container, Instance, Volume

SPOOL = "spool"
ARCHIVE = "archive"


@dataclass(frozen=True)
class KnownVolumes:
    """marks: by name, none for a volume that was never marked. container_bytes: of all containers."""

    marks: Mapping[str, str] = field(default_factory=dict)
    container_bytes: int = 0


def known(session: Session) -> KnownVolumes:
    """Return what the index knows."""
    marks = {volume.name: volume.mark for volume in session.scalars(select(Volume))}
    return KnownVolumes(marks, container_bytes(session))


def mark_of(session: Session, name: str) -> str | None:
    """Return the mark of a volume, None if it was never marked."""
    return session.scalar(select(Volume.mark).where(Volume.name == name))


def container_bytes(session: Session) -> int:
    """Return the bytes of all containers."""
    return int(session.scalar(select(func.coalesce(func.sum(Container.size_bytes), 0))) or 0)


def record_mark(session: Session, name: str, mark: str) -> None:
    """Remember the mark of a volume that had none."""
    session.add(Volume(name=name, mark=mark))


def is_in_use(session: Session, name: str) -> bool:
    """Tell whether the index names a file of this volume."""
    statement = select(Container.id) if name == ARCHIVE else select(Instance.id).where(Instance.spool_name.is_not(None))
    return session.execute(statement.limit(1)).first() is not None
