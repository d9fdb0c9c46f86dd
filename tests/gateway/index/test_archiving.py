import datetime as dt

import pytest
from sqlalchemy import select

from support.received import EARLY, QUIET, received, series_of, uids
from thinfilm_gateway.index import archiving, audit, cache, jobs
from thinfilm_gateway.index.archiving import Placement
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Received, register_all
from thinfilm_gateway.index.models import AuditEvent, Container, Instance, Series
from thinfilm_gateway.index.states import ForbiddenTransition, InstanceState
from thinfilm_gateway.index.status import Problem, problems, summary
from thinfilm_gateway.index.transitions import move_instances


def series_pk_of(database: Database, one: Received) -> int:
    with database.reading() as session:
        statement = select(Instance.series_pk).where(Instance.sop_instance_uid == one.sop_instance_uid)
        return session.scalars(statement).first() or 0


def instance(database: Database, one: Received) -> Instance:
    with database.reading() as session:
        statement = select(Instance).where(Instance.sop_instance_uid == one.sop_instance_uid, Instance.current)
        return session.scalars(statement).one()


def archive(database: Database, batch: list[Received], key: str = "key") -> list[int]:
    with database.session() as session:
        waiting = archiving.pending(session, series_pk_of(database, batch[0]))
        placements = [Placement(one.instance_pk, entry, 100 + entry) for entry, one in enumerate(waiting)]
        return archiving.record_container(session, key, 1000, ["jpegls", "zstd"], placements, EARLY)


def states(database: Database) -> list[InstanceState]:
    with database.reading() as session:
        return list(session.scalars(select(Instance.state).order_by(Instance.id)))


def event_kinds(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(AuditEvent.kind).order_by(AuditEvent.id)))


def test_what_waits_is_given_in_the_order_of_arrival_with_what_packing_needs(database: Database) -> None:
    batch = series_of(3)
    register_all(database, [*batch, received()], QUIET)
    with database.reading() as session:
        waiting = archiving.pending(session, series_pk_of(database, batch[0]))
    assert [one.sop_instance_uid for one in waiting] == uids(batch)
    assert [(one.spool_name, one.sha256, one.dataset_bytes, one.dataset_offset) for one in waiting] == [
        (one.spool_name, one.sha256, one.dataset_bytes, one.dataset_offset) for one in batch
    ]


def test_further_revisions_wait_for_the_archive_too(database: Database) -> None:
    first = received(b"first")
    register_all(database, [first, received(b"second", first.attributes)], QUIET)
    with database.reading() as session:
        assert len(archiving.pending(session, series_pk_of(database, first))) == 2


def test_a_container_becomes_the_home_of_its_instances(database: Database) -> None:
    batch = series_of(2)
    register_all(database, batch, QUIET)
    taken = archive(database, batch)
    assert taken == [instance(database, one).id for one in batch]
    second = instance(database, batch[1])
    assert (second.state, second.container_entry, second.stored_bytes) == (InstanceState.ARCHIVED, 1, 101)
    assert second.spool_name == batch[1].spool_name  # the spool copy stays, as a cache
    with database.reading() as session:
        container = session.scalars(select(Container)).one()
        assert (container.id, container.key, container.codecs) == (second.container_pk, "key", "jpegls,zstd")
        assert container.verified_at == EARLY
        assert archiving.pending(session, second.series_pk) == []


def test_a_second_container_takes_only_what_has_no_home(database: Database) -> None:
    batch = series_of(2)
    register_all(database, batch, QUIET)
    with database.reading() as session:
        waiting = archiving.pending(session, series_pk_of(database, batch[0]))
    placements = [Placement(one.instance_pk, entry, 1) for entry, one in enumerate(waiting)]
    with database.session() as session:
        archiving.record_container(session, "first", 10, [], placements[:1])
    with database.session() as session:
        assert archiving.record_container(session, "second", 10, [], placements) == [waiting[1].instance_pk]
        assert archiving.record_container(session, "third", 10, [], placements) == []
    with database.reading() as session:
        assert sorted(session.scalars(select(Container.key))) == ["first", "second"]


def test_what_is_given_up_stays_as_received_and_is_listed(database: Database) -> None:
    batch = series_of(2)
    register_all(database, batch, QUIET, EARLY)
    with database.session() as session:
        job = jobs.claim(session, "worker", QUIET, [jobs.COMPRESS_CPU], EARLY + QUIET)
        assert job is not None
        jobs.fail(session, job.id, "worker", "The disk is full.", 1)
        assert archiving.give_up(session, job.series_pk or 0, "The disk is full.") == 2
    assert states(database) == [InstanceState.AS_RECEIVED] * 2
    assert event_kinds(database) == ["left_as_received"] * 2
    with database.reading() as session:
        found = problems(session)
        assert Problem("as_received", batch[0].sop_instance_uid, "The disk is full.") in found
        assert [one.reason for one in found if one.kind == "failed_job"] == ["The disk is full."]
        assert len(problems(session, limit=1)) == 2
        numbers = summary(session)
    assert (numbers.jobs_failed, numbers.as_received, numbers.needs_a_hand) == (1, 2, True)


def test_nothing_is_given_up_while_late_arrivals_will_try_again(database: Database) -> None:
    batch = series_of(1)
    register_all(database, batch, QUIET)
    with database.session() as session:
        assert archiving.give_up(session, series_pk_of(database, batch[0]), "It failed.") == 0
    assert states(database) == [InstanceState.RECEIVED]


def test_a_quarantined_instance_is_marked_once(database: Database) -> None:
    one = received()
    register_all(database, [one], QUIET)
    pk = instance(database, one).id
    with database.session() as session:
        assert archiving.quarantine(session, pk, "Its SHA-256 is wrong.")
        assert not archiving.quarantine(session, pk, "Its SHA-256 is wrong.")
        assert not archiving.quarantine(session, pk + 1, "It does not exist.")
    assert states(database) == [InstanceState.QUARANTINED]
    assert event_kinds(database) == ["quarantined"]
    with database.reading() as session:
        assert problems(session) == [Problem("quarantined", one.sop_instance_uid, "Its SHA-256 is wrong.")]
    assert archive(database, [one]) == []


def test_states_change_only_as_the_table_says(database: Database) -> None:
    one = received()
    register_all(database, [one], QUIET)
    archive(database, [one])
    with database.session() as session, pytest.raises(ForbiddenTransition, match="archived to received"):
        move_instances(session, [1], InstanceState.ARCHIVED, InstanceState.RECEIVED)


def test_the_cache_holds_the_spool_copies_of_archived_instances_only(database: Database) -> None:
    archived, waiting = series_of(3), series_of(1)
    register_all(database, [*archived, *waiting], QUIET)
    archive(database, archived)
    with database.reading() as session:
        copies = cache.least_recently_read(session)
        assert {copy.spool_name for copy in copies} == {one.spool_name for one in archived}
        assert cache.cached_bytes(session) == sum(copy.file_bytes for copy in copies) == 3 * (300 + 16)


def test_what_was_read_last_leaves_the_cache_last(database: Database) -> None:
    batch = series_of(3)
    register_all(database, batch, QUIET)
    archive(database, batch)
    first, second, third = (instance(database, one).id for one in batch)
    with database.session() as session:
        cache.touch(session, [first], EARLY + dt.timedelta(minutes=2))
        cache.touch(session, [third], EARLY + dt.timedelta(minutes=1))
        cache.touch(session, [])
        assert [copy.instance_pk for copy in cache.least_recently_read(session)] == [second, third, first]
        assert [copy.instance_pk for copy in cache.least_recently_read(session, limit=1)] == [second]


def test_only_what_is_proven_elsewhere_is_forgotten(database: Database) -> None:
    archived, waiting = received(), received()
    register_all(database, [archived, waiting], QUIET)
    archive(database, [archived])
    with database.session() as session:
        assert not cache.forget(session, instance(database, waiting).id)
        assert cache.forget(session, instance(database, archived).id)
        assert not cache.forget(session, instance(database, archived).id)
        assert cache.cached_bytes(session) == 0
    assert instance(database, archived).spool_name is None
    assert instance(database, waiting).spool_name == waiting.spool_name


def test_the_summary_counts_everything(database: Database) -> None:
    first = received(b"first")
    batch = series_of(3)
    register_all(database, [*batch, first, received(b"second!", first.attributes)], QUIET, EARLY)
    archive(database, batch)
    with database.reading() as session:
        numbers = summary(session, EARLY + QUIET).to_json()
    assert numbers == {
        "patients": 1,
        "studies": 2,
        "series": 2,
        "instances": 5,
        "conflicts": 1,
        "lossy": 0,
        "retired": 0,
        "received": 2,
        "archived": 3,
        "as_received": 0,
        "quarantined": 0,
        "containers": 1,
        "jobs_waiting": 2,
        "jobs_due": 2,
        "jobs_running": 0,
        "jobs_failed": 0,
        "commitments_waiting": 0,
        "commitments_failed": 0,
        "oldest_due": (EARLY + QUIET).isoformat(),
    }


def test_an_empty_index_has_nothing_and_needs_nothing(database: Database) -> None:
    with database.reading() as session:
        numbers = summary(session)
        assert problems(session) == []
    assert not numbers.needs_a_hand
    assert set(numbers.to_json().values()) == {0, None}


def test_an_audit_event_is_part_of_the_transaction_it_tells_of(database: Database) -> None:
    with database.session() as session:
        audit.record(session, "test", "1.2.3", "SCANNER", "A sentence with a NUL \0.", EARLY)
    with database.session() as session:
        audit.record(session, "undone")
        session.rollback()
    with database.reading() as session:
        (event,) = session.scalars(select(AuditEvent))
        assert (event.at, event.kind, event.sop_instance_uid, event.peer) == (EARLY, "test", "1.2.3", "SCANNER")
        assert session.scalars(select(Series)).all() == []
