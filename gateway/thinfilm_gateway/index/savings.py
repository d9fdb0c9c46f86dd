"""What all that was received takes on the disk, and what is saved by that: bytes, each received object once.

Received are the data sets as they came, also of further revisions and of originals that are gone by now, but not what a
lossy rule derived here. Kept is what they need: the containers, and spool files of what is in no container. Spool
copies of what is in a container are not counted as kept, since they go whenever room is wanted; they are named apart.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Container, Derivation, Instance, Series, tells_of

NOT_COMPRESSED = "as received"
"""Stands for the codec of what is in no container."""

NO_PIXELS = "no pixels"
"""Stands for the codec of containers in which nothing was coded as pixels."""


@dataclass(frozen=True)
class Share:
    """What a part of the objects came as, and takes now: bytes."""

    received_bytes: int
    kept_bytes: int

    @property
    def ratio(self) -> float | None:
        """How many times smaller it is kept; None while nothing is kept."""
        return round(self.received_bytes / self.kept_bytes, 3) if self.kept_bytes else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        saved = self.received_bytes - self.kept_bytes
        return {**vars(self), "saved_bytes": saved, "ratio": self.ratio}


@dataclass(frozen=True)
class Savings:
    """The same of all objects, by modality and by codec.

    total: kept are all containers, whole. left_bytes: of them, what no object needs any more, since others in the
    container are still needed, and what sharing containers among objects rounds off; it is of no modality nor codec.
    cached_bytes: spool copies of what is in a container too, not counted as kept. waiting_bytes: of what is kept, the
    originals of which a derived object is kept too, until their time is over. by_codec: the codecs of a container,
    joined by commas, NOT_COMPRESSED or NO_PIXELS.
    """

    total: Share
    left_bytes: int
    cached_bytes: int
    waiting_bytes: int
    by_modality: dict[str, Share]
    by_codec: dict[str, Share]

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return self.total.to_json() | {
            "kept_twice_bytes": self.cached_bytes + self.waiting_bytes,
            "cached_bytes": self.cached_bytes,
            "waiting_original_bytes": self.waiting_bytes,
            "left_bytes": self.left_bytes,
            "by_modality": {name: share.to_json() for name, share in self.by_modality.items()},
            "by_codec": {name: share.to_json() for name, share in self.by_codec.items()},
        }


@dataclass(frozen=True)
class _Part:
    """Bytes of the instances of one modality and codec."""

    modality: str
    codec: str
    received: int
    kept: int
    cached: int = 0


def savings(session: Session) -> Savings:
    """Count. Reads every row of the instances: seconds for a million."""
    kept = _kept(session)
    parts = [*kept, *_derived(session), *_gone(session)]
    containers = int(session.scalar(select(func.coalesce(func.sum(Container.size_bytes), 0))) or 0)
    shares = sum(part.kept for part in parts if part.codec != NOT_COMPRESSED)
    spooled = sum(part.kept for part in parts if part.codec == NOT_COMPRESSED)
    return Savings(
        total=Share(sum(part.received for part in parts), containers + spooled),
        left_bytes=containers - shares,
        cached_bytes=sum(part.cached for part in parts),
        waiting_bytes=_waiting(session),
        by_modality=_shares((part.modality, part) for part in parts),
        by_codec=_shares((part.codec, part) for part in parts),
    )


def _shares(parts: Iterable[tuple[str, _Part]]) -> dict[str, Share]:
    """Sum up by name, what is kept the most first."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, part in parts:
        sums[name][0] += part.received
        sums[name][1] += part.kept
    return {name: Share(*sums[name]) for name in sorted(sums, key=lambda name: (-sums[name][1], name))}


def _kept(session: Session) -> list[_Part]:
    """Count the instances that there are, as if all had been received."""
    file_bytes = Instance.dataset_offset + Instance.dataset_bytes
    in_container, in_spool = Instance.container_pk.is_not(None), Instance.spool_name.is_not(None)
    grouped = (
        select(
            Instance.series_pk,
            Instance.container_pk,
            func.sum(Instance.dataset_bytes).label("received"),
            func.sum(case((in_container, Instance.stored_bytes), (in_spool, file_bytes), else_=0)).label("kept"),
            func.sum(case((in_container & in_spool, file_bytes), else_=0)).label("cached"),
        )
        .group_by(Instance.series_pk, Instance.container_pk)
        .subquery()
    )
    columns = (func.sum(grouped.c.received), func.sum(grouped.c.kept), func.sum(grouped.c.cached))
    statement = (
        select(Series.modality, Container.codecs, *columns)
        .select_from(grouped)
        .join(Series, Series.id == grouped.c.series_pk)
        .join(Container, Container.id == grouped.c.container_pk, isouter=True)
        .group_by(Series.modality, Container.codecs)
    )
    return [
        _Part(modality, _codec(codecs), int(received), int(kept or 0), int(cached))
        for modality, codecs, received, kept, cached in session.execute(statement)
    ]


def _derived(session: Session) -> list[_Part]:
    """Take back what was derived here from what counts as received."""
    derived = (
        select(Derivation.derived_sop_instance_uid.label("uid"), Derivation.derived_sha256.label("sha256"))
        .where(Derivation.derived_sop_instance_uid.is_not(None))
        .distinct()
        .subquery()
    )
    is_derived = (Instance.sop_instance_uid == derived.c.uid) & (Instance.sha256 == derived.c.sha256)
    statement = (
        select(Series.modality, Container.codecs, func.sum(Instance.dataset_bytes))
        .select_from(derived)
        .join(Instance, is_derived)
        .join(Series, Series.id == Instance.series_pk)
        .join(Container, Container.id == Instance.container_pk, isouter=True)
        .group_by(Series.modality, Container.codecs)
    )
    return [_Part(modality, _codec(codecs), -int(size), 0) for modality, codecs, size in session.execute(statement)]


def _gone(session: Session) -> list[_Part]:
    """Count originals that are gone, as received; after a rebuild of the index, as long as what was derived of them."""
    is_derived = and_(
        Instance.sop_instance_uid == Derivation.derived_sop_instance_uid, Instance.sha256 == Derivation.derived_sha256
    )
    original_bytes = func.coalesce(Derivation.original_bytes, Instance.dataset_bytes, 0)
    statement = (
        select(Series.modality, Container.codecs, func.sum(original_bytes))
        .select_from(Derivation)
        .join(Series, Series.id == Derivation.series_pk)
        .join(Instance, is_derived, isouter=True)
        .join(Container, Container.id == Instance.container_pk, isouter=True)
        .where(Derivation.retired_at.is_not(None))
        .group_by(Series.modality, Container.codecs)
    )
    return [_Part(modality, _codec(codecs), int(size), 0) for modality, codecs, size in session.execute(statement)]


def _waiting(session: Session) -> int:
    """Count what is kept of originals of which a derived object is kept too."""
    statement = (
        select(func.sum(Instance.stored_bytes))
        .join(Derivation, tells_of(Instance))
        .where(Derivation.derived_sop_instance_uid.is_not(None), Derivation.retired_at.is_(None))
    )
    return int(session.scalar(statement) or 0)


def _codec(codecs: str | None) -> str:
    return NOT_COMPRESSED if codecs is None else codecs or NO_PIXELS
