import contextlib
import multiprocessing
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from support.index_processes import upgrade
from support.received import QUIET, received, series_of
from support.servers import PostgresServer, free_port
from thinfilm_gateway.index.database import READERS, Database, UnusableIndex
from thinfilm_gateway.index.ingest import register_all
from thinfilm_gateway.index.models import AuditEvent, Base, Instance, Job, Series, Study


@pytest.fixture(params=["sqlite", "postgresql"])
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables that no other test uses."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'own.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(f"own_{uuid.uuid4().hex}")


@pytest.fixture
def own_database(own_url: str) -> Iterator[Database]:
    """A migrated index that a test may do anything to."""
    database = Database(own_url)
    database.upgrade()
    yield database
    database.dispose()


def test_models_and_migrations_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    register_all(database, [received()], QUIET)
    database.upgrade()
    database.check()
    with database.reading() as session:
        assert len(session.execute(select(Instance.id)).all()) == 1


def test_downgrading_leaves_nothing_behind(own_database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    from thinfilm_gateway.index.database import MIGRATIONS

    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    with own_database.engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.downgrade(configuration, "base")
    with pytest.raises(UnusableIndex, match="has no tables yet"):
        own_database.check()
    own_database.upgrade()
    own_database.check()


def test_an_upgrade_folds_the_descriptions_that_are_there(own_database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    from thinfilm_gateway.index.database import MIGRATIONS

    register_all(own_database, [received(StudyDescription="MR KNÍE", SeriesDescription="Übersicht")], QUIET)
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    with own_database.engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.downgrade(configuration, "0009")
    own_database.upgrade()
    with own_database.reading() as session:
        assert session.scalars(select(Study.study_description_folded)).all() == ["mr knie"]
        assert session.scalars(select(Series.series_description_folded)).all() == ["ubersicht"]
        assert session.scalars(select(Instance.attributes)).all() == ["{}"]


def test_an_empty_database_is_named_as_such(own_url: str) -> None:
    database = Database(own_url)
    with pytest.raises(UnusableIndex, match="has no tables yet; run `thinfilm db upgrade`"):
        database.check()
    database.dispose()


def test_an_index_of_a_newer_version_is_refused_and_left_alone(own_database: Database) -> None:
    with own_database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refused in (own_database.check, own_database.upgrade):
        with pytest.raises(UnusableIndex, match="migration 9999, which this version does not know"):
            refused()
    with own_database.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_an_absent_server_is_named_without_its_password() -> None:
    database = Database(f"postgresql://thinfilm:secret@127.0.0.1:{free_port()}/index")
    assert not database.is_reachable()
    with pytest.raises(UnusableIndex, match=r"thinfilm:\*\*\*@127.*Connection refused") as caught:
        database.check()
    assert "secret" not in str(caught.value)
    database.dispose()


@pytest.mark.parametrize("url", ["", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "no url at all"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(UnusableIndex, match="database_url must be"):
        Database(url)


def test_a_reachable_index_says_so(database: Database) -> None:
    assert database.is_reachable()


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def fail_halfway() -> None:
        with database.session() as session:
            session.execute(insert(AuditEvent).values(at=received().received_at, kind="test", detail=""))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with database.reading() as session:
        assert session.execute(select(AuditEvent.id)).all() == []


def test_a_reading_transaction_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"), database.reading() as session:
        session.execute(insert(AuditEvent).values(at=received().received_at, kind="test", detail=""))
    register_all(database, [received()], QUIET)  # on a connection that has just been used for reading


def test_readers_see_the_last_commit_while_a_writer_is_at_work(database: Database) -> None:
    register_all(database, [received()], QUIET)
    with database.session() as writer:
        writer.execute(text("UPDATE instances SET sha256 = 'changed'"))
        with database.reading() as reader:
            assert reader.scalars(select(Instance.sha256)).all() != ["changed"]


def test_a_writer_goes_on_while_a_reader_streams(database: Database) -> None:
    register_all(database, series_of(3), QUIET)
    with database.reading() as reader:
        rows = reader.execute(select(Instance.id), execution_options={"yield_per": 1})
        next(rows)
        register_all(database, [received()], QUIET)
        assert len(rows.all()) == 2


def test_sqlite_survives_a_power_cut_by_its_settings(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    for transaction in (database.session, database.reading):
        with transaction() as session:
            pragmas = {name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")}
            assert pragmas == {"journal_mode": "wal", "synchronous": 2}
            assert session.scalar(text("PRAGMA foreign_keys")) == 1
    database.dispose()


def test_writers_wait_for_their_turn(database: Database) -> None:
    written = threading.Event()

    def write() -> None:
        register_all(database, [received()], QUIET)
        written.set()

    waiting = threading.Thread(target=write)
    with database.session() as session:
        session.execute(insert(AuditEvent).values(at=received().received_at, kind="test", detail=""))
        waiting.start()
        if database.is_sqlite:
            assert not written.wait(0.5)
    waiting.join(20)
    assert written.is_set()


def test_a_writer_whose_turn_does_not_come_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(f"sqlite:///{tmp_path / 'index.sqlite'}")
    database.upgrade()
    monkeypatch.setattr("thinfilm_gateway.index.database.BUSY_SECONDS", 0.2)
    with database.session() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="locked"):
            register_all(database, [received()], QUIET)
    register_all(database, [received()], QUIET)
    database.dispose()


def test_the_wild_card_searches_of_a_big_index_use_its_indexes(database: Database) -> None:
    from thinfilm_gateway.index.find import Level, Query, Root, _statement

    queries = {
        "ix_study_patients_name_alphabetic": {"PatientName": "doe*"},
        "ix_studies_study_date_folded": {"StudyDate": "20260101-20260107"},
        "ix_studies_accession_number": {"AccessionNumber": "A17*"},
    }
    with database.session() as session:
        if not database.is_sqlite:
            session.execute(text("SET enable_seqscan = off"))  # a handful of rows is not worth an index
        for index, keys in queries.items():
            statement = _statement(session, Query(Level.STUDY, Root.STUDY, keys))
            compiled = statement.compile(session.get_bind(), compile_kwargs={"render_postcompile": True})
            explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            parameters = compiled.params if not database.is_sqlite else tuple(compiled.params.values())
            plan = session.connection().exec_driver_sql(explain + str(compiled), parameters)
            assert index in str(plan.all())


def test_processes_that_upgrade_at_once_agree(own_url: str) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(upgrade, [own_url] * 3))


def test_no_state_but_those_of_the_table_can_be_read(database: Database) -> None:
    register_all(database, [received()], QUIET)
    with database.session() as session:
        session.execute(text("UPDATE jobs SET state = 'lost'"))
    with database.reading() as session, pytest.raises(LookupError):
        session.execute(select(Job.state)).all()


def test_the_journal_stays_a_write_ahead_log_for_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_readers_that_stand_still_hold_up_no_writer(database: Database) -> None:
    with contextlib.ExitStack() as still:
        for _ in range(READERS):
            still.enter_context(database.reading()).execute(text("SELECT 1"))
        with database.session() as session:
            session.execute(text("DELETE FROM jobs"))
