"""Turns the value of one C-FIND key into an SQL condition (PS3.4 C.2.2.2)."""

import enum
import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, literal, or_
from sqlalchemy.orm import Session

from thinfilm_gateway.dicom.values import whole_number
from thinfilm_gateway.index.folding import date_time_span, fold_date, time_span
from thinfilm_gateway.index.levels import InvalidIdentifier
from thinfilm_gateway.index.models import storable
from thinfilm_gateway.index.patterns import Pattern, folded_pattern, name_patterns
from thinfilm_gateway.index.sql import DECIMAL, decimal_of, is_sqlite, one_of

Condition = ColumnElement[bool]
Columns = Callable[[str], Any]
"""Gives a column by its name, suffixed where matching has a column of its own: "_folded", "_alphabetic_folded" ..."""

_DECIMAL = re.compile(DECIMAL)
_LAST_CHARACTER = chr(0x10FFFF)  # sorts behind every other
_MOST_VALUES = (
    100  # of a key that is not a list of UID: each costs the database conditions, of which SQLite takes 1,000
)

GROUPS = ("_alphabetic_folded", "_ideographic_folded", "_phonetic_folded")


class Matching(enum.Enum):
    """How the values of an attribute are matched."""

    UID = "list of UID"
    TEXT = "single value and wild card, case-sensitive"
    FOLDED = "single value and wild card, without case and accents"
    NAME = "single value and wild card, without case and accents, by component group"
    DATE = "single value and range"
    TIME = "single value and range, of any precision"
    DATE_TIME = "single value and range, of any precision, offsets from UTC aside"
    NUMBER = "single value, as a number"
    DECIMAL = "single value, as a decimal number"


def condition(
    session: Session, matching: Matching, keyword: str, values: Sequence[str], columns: Columns
) -> Condition | None:
    """Return the condition that one of `values` matches; None for universal matching.

    values: Unicode, at least one, none empty. Several are only standard for UIDs; elsewhere one that matches is enough.
    Raises InvalidIdentifier for a value that is none of its kind.
    """
    values = [storable(value) for value in values]
    if any(not value.strip("*") for value in values):
        return None
    if matching is Matching.UID:
        return one_of(session, columns(""), values)
    if len(values) > _MOST_VALUES:
        raise InvalidIdentifier(f"{keyword} has {len(values)} values; send at most {_MOST_VALUES}.")
    if matching is Matching.NUMBER:
        numbers: Condition = columns("").in_([_number(keyword, value) for value in values])
        return numbers
    single = {
        Matching.TEXT: _text_condition,
        Matching.FOLDED: _folded_condition,
        Matching.NAME: _name_condition,
        Matching.DATE: _date_condition,
        Matching.TIME: _time_condition,
        Matching.DATE_TIME: _date_time_condition,
        Matching.DECIMAL: _decimal_condition,
    }[matching]
    conditions = [single(session, keyword, value, columns) for value in values]
    demanded = [one for one in conditions if one is not None]
    return or_(*demanded) if len(demanded) == len(conditions) else None


def _text_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition | None:
    del keyword
    return _matches(session, columns(""), Pattern.parse(value))


def _folded_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition | None:
    del keyword
    return _matches(session, columns("_folded"), folded_pattern(value))


def _name_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition | None:
    """Match each component group that the key has with its own; a key of a single group may match any."""
    del keyword
    groups = name_patterns(value)
    if len(groups) == 1:
        return or_(*[_any_matches(session, columns(group), groups[0]) for group in GROUPS]) if groups[0] else None
    places = [(group, patterns) for group, patterns in zip(GROUPS, groups, strict=False) if patterns]
    return and_(*[_any_matches(session, columns(group), patterns) for group, patterns in places]) if places else None


def _any_matches(session: Session, column: Any, patterns: Sequence[Pattern]) -> Condition:
    return or_(*[_matches(session, column, pattern) for pattern in patterns])


def _matches(session: Session, column: Any, pattern: Pattern) -> Condition:
    matched: Condition
    if pattern.is_literal:
        matched = column == pattern.prefix
    elif is_sqlite(session):
        matched = column.op("GLOB", is_comparison=True)(literal(pattern.to_glob(), Text))
    else:
        matched = column.like(literal(pattern.to_like(), Text), escape="\\")
    if pattern.is_literal or not pattern.prefix:
        return matched
    # The same, in the words that an index understands even while the value is a parameter.
    first, last = literal(pattern.prefix, Text), literal(pattern.prefix + _LAST_CHARACTER, Text)
    return and_(column >= first, column <= last, matched)


def _date_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition:
    del session
    first, last = _range(value)
    for bound in (first, last):
        if bound and not fold_date(bound):
            raise InvalidIdentifier(
                f"{keyword} '{value}' is no date or range of dates: YYYYMMDD, YYYYMMDD-, -YYYYMMDD, YYYYMMDD-YYYYMMDD."
            )
    return _between(columns("_folded"), fold_date(first), fold_date(last))


def _time_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition:
    """Match a time; one of less precision stands for all of its hour, minute or second."""
    del session
    first, last = _range(value)
    for bound in (first, last):
        if bound and not time_span(bound)[0]:
            raise InvalidIdentifier(
                f"{keyword} '{value}' is no time or range of times: HHMMSS.FFFFFF or its beginning, with - before, "
                "behind or between."
            )
    return _between(columns("_folded"), time_span(first)[0], time_span(last)[1])


def _date_time_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition:
    """Match a date time; a hyphen before what can be an offset from UTC is none of a range."""
    del session
    first, last = (value, value) if date_time_span(value)[0] else _range(value)
    for bound in (first, last):
        if bound and not date_time_span(bound)[0]:
            raise InvalidIdentifier(
                f"{keyword} '{value}' is no date time or range of them: YYYYMMDDHHMMSS.FFFFFF or its beginning, with - "
                "before, behind or between."
            )
    return _between(columns("_folded"), date_time_span(first)[0], date_time_span(last)[1])


def _decimal_condition(session: Session, keyword: str, value: str, columns: Columns) -> Condition:
    if not _DECIMAL.fullmatch(value):
        raise InvalidIdentifier(f"{keyword} '{value}' is no decimal number.")
    matched: Condition = decimal_of(session, columns("")) == float(value)
    return matched


def _range(value: str) -> tuple[str, str]:
    """Return the two ends of a range, empty where it is open; both are the value itself where it is none."""
    first, dash, last = value.partition("-")
    return (first.strip(), last.strip()) if dash else (value, value)


def _between(column: Any, first: str, last: str) -> Condition:
    """Match a range; what is no date or time is an empty column, and never in one."""
    return and_(column >= (first or "0"), column <= (last or "9" * 12))


def _number(keyword: str, value: str) -> int:
    number = whole_number(value)
    if number is None:
        raise InvalidIdentifier(f"{keyword} '{value}' is no whole number.")
    return number
