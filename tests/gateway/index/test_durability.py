import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from support.receiver import wait_until
from support.servers import PostgresServer, stoppable_postgres
from thinfilm_gateway import health
from thinfilm_gateway.config import Settings
from thinfilm_gateway.data_folder import Room
from thinfilm_gateway.index.database import Database

ROWS = 60


def _setting(database: Database, name: str) -> set[str]:
    """Return the setting as connections that write and connections that read have it."""
    query = text(f"SHOW {name}")
    with database.session() as writing, database.reading() as reading:
        return {str(session.scalar(query)) for session in (writing, reading)}


def test_what_was_committed_outlives_a_crash_of_a_server_that_commits_late():
    """An immediate stop loses what PostgreSQL holds in memory, as a power cut does."""
    with stoppable_postgres(synchronous_commit="off", wal_writer_delay="10s", autovacuum="off") as (server, run):
        database = Database(server.url())
        with database.session() as session:
            session.execute(text("CREATE TABLE acknowledged (number integer)"))
            data = Path(str(session.scalar(text("SHOW data_directory"))))
        for number in range(ROWS):
            with database.session() as session:
                session.execute(text("INSERT INTO acknowledged VALUES (:number)"), {"number": number})
        database.dispose()
        postmaster = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        wait_until(lambda: not (data / "postmaster.pid").exists(), "the server is gone")
        run.stop()
        run.start()
        with database.reading() as session:
            assert session.scalar(text("SELECT count(*) FROM acknowledged")) == ROWS
        database.dispose()


@pytest.mark.parametrize("where", ["ALTER DATABASE {database} SET", "ALTER ROLE thinfilm SET", "ALTER SYSTEM SET"])
@pytest.mark.parametrize(("set_to", "used"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
def test_every_connection_waits_for_the_disk_wherever_it_was_told_not_to(
    postgres_server: PostgresServer, where: str, set_to: str, used: str
) -> None:
    name = "durability"
    url = postgres_server.create_database(name)
    admin = Database(postgres_server.url())
    engine = admin.engine.execution_options(isolation_level="AUTOCOMMIT")
    statement = where.format(database=name)
    database = Database(url)
    try:
        assert _setting(database, "synchronous_commit") == {"on"}
        with engine.connect() as connection:
            connection.execute(text(f"{statement} synchronous_commit = {set_to}"))
            connection.execute(text("SELECT pg_reload_conf()"))
        assert _setting(database, "synchronous_commit") == {"on"}, "a connection that is open stays as it was"
        database.dispose()
        fresh = Database(url)
        wait_until(lambda: _setting(fresh, "synchronous_commit") == {used}, "new connections see it")
        fresh.dispose()
    finally:
        database.dispose()
        with engine.connect() as connection:
            connection.execute(text(f"{statement.replace(' SET', ' RESET')} synchronous_commit"))
            connection.execute(text("SELECT pg_reload_conf()"))
            connection.execute(text(f"DROP DATABASE {name}"))
        admin.dispose()


def test_a_server_that_a_power_cut_would_damage_is_complained_of_by_name_with_the_mend():
    with stoppable_postgres(fsync="off", full_page_writes="off") as (server, _):
        database = Database(server.url())
        fsync, pages = database.complaints()
        database.dispose()
    assert fsync.startswith("PostgreSQL runs with fsync = off: after a power cut what was acknowledged can be lost")
    assert pages.startswith("PostgreSQL runs with full_page_writes = off: after a power cut the index can be damaged")
    mend = "set it to on in postgresql.conf and reload the server."
    assert fsync.endswith(mend)
    assert pages.endswith(mend)


def test_the_index_of_the_tests_is_one_that_outlives_a_power_cut(database: Database) -> None:
    assert database.complaints() == []
    if database.is_sqlite:
        assert _pragma(database, "synchronous") == {"2"}, "FULL"
        assert _pragma(database, "journal_mode") == {"wal"}
    else:
        assert _setting(database, "synchronous_commit") == {"on"}


def _pragma(database: Database, name: str) -> set[str]:
    query = text(f"PRAGMA {name}")
    with database.session() as writing, database.reading() as reading:
        return {str(session.scalar(query)) for session in (writing, reading)}


def test_health_warns_of_a_server_that_a_power_cut_would_damage(tmp_path: Path) -> None:
    with stoppable_postgres(fsync="off") as (server, _):
        settings = Settings(data_dir=tmp_path, database_url=server.url(), minimum_free_bytes=0, warning_free_bytes=0)
        database = Database(settings.index_url)
        database.upgrade()
        with database.reading() as session:
            found = health.warnings(settings, session, Room(None, None))
        database.dispose()
    assert [warning.name for warning in found] == ["index_not_durable fsync"]
