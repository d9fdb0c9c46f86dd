"""Patients that do not agree: a Patient ID with other names, birth dates or sexes, and studies of several patients."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, aliased

from thinfilm_gateway.index import audit
from thinfilm_gateway.index.models import Instance, Patient, Series, Study, StudyPatient

PATIENT_MISMATCH = "patient_mismatch"


@dataclass(frozen=True)
class Mismatch:
    """How a study differs from what else is kept of its patient; `sentence` has no patient data."""

    study_instance_uid: str
    differences: tuple[str, ...]
    has_several_patients: bool

    @property
    def sentence(self) -> str:
        """Say it."""
        parts = []
        if self.differences:
            *others, last = self.differences
            named = f"{', '.join(others)} and {last}" if others else last
            parts.append(f"another {named} than first came under its Patient ID")
        if self.has_several_patients:
            parts.append("objects of several Patient IDs")
        return f"Study {self.study_instance_uid} has {' and '.join(parts)}."


def note(session: Session, study_patient_pk: int, sop_instance_uid: str, peer: str, now: dt.datetime) -> None:
    """Record for the administrator if what an object says of its patient differs from what was known."""
    for mismatch in _mismatches(session, StudyPatient.id == study_patient_pk):
        audit.record(session, PATIENT_MISMATCH, sop_instance_uid, peer, mismatch.sentence, now)


def mismatches(session: Session, limit: int) -> list[Mismatch]:
    """Return the studies, as they are served, whose patient does not agree, the latest first."""
    found = _mismatches(session, is_described(StudyPatient), limit)
    return list({mismatch.study_instance_uid: mismatch for mismatch in found}.values())


def is_described(study_patient: Any) -> ColumnElement[bool]:
    """Return the condition that an object that is served describes the patient so, and not only further revisions.

    A sub-query that cannot be turned into a join: it is looked up for what matches otherwise, and for nothing else.
    """
    series, instance = aliased(Series), aliased(Instance)
    statement = (
        select(instance.id)
        .join(series, series.id == instance.series_pk)
        .where(
            series.study_pk == study_patient.study_pk, instance.current, instance.study_patient_pk == study_patient.id
        )
        .limit(1)
    )
    found: ColumnElement[bool] = statement.correlate(study_patient).scalar_subquery().is_not(None)
    return found


def _mismatches(session: Session, condition: ColumnElement[bool], limit: int | None = None) -> Iterator[Mismatch]:
    other = aliased(StudyPatient)
    has_several = (
        select(other.id)
        .where(
            other.study_pk == StudyPatient.study_pk, other.patient_pk != StudyPatient.patient_pk, is_described(other)
        )
        .exists()
    )
    differs = {
        "name": _differs("patient_name_alphabetic_folded"),
        "birth date": _differs("patient_birth_date_folded"),
        "sex": _differs("patient_sex"),
    }
    statement: Any = (
        select(Study.study_instance_uid, has_several, *differs.values())
        .select_from(StudyPatient)
        .join(Study, Study.id == StudyPatient.study_pk)
        .join(Patient, Patient.id == StudyPatient.patient_pk)
        .where(has_several | differs["name"] | differs["birth date"] | differs["sex"], condition)
        .order_by(StudyPatient.id.desc())
        .limit(limit)
    )
    for study_instance_uid, several, *flags in session.execute(statement):
        names = tuple(name for name, differing in zip(differs, flags, strict=True) if differing)
        yield Mismatch(study_instance_uid, names, bool(several))


def _differs(column: str) -> ColumnElement[bool]:
    """Return the condition that both say something, and not the same."""
    here, first = getattr(StudyPatient, column), getattr(Patient, column)
    return and_(here != "", first != "", here != first)
