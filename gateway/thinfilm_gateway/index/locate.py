"""Finds where the instances of a C-GET or C-MOVE request lie (PS3.4 C.4.2.2, C.4.3.2): by unique keys only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session, aliased

from thinfilm_gateway.archive.objects import ObjectLocation
from thinfilm_gateway.archive.presence import NamedCopies
from thinfilm_gateway.index.levels import UNIQUE_KEYS, InvalidIdentifier, Level
from thinfilm_gateway.index.models import Container, Derivation, Instance, Series, Study, StudyPatient
from thinfilm_gateway.index.patients import is_described
from thinfilm_gateway.index.sql import one_of
from thinfilm_gateway.index.states import InstanceState


@dataclass(frozen=True)
class InstanceLocation:
    """An instance and where its bytes lie. A QUARANTINED one must not be sent.

    is_gone: it is an original that is gone, and nothing is to be sent for it: all but its UID is of the derived object.
    """

    instance_pk: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    state: InstanceState
    location: ObjectLocation
    is_gone: bool = False

    @property
    def dataset_bytes(self) -> int:
        """Length of the encoded data set."""
        return self.location.dataset_bytes


_IMAGE_KEY = UNIQUE_KEYS[Level.IMAGE]

_COLUMNS: dict[str, Any] = {
    "StudyInstanceUID": Study.study_instance_uid,
    "SeriesInstanceUID": Series.series_instance_uid,
    "SOPInstanceUID": Instance.sop_instance_uid,
}


_OF_PATIENT = {"PatientID": "patient_id", "IssuerOfPatientID": "issuer_of_patient_id"}


def locate(
    session: Session, level: Level, unique_keys: Mapping[str, str | Sequence[str]], limit: int | None = None
) -> list[InstanceLocation]:
    """Return the instances that are served under these keys, by series, instance number and place in the container.

    unique_keys: keyword -> value(s) of PatientID (one value), StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID (each
    one or many). The key of `level` must be there; those of the levels above may be, and restrict; others are ignored.
    IssuerOfPatientID tells patients of one ID apart. A study that has objects of several patients is each one's, whole.
    At level IMAGE, an object that was derived from an original that is still served is given too, and for an original
    that is gone what its rule says: the derived object, or one that is gone.
    limit: the most instances that are returned. Raises InvalidIdentifier.
    """
    wanted = _wanted(level, unique_keys)
    if level is not Level.IMAGE:
        return [_location(row) for row in session.execute(_matching(session, wanted, Instance.current).limit(limit))]
    replaced, gone = _retired(session, wanted[_IMAGE_KEY])
    unserved = and_(Instance.revision == 1, Instance.sop_instance_uid.in_(_derived_and_unserved()))
    wanted[_IMAGE_KEY] = [*wanted[_IMAGE_KEY], *replaced]
    statement = _matching(session, wanted, or_(Instance.current, unserved)).limit(limit)
    found = [_location(row) for row in session.execute(statement)]
    if gone:
        wanted[_IMAGE_KEY] = list(gone)
        rows = session.execute(_matching(session, wanted, Instance.current).limit(limit))
        found += [replace(_location(row), sop_instance_uid=gone[row.sop_instance_uid], is_gone=True) for row in rows]
    return found


def _matching(session: Session, wanted: Mapping[str, Sequence[str]], condition: Any) -> Any:
    """Select the instances under the wanted keys for which the condition holds, in the order of `locate`."""
    statement = _SELECT.where(condition).order_by(
        Instance.series_pk,
        Instance.instance_number.is_(None),
        Instance.instance_number,
        Instance.container_entry,
        Instance.id,
    )
    for keyword, values in wanted.items():
        if keyword in _COLUMNS:
            statement = statement.where(one_of(session, _COLUMNS[keyword], values))
    if patient := {keyword: values[0] for keyword, values in wanted.items() if keyword in _OF_PATIENT}:
        described = aliased(StudyPatient)
        matched = [getattr(described, _OF_PATIENT[keyword]) == value for keyword, value in patient.items()]
        statement = statement.where(Study.id.in_(select(described.study_pk).where(*matched, is_described(described))))
    return statement


def _derived_and_unserved() -> Any:
    return select(Derivation.derived_sop_instance_uid).where(
        Derivation.derived_sop_instance_uid.is_not(None), Derivation.retired_at.is_(None)
    )


def _retired(session: Session, uids: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Look up originals that are gone.

    Returns the UIDs of the derived objects that are sent in their place; and, where nothing is, the UIDs of the
    originals by those of the derived objects.
    """
    statement: Any = select(
        Derivation.derived_sop_instance_uid, Derivation.original_sop_instance_uid, Derivation.serve
    ).where(one_of(session, Derivation.original_sop_instance_uid, uids), Derivation.retired_at.is_not(None))
    rows = session.execute(statement).all()
    replaced = [derived for derived, _, serve in rows if serve == "derived" and derived not in uids]
    return replaced, {derived: original for derived, original, serve in rows if serve == "failure"}


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
    issuer = unique_keys.get("IssuerOfPatientID", "")
    if issuer and isinstance(issuer, str):
        wanted["IssuerOfPatientID"] = [issuer]
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
    .join(Container, Container.id == Instance.container_pk, isouter=True)
)
