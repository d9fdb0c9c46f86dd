"""The SQL in which SQLite and PostgreSQL differ."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, Text, and_, any_, case, cast, column, func, literal_column, not_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from thinfilm_gateway.index.models import Base

DECIMAL = r"[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,2})?"
"""What a decimal number looks like, within what both databases compute with: for Python and PostgreSQL."""


@dataclass(frozen=True)
class JsonItems:
    """The items of a list in a JSON column, as a table; each item is a text or a list of texts."""

    table: Any
    _of_sqlite: bool

    @property
    def text(self) -> Any:
        """The item itself, as a column; of a list, its JSON."""
        if self._of_sqlite:
            return self.table.c.value
        return _by_code_point(self.table.c.value.op("#>>")(literal_column("'{}'::text[]")))

    def member(self, place: str) -> Any:
        """Return the text at a place of an item that is a list, as a column; places count from 0."""
        if self._of_sqlite:
            return func.json_extract(self.table.c.value, f"$[{place}]", type_=Text)
        return _by_code_point(func.jsonb_extract_path_text(self.table.c.value, place))


def json_items(session: Session, document: Any, keyword: str) -> JsonItems:
    """Return the items of a list in a column of JSON; none where that has no such member."""
    value = column("value", Text)
    if is_sqlite(session):
        return JsonItems(func.json_each(document, f"$.{keyword}").table_valued(value), _of_sqlite=True)
    found = func.jsonb_extract_path(cast(document, postgresql.JSONB), keyword)
    return JsonItems(func.jsonb_array_elements(found).table_valued(column("value", postgresql.JSONB)), _of_sqlite=False)


def json_member(session: Session, document: Any, keyword: str) -> Any:
    """Return a member of a column of JSON, as JSON; NULL where there is none."""
    if is_sqlite(session):
        return func.json_extract(document, f"$.{keyword}", type_=Text)
    return func.jsonb_extract_path_text(cast(document, postgresql.JSONB), keyword, type_=Text)


def decimal_of(session: Session, value: Any) -> Any:
    """Return the number that a text is, as a column; NULL where it is none."""
    if is_sqlite(session):
        glob = value.op("GLOB", is_comparison=True)
        looks_like_one = and_(not_(glob("*[^-+.0-9eE]*")), glob("*[0-9]*"))
    else:
        looks_like_one = value.op("~")(f"^{DECIMAL}$")
    return case((looks_like_one, cast(value, Float)))


def _by_code_point(value: Any) -> Any:
    return cast(value, Text).collate("C")


def is_sqlite(session: Session) -> bool:
    """Tell which of the two databases a session speaks to."""
    return session.get_bind().dialect.name == "sqlite"


def insert_into(session: Session, model: type[Base]) -> Any:
    """Return an INSERT that knows ON CONFLICT, past the ORM, whose bookkeeping would cost more than the insert."""
    return _insert_into(is_sqlite(session), model)


def insert_missing_into(session: Session, model: type[Base]) -> Any:
    """Return an INSERT that leaves rows alone which are there already."""
    return _insert_missing_into(is_sqlite(session), model)


@functools.cache  # a statement costs more to make than to execute
def _insert_into(into_sqlite: bool, model: type[Base]) -> Any:
    insert: Any = sqlite.insert if into_sqlite else postgresql.insert
    return insert(model.__table__)


@functools.cache
def _insert_missing_into(into_sqlite: bool, model: type[Base]) -> Any:
    return _insert_into(into_sqlite, model).on_conflict_do_nothing()


def one_of(session: Session, column: InstrumentedAttribute[str], values: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that `column` equals one of `values`.

    The list travels as one parameter, since there may be more values than a statement can have parameters.
    """
    if len(values) == 1:
        return column == values[0]
    if is_sqlite(session):
        listed = func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(select(listed.c.value))
    return column == any_(cast(list(values), postgresql.ARRAY(Text)))
