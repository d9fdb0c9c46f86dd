"""Finds or makes the rows that a received object belongs to: its patient, study, series, and whom the study shows."""

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from sqlalchemy import Select, and_, bindparam, select, update
from sqlalchemy.orm import Session

from thinfilm_gateway.index.models import Patient, Series, Study, StudyPatient
from thinfilm_gateway.index.rows import (
    Row,
    description_identity,
    patient_identity,
    patient_row,
    series_row,
    study_row,
)
from thinfilm_gateway.index.sql import insert_missing_into

Key = tuple[Any, ...]
_Model = type[Patient] | type[Study] | type[Series] | type[StudyPatient]

# Made once, since SQLAlchemy takes longer to make a statement than to execute it, and ingest waits for both.
_HOMES = (
    select(
        Study.study_instance_uid,
        Series.series_instance_uid,
        StudyPatient.identity,
        Series.id,
        StudyPatient.id,
        Study.id,
        StudyPatient.patient_pk,
    )
    .select_from(Series)
    .join(Study, Study.id == Series.study_pk)
    .join(
        StudyPatient,
        and_(StudyPatient.study_pk == Study.id, StudyPatient.identity.in_(bindparam("identities", expanding=True))),
    )
    .where(
        Study.study_instance_uid.in_(bindparam("studies", expanding=True)),
        Series.series_instance_uid.in_(bindparam("series", expanding=True)),
    )
)


@dataclass(frozen=True)
class Belonging:
    """What says where an object belongs. description: the identity of its StudyPatient within the study."""

    study_instance_uid: str
    series_instance_uid: str
    description: str

    @classmethod
    def of(cls, attributes: Dataset, study_instance_uid: str, series_instance_uid: str) -> "Belonging":
        """Read it out of an object whose UIDs are known."""
        return cls(study_instance_uid, series_instance_uid, description_identity(attributes, study_instance_uid))


@dataclass(frozen=True)
class Home:
    """The primary keys of the rows that an object belongs to."""

    series_pk: int
    study_patient_pk: int
    study_pk: int
    patient_pk: int


@dataclass(frozen=True)
class FoundHomes:
    """The homes of objects; new_study_patients: primary keys of those descriptions that a study got just now."""

    homes: dict[Belonging, Home]
    new_study_patients: frozenset[int]


def find_or_make(session: Session, wanted: dict[Belonging, Dataset]) -> FoundHomes:
    """Return the homes of objects, made where they are missing.

    wanted: of each, the attributes of the first object that belongs there, in the order in which these came: the first
    of a patient, study or series describes it.
    """
    if not wanted:
        return FoundHomes({}, frozenset())
    found = _found_homes(session, wanted)
    missing = {belonging: attributes for belonging, attributes in wanted.items() if belonging not in found}
    if not missing:
        return FoundHomes(found, frozenset())
    new_study_patients = _make(session, missing)
    return FoundHomes(found | _found_homes(session, missing), new_study_patients)


def describe_anew(session: Session, home: Home, attributes: Dataset) -> None:
    """Let an object that is served in the place of another describe its patient, study and series from now on."""
    for model, pk, row in (
        (Patient, home.patient_pk, patient_row(attributes)),
        (StudyPatient, home.study_patient_pk, patient_row(attributes)),
        (Study, home.study_pk, study_row(attributes)),
        (Series, home.series_pk, series_row(attributes)),
    ):
        statement = update(model).where(model.id == pk).values(row)
        session.execute(statement.execution_options(synchronize_session=False))


def _found_homes(session: Session, wanted: Collection[Belonging]) -> dict[Belonging, Home]:
    values = {
        "studies": list({one.study_instance_uid for one in wanted}),
        "series": list({one.series_instance_uid for one in wanted}),
        "identities": list({one.description for one in wanted}),
    }
    rows = session.connection().execute(_HOMES, values)
    return {Belonging(study, series, identity): Home(*pks) for study, series, identity, *pks in rows}


def _make(session: Session, wanted: dict[Belonging, Dataset]) -> frozenset[int]:
    """Find or make the rows of homes of which at least one was missing; return the new descriptions of patients."""
    of_study: dict[Key, Dataset] = {}
    of_patient: dict[Key, Dataset] = {}
    for one, attributes in wanted.items():
        of_study.setdefault((one.study_instance_uid,), attributes)
        of_patient.setdefault((patient_identity(attributes, one.study_instance_uid),), attributes)
    studies = _found_or_made(session, Study, ("study_instance_uid",), of_study, study_row)
    patients = _found_or_made(session, Patient, ("identity",), of_patient, patient_row)
    of_series: dict[Key, Dataset] = {}
    descriptions: dict[Key, Dataset] = {}
    for one, attributes in wanted.items():
        study_pk = studies[(one.study_instance_uid,)]
        of_series.setdefault((study_pk, one.series_instance_uid), attributes)
        patient_pk = patients[(patient_identity(attributes, one.study_instance_uid),)]
        descriptions.setdefault((study_pk, one.description, patient_pk), attributes)
    _found_or_made(session, Series, ("study_pk", "series_instance_uid"), of_series, series_row)
    key = ("study_pk", "identity", "patient_pk")
    known = _found(session, StudyPatient, key, descriptions)
    made = _found_or_made(session, StudyPatient, key, descriptions, patient_row)
    return frozenset(pk for values, pk in made.items() if values in descriptions and values not in known)


def _found_or_made(
    session: Session,
    model: _Model,
    key: tuple[str, ...],
    wanted: dict[Key, Dataset],
    make: Callable[[Dataset], Row],
) -> dict[Key, int]:
    """Return the primary keys of the rows whose columns `key` have the wanted values, inserting those that are missing.

    make: gives the other columns of missing rows. If another process is quicker to insert a row, that one counts.
    """
    found = _found(session, model, key, wanted)
    missing = sorted(set(wanted) - set(found))  # in one order everywhere, so that transactions do not wait crosswise
    if not missing:
        return found
    rows = [{**make(wanted[values]), **dict(zip(key, values, strict=True))} for values in missing]
    session.connection().execute(insert_missing_into(session, model), rows)
    return _found(session, model, key, wanted)


def _found(session: Session, model: _Model, key: tuple[str, ...], wanted: Collection[Key]) -> dict[Key, int]:
    values = {name: list({each[place] for each in wanted}) for place, name in enumerate(key)}
    rows = session.connection().execute(_by_key(model, key), values)
    return {tuple(found): pk for pk, *found in rows}


@functools.cache
def _by_key(model: _Model, key: tuple[str, ...]) -> Select[Any]:
    columns = [model.__table__.columns[name] for name in key]
    conditions = [column.in_(bindparam(name, expanding=True)) for name, column in zip(key, columns, strict=True)]
    return select(model.id, *columns).where(*conditions)
