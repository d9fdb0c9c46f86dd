"""Fixtures of more than one room: the index on both databases."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import PostgresServer, postgres
from thinfilm_gateway.index.database import Database


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with a migrated database `template_index`, for the whole run."""
    with postgres() as server:
        template = Database(server.create_database("template_index"))
        template.upgrade()
        template.dispose()
        yield server


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
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(f"index_{uuid.uuid4().hex}", template="template_index")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty, migrated index on each of the two databases."""
    database = Database(database_url)
    yield database
    database.dispose()
