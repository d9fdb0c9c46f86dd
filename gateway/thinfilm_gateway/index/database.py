"""The connection to the index: engine, transactions and migrations, the same on SQLite and PostgreSQL."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine, event, make_url, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from thinfilm_gateway.archive.store import sync
from thinfilm_gateway.index import durability

log = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
"""The migrations: in a checkout a link to the top-level folder alembic/, in an installed package a folder."""

BUSY_SECONDS = 60.0  # how long an SQLite writer waits for the others
_LOOK_AGAIN_SECONDS = 0.001  # for the turn to write
_BEGIN_WRITING = "BEGIN IMMEDIATE"
WRITERS, READERS = 8, 24  # connections of a process to PostgreSQL at the most; SQLite has no such limit

_UPGRADE_LOCK = 0x7468696E66696C6D  # names the advisory lock of PostgreSQL that keeps migrations apart


class UnusableIndex(Exception):
    """The index is away, behind or beyond this version; the message is one sentence that names the mend."""


class Database:
    """The index at a SQLAlchemy URL. Connects when first used; safe for threads, not across a fork.

    session() is for transactions that write, reading() for those that only read. On SQLite the difference matters: a
    writing transaction takes the one write lock from its start, a reading one never waits for anybody nor holds anybody
    up. Whatever streams, as find() does, belongs into reading().
    """

    def __init__(self, url: str) -> None:
        """Raise UnusableIndex if `url` names neither SQLite nor PostgreSQL."""
        self.url = _parsed(url)
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgres_engine(self.url, WRITERS)
        # Their own connections: queries whose peers are slow to take the answers must not hold up what is stored.
        if self.is_sqlite:
            self._reading_engine = _sqlite_engine(self.url, _prepare_reader, _begin_reading)
        else:
            self._reading_engine = _postgres_engine(self.url, READERS).execution_options(postgresql_readonly=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether the index is an SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Run a transaction that may write: committed at the end of the block, rolled back if the block raises."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Run a transaction that only reads, and is rolled back; a write in it fails."""
        with Session(self._reading_engine) as session:
            yield session

    def is_reachable(self) -> bool:
        """Tell whether the index answers now."""
        try:
            with self._reading_engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            log.warning("index_away", error=_reason(error))
            return False
        return True

    def upgrade(self) -> None:
        """Bring the tables to the newest migration, all or nothing; several processes may try at once.

        Raises UnusableIndex if the index is away or newer than this version.
        """
        with self._explained(), self.migrating() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            self._refuse_unknown_revision(connection)
            configuration = Config()
            configuration.set_main_option("script_location", str(MIGRATIONS))
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
        if self.is_sqlite:
            sync(Path(str(self.url.database)).parent)  # the name of the file, which SQLite syncs too late

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Begin a transaction in which tables may be made anew under the feet of those that refer to them."""
        engine = _sqlite_engine(self.url, _prepare_migration) if self.is_sqlite else self.engine
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            if engine is not self.engine:
                engine.dispose()

    def check(self) -> None:
        """Raise UnusableIndex, naming what is behind, unless the index is at the newest migration."""
        file = Path(self.url.database or "") if self.is_sqlite else None
        if file is not None and file.parent.is_dir() and not file.exists():  # to connect would make it
            raise self._without_tables()
        with self._explained(), self._reading_engine.connect() as connection:
            self._refuse_unknown_revision(connection)
            current = _current_revision(connection)
            newest = ScriptDirectory(str(MIGRATIONS)).get_current_head()
            if current is None:
                raise self._without_tables()
            if current != newest:
                raise UnusableIndex(
                    f"The index at {self._shown_url} is at migration {current} and this version needs {newest}; "
                    "run `thinfilm db upgrade`."
                )

    def complaints(self) -> list[str]:
        """Return a sentence for each setting of the database by which a power cut can take what was committed.

        Raises UnusableIndex if the index is away.
        """
        with self._explained(), self._reading_engine.connect() as connection:
            return list(durability.complaints(connection).values())

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self._reading_engine.dispose()

    @property
    def _shown_url(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def _without_tables(self) -> UnusableIndex:
        return UnusableIndex(f"The index at {self._shown_url} has no tables yet; run `thinfilm db upgrade`.")

    def _refuse_unknown_revision(self, connection: Connection) -> None:
        current = _current_revision(connection)
        if current is None:
            return
        try:
            ScriptDirectory(str(MIGRATIONS)).get_revision(current)
        except CommandError:
            raise UnusableIndex(
                f"The index at {self._shown_url} is at migration {current}, which this version does not know; "
                "run the version that made it, or a newer one."
            ) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the driver raises into a sentence."""
        try:
            yield
        except SQLAlchemyError as error:
            raise UnusableIndex(
                f"The index at {self._shown_url} cannot be used ({_reason(error)}); correct database_url or start it."
            ) from error


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is not None and parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed is not None and parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    raise UnusableIndex("database_url must be sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.")


def _sqlite_engine(
    url: URL, prepare: Callable[..., None] | None = None, begin: Callable[[Connection], None] | None = None
) -> Engine:
    """Make an engine whose connections write, unless told otherwise."""
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        pool_size=8,
        max_overflow=-1,
        hide_parameters=True,  # they are patients' names; errors go to the log
    )
    event.listen(engine, "connect", prepare or _prepare_writer)
    event.listen(engine, "begin", begin or _begin_writing)
    return engine


def _postgres_engine(url: URL, connections: int) -> Engine:
    engine = create_engine(
        url,
        connect_args={"connect_timeout": 10},
        pool_size=4,
        max_overflow=connections - 4,
        hide_parameters=True,
        pool_pre_ping=True,  # after a restart of the server, the next transaction simply works
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", lambda connection, entry: durability.keep_commits(connection))
    return engine


def _prepare_migration(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    _prepare_writer(connection, entry)
    connection.execute("PRAGMA foreign_keys = OFF")  # a table is changed by copying and dropping it


def _prepare_reader(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    _prepare_writer(connection, entry)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY_SECONDS)}")


def _prepare_writer(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    del entry
    for pragma in (
        "journal_mode = WAL",  # readers and the writer do not wait for each other
        "synchronous = FULL",  # a commit survives a power cut
        "foreign_keys = ON",
        "busy_timeout = 0",  # a writer waits for nothing but its turn, and does so in _begin_writing
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: Connection) -> None:
    """Begin a transaction, so that a writer waits for its turn before it has read anything.

    Python's driver would begin late and deferred: a transaction that reads and then writes fails at once when another
    wrote in between. SQLite itself would look for its turn after 1, 2, 5, 10 ms and so on, while those before us need
    two or three.
    """
    driver: Any = connection.connection.driver_connection
    deadline = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < deadline:
        try:
            driver.execute(_BEGIN_WRITING)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the rest says more exactly what is locked
                break
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return
    connection.exec_driver_sql(_BEGIN_WRITING)  # raises as SQLAlchemy does


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _reason(error: SQLAlchemyError) -> str:
    """Return the driver's own words, on one line."""
    cause: Any = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())
