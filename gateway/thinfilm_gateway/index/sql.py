"""The SQL in which SQLite and PostgreSQL differ."""

import functools
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, any_, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from thinfilm_gateway.index.models import Base


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
