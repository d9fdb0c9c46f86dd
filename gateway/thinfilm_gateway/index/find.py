"""Answers C-FIND from the index (PS3.4 C.4.1): what matches a query at one level, streamed."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from thinfilm_gateway.index.attributes import (
    MATCHING,
    TOLD_OF_STUDIES,
    further_column,
    further_condition,
    values_of,
)
from thinfilm_gateway.index.derived import DERIVED_ATTRIBUTES, Below, availability, derived_column, is_served, listed
from thinfilm_gateway.index.keys import ENTITIES, KEY_ATTRIBUTES, KeyAttribute
from thinfilm_gateway.index.levels import UNIQUE_KEYS, InvalidIdentifier, Level
from thinfilm_gateway.index.matching import Condition, condition
from thinfilm_gateway.index.models import Derivation, Instance, Patient, Series, Study, StudyPatient, tells_of
from thinfilm_gateway.index.patients import is_described
from thinfilm_gateway.index.sql import one_of

ROWS_AT_A_TIME = 200

ALTERNATE_REPRESENTATION = "AlternateRepresentationSequence"

Value = str | int | list[str]

_ABOUT_THE_MESSAGE = frozenset(("QueryRetrieveLevel", "SpecificCharacterSet", "TimezoneOffsetFromUTC"))


class Root(enum.StrEnum):
    """Information model of a query: in the Study Root, the patient's attributes are the study's (PS3.4 C.6.2)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"


@dataclass(frozen=True)
class Query:
    """A C-FIND request, decoded.

    keys: DICOM keyword -> value in Unicode. "" is universal matching: the attribute is only to be returned. Several
    values come as a sequence, or joined by backslashes, as in a list of UID; elsewhere too, one that matches is then
    enough. Keys of upper levels restrict, whether or not relational queries were negotiated. A key of a lower level
    restricts to what has something below that matches it, and is not returned.
    retrieve_ae_title: what RetrieveAETitle (0008,0054) is answered with.
    """

    level: Level
    root: Root
    keys: Mapping[str, str | Sequence[str]]
    retrieve_ae_title: str = ""

    def __post_init__(self) -> None:
        """Raise InvalidIdentifier for a level that the information model lacks."""
        if self.root is Root.STUDY and self.level is Level.PATIENT:
            raise InvalidIdentifier("The Study Root information model has no level PATIENT.")

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Keywords of the query that no answer has: unknown to the index, or of a lower level."""
        answered = {"RetrieveAETitle", *self._columns_asked, *_ABOUT_THE_MESSAGE}
        if self.asks_for_alternates:
            answered.add(ALTERNATE_REPRESENTATION)
        return tuple(keyword for keyword in self.keys if keyword not in answered)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Keywords of the query that are answered, and whose values, though given, restrict nothing."""
        counts = {keyword for keyword, attribute in DERIVED_ATTRIBUTES.items() if attribute.matching is None}
        return tuple(
            keyword
            for keyword, given in self.keys.items()
            if keyword in counts | {"InstanceAvailability", "RetrieveAETitle"} and _values(given)
        )

    @property
    def asks_for_alternates(self) -> bool:
        """Whether each answer is to name the other representation of its image."""
        return self.level is Level.IMAGE and ALTERNATE_REPRESENTATION in self.keys

    @property
    def _columns_asked(self) -> tuple[str, ...]:
        """Keywords of the answers that come from the database."""
        levels = self.level.with_upper
        top = Level.PATIENT if self.root is Root.PATIENT else Level.STUDY
        unique = [UNIQUE_KEYS[level] for level in levels if level in top.with_lower]
        asked = [
            keyword
            for keyword in self.keys
            if keyword == "InstanceAvailability"
            or (keyword in TOLD_OF_STUDIES and self.level is Level.STUDY)
            or (keyword in KEY_ATTRIBUTES and KEY_ATTRIBUTES[keyword].level in levels)
            or (keyword in DERIVED_ATTRIBUTES and DERIVED_ATTRIBUTES[keyword].level in levels)
        ]
        return tuple(dict.fromkeys([*unique, *asked]))


@dataclass(frozen=True)
class AlternateRepresentation:
    """A derived object that stands for an image with fewer bytes (PS3.4 C.6.1.1.5.1)."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Match:
    """One answer.

    values: keyword -> value, for the keys of the query that are supported and for the unique keys from the top of the
    model down to the level. Text as received, "" where there is none; numbers as int, "" where there is none;
    ModalitiesInStudy and SOPClassesInStudy as sorted lists.
    specific_character_set: as received with the object that describes the entity; values joined by backslashes.
    alternate: the lossy representation of an image that is there too, or there alone; None where there is none, or
    where it is not asked for.
    """

    values: Mapping[str, Value]
    specific_character_set: str
    alternate: AlternateRepresentation | None = None


def find(session: Session, query: Query) -> Iterator[Match]:
    """Return the matches, read from the database while they are taken; close the iterator to stop early.

    An original that is gone is found by its SOP Instance UID alone, as UNAVAILABLE, with what stands for it.
    session: of Database.reading(), open for as long as matches are taken. What is quarantined is found, as UNAVAILABLE.
    Raises InvalidIdentifier, at once, for a value that is not of its attribute's kind.
    """
    return _answers(session, _statement(session, query), query)


def _answers(session: Session, statement: Any, query: Query) -> Iterator[Match]:
    yield from _stream(session, statement, query)
    yield from _retired(session, query)


def _stream(session: Session, statement: Any, query: Query) -> Iterator[Match]:
    constants = {"RetrieveAETitle": query.retrieve_ae_title} if "RetrieveAETitle" in query.keys else {}
    asked = query._columns_asked
    with session.execute(statement, execution_options={"yield_per": ROWS_AT_A_TIME}) as result:
        for character_set, *row in result:
            values = {keyword: _value(keyword, value) for keyword, value in zip(asked, row[: len(asked)], strict=True)}
            alternate = AlternateRepresentation(*row[len(asked) :]) if len(row) > len(asked) and row[-1] else None
            yield Match({**values, **constants}, character_set, alternate)


def _retired(session: Session, query: Query) -> Iterator[Match]:
    """Give an answer for each original that is asked for by its UID and is gone: that of the object in its place."""
    uids = _values(query.keys.get("SOPInstanceUID", "")) if query.level is Level.IMAGE else []
    if not uids:
        return
    gone = select(Derivation.derived_sop_instance_uid, Derivation.original_sop_instance_uid).where(
        one_of(session, Derivation.original_sop_instance_uid, uids), Derivation.retired_at.is_not(None)
    )
    originals: dict[Any, str] = {row[0]: row[1] for row in session.execute(gone)}
    if not originals:
        return
    keys = {"SOPClassUID": "", **query.keys, "SOPInstanceUID": list(originals)}
    instead = replace(query, keys=keys)
    for match in _stream(session, _statement(session, instead), instead):
        uid = str(match.values["SOPInstanceUID"])
        series_uid, sop_class_uid = (str(match.values[name]) for name in ("SeriesInstanceUID", "SOPClassUID"))
        values = {name: value for name, value in match.values.items() if name != "SOPClassUID" or name in query.keys}
        values["SOPInstanceUID"] = originals[uid]
        if "InstanceAvailability" in values:
            values["InstanceAvailability"] = "UNAVAILABLE"
        yield Match(values, match.specific_character_set, AlternateRepresentation(series_uid, sop_class_uid, uid))


def _value(keyword: str, value: Any) -> Value:
    if keyword in DERIVED_ATTRIBUTES and DERIVED_ATTRIBUTES[keyword].matching is not None:
        return listed(value)
    if keyword in MATCHING:
        return values_of(value)
    return "" if value is None else value


def _statement(session: Session, query: Query) -> Any:
    described_by = ENTITIES[Level.SERIES if query.level is Level.IMAGE else query.level]
    columns = [_column(session, query, keyword) for keyword in query._columns_asked]
    if query.asks_for_alternates:
        columns += [Series.series_instance_uid, Instance.sop_class_uid, _derived_uid()]
    statement = select(described_by.specific_character_set, *columns).select_from(ENTITIES[query.level])
    for upper, link in _UPWARDS:
        if upper in query.level.with_upper and upper is not query.level:
            statement = statement.join(ENTITIES[upper], link)
    statement = statement.where(is_served(query.level), *_conditions(session, query))
    if query.level is Level.PATIENT:
        return statement
    statement = statement.join(StudyPatient, StudyPatient.study_pk == Study.id)
    statement = statement.join(Patient, Patient.id == StudyPatient.patient_pk)
    return statement.where(is_described(StudyPatient), ~_has_better_description(session, query))


_UPWARDS: list[tuple[Level, Any]] = [
    (Level.SERIES, Series.id == Instance.series_pk),
    (Level.STUDY, Study.id == Series.study_pk),
]


def _entity(query: Query, level: Level) -> Any:
    """Return the table of a level: in the Study Root, the patient is as the study describes him."""
    return StudyPatient if level is Level.PATIENT and query.root is Root.STUDY else ENTITIES[level]


def _has_better_description(session: Session, query: Query) -> Condition:
    """Return the condition that an entity is not to be answered with this description of its patient.

    Where a study describes its patient in several ways, each entity is answered once, in the Patient Root once for
    each patient: of those that match, as an image itself has it, else as it came first.
    """
    other = aliased(StudyPatient)
    comes_before: Condition = other.id < StudyPatient.id
    same: list[Condition] = [other.study_pk == StudyPatient.study_pk, other.id != StudyPatient.id]
    if query.root is Root.PATIENT:
        same.append(other.patient_pk == StudyPatient.patient_pk)
    else:
        of_patient = {name: key for name, key in KEY_ATTRIBUTES.items() if key.level is Level.PATIENT}
        for keyword, attribute in of_patient.items():
            if values := _values(query.keys.get(keyword, "")):
                same += _key_conditions(session, keyword, attribute, values, other)
        if query.level is Level.IMAGE:
            own = Instance.study_patient_pk
            comes_before = and_(
                StudyPatient.id != func.coalesce(own, 0), or_(other.id == own, other.id < StudyPatient.id)
            )
    return select(other.id).where(*same, comes_before, is_described(other)).exists()


def _column(session: Session, query: Query, keyword: str) -> Any:
    if keyword == "InstanceAvailability":
        return availability(query.level)
    if keyword in DERIVED_ATTRIBUTES:
        return derived_column(session, DERIVED_ATTRIBUTES[keyword])
    attribute = KEY_ATTRIBUTES[keyword]
    if attribute.level not in query.level.with_upper:
        return _told_of_the_study(session, keyword)
    entity = _entity(query, attribute.level)
    return getattr(entity, attribute.column) if attribute.column else further_column(session, entity, keyword)


def _told_of_the_study(session: Session, keyword: str) -> Any:
    """Return what the first series of the study that has this attribute says."""
    below = Below(Level.STUDY)
    series = below.entities[Level.SERIES]
    told = further_column(session, series, keyword)
    return below.select(told).where(told.is_not(None)).order_by(series.id).limit(1).scalar_subquery()


def _derived_uid() -> Any:
    """Return the UID of the object derived from an original that is kept, as a column."""
    return (
        select(Derivation.derived_sop_instance_uid)
        .where(tells_of(Instance), Derivation.retired_at.is_(None))
        .scalar_subquery()
    )


def _conditions(session: Session, query: Query) -> list[Condition]:
    """Return what the keys demand: of the entity and what is above it, and of something below it."""
    conditions = []
    below = None if query.level is Level.IMAGE else Below(query.level)
    demanded_below = []
    for keyword, given in query.keys.items():
        values = _values(given)
        if not values:
            continue
        if keyword in DERIVED_ATTRIBUTES:
            conditions += _derived_conditions(session, query.level, keyword, values)
        elif keyword in KEY_ATTRIBUTES:
            attribute = KEY_ATTRIBUTES[keyword]
            if attribute.level in query.level.with_upper:
                conditions += _key_conditions(session, keyword, attribute, values, _entity(query, attribute.level))
            elif below is not None:
                entity = below.entities[attribute.level]
                demanded_below += _key_conditions(session, keyword, attribute, values, entity)
    if below is not None and demanded_below:
        conditions.append(below.select(below.entities[Level.IMAGE].id).where(*demanded_below).exists())
    return conditions


def _values(given: str | Sequence[str]) -> list[str]:
    parts = given.split("\\") if isinstance(given, str) else given
    return [part.strip(" \0") for part in parts if part.strip(" \0")]


def _key_conditions(
    session: Session, keyword: str, attribute: KeyAttribute, values: Sequence[str], entity: Any
) -> list[Condition]:
    column = attribute.column
    if column is None:
        matched = further_condition(session, keyword, values, entity)
    else:
        matched = condition(
            session, attribute.matching, keyword, values, lambda suffix: getattr(entity, column + suffix)
        )
    return [] if matched is None else [matched]


def _derived_conditions(session: Session, level: Level, keyword: str, values: Sequence[str]) -> list[Condition]:
    """Return what a derived key demands: a list matches if one of its values does; a count is not matched."""
    attribute = DERIVED_ATTRIBUTES[keyword]
    if attribute.matching is None or attribute.level not in level.with_upper:
        return []
    below = Below(attribute.level)
    column = getattr(below.entities[attribute.below], attribute.column)
    matched = condition(session, attribute.matching, keyword, values, lambda suffix: column)
    return [] if matched is None else [below.select(below.entities[Level.IMAGE].id).where(matched).exists()]
