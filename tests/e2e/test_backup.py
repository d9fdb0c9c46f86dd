"""Backup, restore and upgrade, by the commands of docs/operations.md."""

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from alembic import command as alembic
from alembic.config import Config

from support.datasets import ct_series, mr_series
from support.house import House
from support.servers import PostgresServer
from thinfilm_gateway import volumes
from thinfilm_gateway.config import ENVIRONMENT_PREFIX, Settings
from thinfilm_gateway.index.database import MIGRATIONS, Database
from thinfilm_workers.context import Context

ARCHIVED, SPOOLED = ct_series(3), mr_series(2)


def thinfilm(settings: Settings, *arguments: str, code: int = 0) -> str:
    """Run a command of thinfilm; return all that it says."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    done = subprocess.run(
        [sys.executable, "-m", "thinfilm_gateway", *arguments],
        env=others | settings.to_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def house(tmp_path: Path, database_url: str) -> House:
    """A gateway with one series in a container and another in the spool."""
    house = House.build(tmp_path, database_url)
    volumes.settle(house.context.settings, house.context.database)
    house.receive(ARCHIVED)
    house.work()
    house.receive(SPOOLED)
    return house


def back_up(settings: Settings, backup: Path) -> None:
    backup.mkdir()
    run("cp", "--archive", settings.spool_dir, backup)
    run("cp", "--archive", settings.archive_dir, backup)
    if settings.database_url.startswith("sqlite"):
        run("sqlite3", settings.database_url.removeprefix("sqlite:///"), f".backup {backup / 'index.sqlite'}")
    else:
        url = settings.database_url.replace("postgresql+psycopg", "postgresql")
        run("pg_dump", "--file", backup / "index.sql", url)


def restore(backup: Path, folder: Path, server: PostgresServer | None) -> Settings:
    """Restore into an empty folder and an empty database; return the settings of the restored gateway."""
    folder.mkdir()
    run("cp", "--archive", backup / "archive", backup / "spool", folder)
    if server is None:
        run("cp", backup / "index.sqlite", folder / "index.sqlite")
        return Settings(data_dir=folder, minimum_free_bytes=0, lossless_codecs=("jpegls",))
    url = server.create_database(f"restored_{uuid.uuid4().hex}")
    run("psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", backup / "index.sql",
        url.replace("postgresql+psycopg", "postgresql"))  # fmt: skip
    return Settings(data_dir=folder, database_url=url, minimum_free_bytes=0, lossless_codecs=("jpegls",))


def assert_all_there(settings: Settings) -> None:
    """Fail unless everything comes back byte for byte, and what waited can be compressed."""
    house = House(Context.open(settings))
    house.assert_retrievable([*ARCHIVED, *SPOOLED])
    while house.work():
        pass
    house.assert_archived(ARCHIVED)
    house.context.database.dispose()


def test_a_backup_restores_the_gateway_as_it_was(house: House, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = house.context.settings
    is_sqlite = settings.database_url.startswith("sqlite")
    server = None if is_sqlite else request.getfixturevalue("postgres_server")
    back_up(settings, tmp_path / "backup")
    house.context.database.dispose()
    shutil.rmtree(settings.data_dir)
    restored = restore(tmp_path / "backup", tmp_path / "restored", server)
    thinfilm(restored, "db", "upgrade")
    assert "0 damages" in thinfilm(restored, "scrub")
    assert " 0 instances are damaged" in thinfilm(restored, "status")
    assert_all_there(restored)


def test_files_without_an_index_are_restored_by_a_rebuild(house: House, tmp_path: Path) -> None:
    settings = house.context.settings
    back_up(settings, tmp_path / "backup")
    house.context.database.dispose()
    folder = tmp_path / "restored"
    folder.mkdir()
    run("cp", "--archive", tmp_path / "backup" / "archive", tmp_path / "backup" / "spool", folder)
    restored = Settings(data_dir=folder, minimum_free_bytes=0, series_quiet_seconds=0, lossless_codecs=("jpegls",))
    assert "5 instances entered" in thinfilm(restored, "reindex")
    assert "0 damages" in thinfilm(restored, "scrub")
    assert_all_there(restored)


def test_an_index_of_the_first_version_is_upgraded_with_all_that_it_holds(house: House) -> None:
    settings, database = house.context.settings, house.context.database
    _downgrade(database, "0001")
    database.dispose()
    assert "run `thinfilm db upgrade`" in thinfilm(settings, "status", code=1)
    thinfilm(settings, "db", "upgrade")
    assert "5 instances, 2 series, 1 studies" in thinfilm(settings, "status")
    assert_all_there(settings)


def _downgrade(database: Database, revision: str) -> None:
    """Bring the tables to what an old version had."""
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    with database.migrating() as connection:
        configuration.attributes["connection"] = connection
        alembic.downgrade(configuration, revision)
