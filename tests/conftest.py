"""Fixtures of more than one room: the index on both databases."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from support.servers import PostgresServer, postgres
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.models import Base

# Tests run side by side: torch's threads must sleep, not spin, while they wait for one another.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_index(postgres_server: PostgresServer) -> Iterator[Database]:
    """A migrated index in PostgreSQL, which the tests share one after the other."""
    database = Database(postgres_server.create_database("thinfilm_index"))
    database.upgrade()
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "index.sqlite"
    template = Database(f"sqlite:///{path}")
    template.upgrade()
    template.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty, migrated index: each test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "index.sqlite"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    shared: Database = request.getfixturevalue("postgres_index")
    with shared.session() as session:
        session.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY"))
    return shared.url.render_as_string(hide_password=False)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty, migrated index on each of the two databases."""
    database = Database(database_url)
    yield database
    database.dispose()
