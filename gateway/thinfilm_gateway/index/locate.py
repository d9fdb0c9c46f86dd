"""Finds where the instances of a C-GET or C-MOVE request lie (PS3.4 C.4.2.2, C.4.3.2): by unique keys only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from thinfilm_gateway.archive.objects import ObjectLocation
from thinfilm_gateway.archive.presence import NamedCopies
from thinfilm_gateway.index.levels import UNIQUE_KEYS, InvalidIdentifier, Level
from thinfilm_gateway.index.models import Container, Instance, Patient, Series, Study
from thinfilm_gateway.index.sql import one_of
from thinfilm_gateway.index.states import InstanceState


@dataclass(frozen=True)
class InstanceLocation:
    """An instance and where its bytes lie. A QUARANTINED one must not be sent."""

    instance_pk: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    state: InstanceState
    location: ObjectLocation

    @property
    def dataset_bytes(self) -> int:
        """Length of the encoded data set."""
        return self.location.dataset_bytes


_COLUMNS: dict[str, Any] = {
    "PatientID": Patient.patient_id,
    "StudyInstanceUID": Study.study_instance_uid,
    "SeriesInstanceUID": Series.series_instance_uid,
    "SOPInstanceUID": Instance.sop_instance_uid,
}


def locate(
    session: Session, level: Level, unique_keys: Mapping[str, str | Sequence[str]], limit: int | None = None
) -> list[InstanceLocation]:
    """Return the instances that are served under these keys, by series, instance number and place in the container.

    unique_keys: keyword -> value(s) of PatientID (one value), StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID (each
    one or many). The key of `level` must be there; those of the levels above may be, and restrict; others are ignored.
    limit: the most instances that are returned. Raises InvalidIdentifier.
    """
    wanted = _wanted(level, unique_keys)
    statement = _SELECT.where(Instance.current).order_by(
        Instance.series_pk,
        Instance.instance_number.is_(None),
        Instance.instance_number,
        Instance.container_entry,
        Instance.id,
    )
    for keyword, values in wanted.items():
        statement = statement.where(one_of(session, _COLUMNS[keyword], values))
    return [_location(row) for row in session.execute(statement.limit(limit))]


def locate_instance(session: Session, instance_pk: int) -> InstanceLocation | None:
    """Return where an instance lies now, be it served or a further revision; None if the index does not know it."""
    row = session.execute(_SELECT.where(Instance.id == instance_pk)).first()
    return None if row is None else _location(row)


def locate_revisions(
    session: Session, sop_instance_uids: Sequence[str]
) -> dict[str, list[tuple[InstanceLocation, NamedCopies]]]:
    """Return every revision that is kept under these UIDs, served or not, with its copies."""
    statement = _SELECT.add_columns(Container.size_bytes).where(
        one_of(session, Instance.sop_instance_uid, sop_instance_uids)
    )
    found: dict[str, list[tuple[InstanceLocation, NamedCopies]]] = {}
    for row in session.execute(statement.order_by(Instance.container_pk, Instance.container_entry, Instance.id)):
        spool_bytes = row.dataset_offset + row.dataset_bytes
        copies = NamedCopies(row.spool_name, spool_bytes, row.key, row.size_bytes)
        found.setdefault(row.sop_instance_uid, []).append((_location(row), copies))
    return found


def _location(row: Any) -> InstanceLocation:
    return InstanceLocation(
        instance_pk=row.id,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        series_instance_uid=row.series_instance_uid,
        state=row.state,
        location=ObjectLocation(
            row.spool_name, row.key, row.container_entry, row.dataset_offset, row.dataset_bytes, row.sha256
        ),
    )


def _wanted(level: Level, unique_keys: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    wanted = {}
    for upper in level.with_upper:
        keyword = UNIQUE_KEYS[upper]
        given = unique_keys.get(keyword, "")
        values = [value for value in (given.split("\\") if isinstance(given, str) else given) if value]
        if upper is level and not values:
            raise InvalidIdentifier(f"A retrieve request at level {level} needs {keyword}.")
        if upper is Level.PATIENT and len(values) > 1:
            raise InvalidIdentifier("A retrieve request takes a single PatientID.")
        if values:
            wanted[keyword] = values
    return wanted


_SELECT: Any = (
    select(
        Instance.id,
        Instance.sop_instance_uid,
        Instance.sop_class_uid,
        Instance.transfer_syntax_uid,
        Series.series_instance_uid,
        Instance.state,
        Instance.spool_name,
        Container.key,
        Instance.container_entry,
        Instance.dataset_offset,
        Instance.dataset_bytes,
        Instance.sha256,
    )
    .join(Series, Series.id == Instance.series_pk)
    .join(Study, Study.id == Series.study_pk)
    .join(Patient, Patient.id == Study.patient_pk)
    .join(Container, Container.id == Instance.container_pk, isouter=True)
)
