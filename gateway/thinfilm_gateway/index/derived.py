"""Attributes that are computed from what lies below a patient, study or series (PS3.4 C.3.4, C.6): sub-queries."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, case, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, aliased

from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.matching import Condition, Matching
from thinfilm_gateway.index.models import Instance, Patient, Series, Study, StudyPatient
from thinfilm_gateway.index.patients import is_described
from thinfilm_gateway.index.sql import is_sqlite
from thinfilm_gateway.index.states import InstanceState


@dataclass(frozen=True)
class DerivedAttribute:
    """An attribute of `level` that counts or lists the distinct values of a column of a level below.

    matching: how each of its values is matched, if it lists them; None if it counts them, which nothing matches.
    """

    level: Level
    below: Level
    column: str
    matching: Matching | None = None


DERIVED_ATTRIBUTES = {
    "NumberOfPatientRelatedStudies": DerivedAttribute(Level.PATIENT, Level.STUDY, "id"),
    "NumberOfPatientRelatedSeries": DerivedAttribute(Level.PATIENT, Level.SERIES, "id"),
    "NumberOfPatientRelatedInstances": DerivedAttribute(Level.PATIENT, Level.IMAGE, "id"),
    "NumberOfStudyRelatedSeries": DerivedAttribute(Level.STUDY, Level.SERIES, "id"),
    "NumberOfStudyRelatedInstances": DerivedAttribute(Level.STUDY, Level.IMAGE, "id"),
    "ModalitiesInStudy": DerivedAttribute(Level.STUDY, Level.SERIES, "modality", Matching.TEXT),
    "SOPClassesInStudy": DerivedAttribute(Level.STUDY, Level.IMAGE, "sop_class_uid", Matching.UID),
    "NumberOfSeriesRelatedInstances": DerivedAttribute(Level.SERIES, Level.IMAGE, "id"),
}


class Below:
    """The instances that are served below an entity of the outer query, with their series and study.

    level: of the entity, above IMAGE. entities: the tables of the levels below it, under names of their own.
    """

    def __init__(self, level: Level) -> None:
        study, series, instance = aliased(Study), aliased(Series), aliased(Instance)
        self.entities: dict[Level, Any] = {Level.STUDY: study, Level.SERIES: series, Level.IMAGE: instance}
        self._links = {
            Level.PATIENT: study.id.in_(_studies_of_the_patient()),
            Level.STUDY: series.study_pk == Study.id,
            Level.SERIES: instance.series_pk == Series.id,
        }
        self._level = level

    def select(self, *columns: Any) -> Any:
        """Select columns of the entities below."""
        study, series, instance = self.entities.values()
        statement = select(*columns).select_from(instance)
        if self._level is not Level.SERIES:
            statement = statement.join(series, series.id == instance.series_pk)
        if self._level is Level.PATIENT:
            statement = statement.join(study, study.id == series.study_pk)
        return statement.where(instance.current, self._links[self._level])


def is_served(level: Level) -> Condition:
    """Return the condition that an entity has an instance that is served, not only further revisions.

    A sub-query that cannot be turned into a join: it is looked up for what matches otherwise, and for nothing else.
    """
    if level is Level.IMAGE:
        return Instance.current.is_(True)
    if level is Level.PATIENT:
        described: Condition = _studies_of_the_patient().limit(1).scalar_subquery().is_not(None)
        return described
    below = Below(level)
    found: Condition = below.select(below.entities[Level.IMAGE].id).limit(1).scalar_subquery().is_not(None)
    return found


def _studies_of_the_patient() -> Any:
    """Select the studies with a served object of the patient of the outer query: they are his, with all in them."""
    described = aliased(StudyPatient)
    statement = select(described.study_pk).where(described.patient_pk == Patient.id, is_described(described))
    return statement.correlate(Patient)


def derived_column(session: Session, attribute: DerivedAttribute) -> Any:
    """Return the count or list as a column of the outer query; a list is read by `listed`."""
    below = Below(attribute.level)
    column = getattr(below.entities[attribute.below], attribute.column)
    aggregate: Any
    if attribute.matching is None:
        aggregate = func.count(column.distinct())
    elif is_sqlite(session):
        aggregate = func.json_group_array(column.distinct())
    else:
        aggregate = func.array_agg(column.distinct(), type_=postgresql.ARRAY(Text))
    return below.select(aggregate).scalar_subquery()


def listed(value: Any) -> list[str]:
    """Read what `derived_column` gives for a list: the values in order, without the empty one."""
    return sorted(filter(None, json.loads(value) if isinstance(value, str) else value or ()))


def availability(level: Level) -> Any:
    """Return Instance Availability (0008,0056): an entity of which nothing can be retrieved is UNAVAILABLE."""
    if level is Level.IMAGE:
        retrievable = Instance.state != InstanceState.QUARANTINED
    else:
        below = Below(level)
        instance = below.entities[Level.IMAGE]
        retrievable = below.select(instance.id).where(instance.state != InstanceState.QUARANTINED).exists()
    return case((retrievable, "ONLINE"), else_="UNAVAILABLE")
