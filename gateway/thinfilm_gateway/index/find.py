"""Answers C-FIND from the index (PS3.4 C.4.1): what matches a query at one level, streamed."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from thinfilm_gateway.index.derived import DERIVED_ATTRIBUTES, Below, availability, derived_column, is_served, listed
from thinfilm_gateway.index.keys import ENTITIES, KEY_ATTRIBUTES, KeyAttribute
from thinfilm_gateway.index.levels import UNIQUE_KEYS, InvalidIdentifier, Level
from thinfilm_gateway.index.matching import Condition, condition
from thinfilm_gateway.index.models import Instance, Patient, Series, Study

ROWS_AT_A_TIME = 200

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
        return tuple(keyword for keyword in self.keys if keyword not in answered)

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
            or (keyword in KEY_ATTRIBUTES and KEY_ATTRIBUTES[keyword].level in levels)
            or (keyword in DERIVED_ATTRIBUTES and DERIVED_ATTRIBUTES[keyword].level in levels)
        ]
        return tuple(dict.fromkeys([*unique, *asked]))


@dataclass(frozen=True)
class Match:
    """One answer.

    values: keyword -> value, for the keys of the query that are supported and for the unique keys from the top of the
    model down to the level. Text as received, "" where there is none; numbers as int, "" where there is none;
    ModalitiesInStudy and SOPClassesInStudy as sorted lists.
    specific_character_set: as received with the object that describes the entity; values joined by backslashes.
    """

    values: Mapping[str, Value]
    specific_character_set: str


def find(session: Session, query: Query) -> Iterator[Match]:
    """Return the matches, read from the database while they are taken; close the iterator to stop early.

    session: of Database.reading(), open for as long as matches are taken. What is quarantined is found, as UNAVAILABLE.
    Raises InvalidIdentifier, at once, for a value that is not of its attribute's kind.
    """
    return _stream(session, _statement(session, query), query)


def _stream(session: Session, statement: Any, query: Query) -> Iterator[Match]:
    constants = {"RetrieveAETitle": query.retrieve_ae_title} if "RetrieveAETitle" in query.keys else {}
    with session.execute(statement, execution_options={"yield_per": ROWS_AT_A_TIME}) as result:
        for character_set, *row in result:
            values = {keyword: _value(keyword, value) for keyword, value in zip(query._columns_asked, row, strict=True)}
            yield Match({**values, **constants}, character_set)


def _value(keyword: str, value: Any) -> Value:
    if keyword in DERIVED_ATTRIBUTES and DERIVED_ATTRIBUTES[keyword].matching is not None:
        return listed(value)
    return "" if value is None else value


def _statement(session: Session, query: Query) -> Any:
    described_by = ENTITIES[Level.SERIES if query.level is Level.IMAGE else query.level]
    columns = [_column(session, query.level, keyword) for keyword in query._columns_asked]
    statement = select(described_by.specific_character_set, *columns).select_from(ENTITIES[query.level])
    for upper, link in _UPWARDS:
        if upper in query.level.with_upper and upper is not query.level:
            statement = statement.join(ENTITIES[upper], link)
    return statement.where(is_served(query.level), *_conditions(session, query))


_UPWARDS: list[tuple[Level, Any]] = [
    (Level.SERIES, Series.id == Instance.series_pk),
    (Level.STUDY, Study.id == Series.study_pk),
    (Level.PATIENT, Patient.id == Study.patient_pk),
]


def _column(session: Session, level: Level, keyword: str) -> Any:
    if keyword == "InstanceAvailability":
        return availability(level)
    if keyword in DERIVED_ATTRIBUTES:
        return derived_column(session, DERIVED_ATTRIBUTES[keyword])
    attribute = KEY_ATTRIBUTES[keyword]
    return getattr(ENTITIES[attribute.level], attribute.column)


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
                conditions += _key_conditions(session, keyword, attribute, values, ENTITIES[attribute.level])
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
    matched = condition(
        session, attribute.matching, keyword, values, lambda suffix: getattr(entity, attribute.column + suffix)
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
