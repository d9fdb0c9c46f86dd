import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete

from support.datasets import ct_series
from support.house import House, flip_byte, make_due
from thinfilm_gateway.archive.objects import IntegrityError
from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.ingest import Outcome
from thinfilm_gateway.index.models import Job
from thinfilm_workers.jobs.sweep import GRACE, sweep, tidy

LONG_AGO = dt.datetime.now(dt.UTC) - 2 * GRACE
A_MOMENT = dt.timedelta(0)


def _age(path: Path) -> None:
    os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))


def _take(house: House, lease: dt.timedelta) -> None:
    """Take the due job as a worker that then falls silent."""
    with house.context.database.session() as session:
        assert jobs.claim(session, "silent worker", lease, [jobs.COMPRESS_CPU]) is not None


def test_the_job_of_a_silent_worker_comes_back(house: House) -> None:
    series = ct_series(2)
    house.receive(series)
    _take(house, lease=dt.timedelta(seconds=-1))
    sweep(house.context)
    (job,) = house.jobs()
    assert job.state == "waiting"
    assert "silent worker" in str(job.error)
    make_due(house)
    house.work()
    house.assert_archived(series)


def test_the_job_of_a_worker_that_renews_its_lease_is_left_alone(house: House) -> None:
    house.receive(ct_series(2))
    _take(house, lease=dt.timedelta(minutes=1))
    sweep(house.context)
    assert house.jobs()[0].state == "running"


def test_a_job_whose_workers_all_fell_silent_leaves_its_instances_as_received(
    build_house: Callable[..., House],
) -> None:
    house = build_house(max_attempts=1)
    series = ct_series(2)
    house.receive(series)
    _take(house, lease=dt.timedelta(seconds=-1))
    sweep(house.context)
    assert house.states() == ["as_received"] * 2
    house.assert_retrievable(series)


def test_a_series_that_was_received_before_the_clock_was_set_back_is_compressed(
    build_house: Callable[..., House],
) -> None:
    house = build_house(series_quiet_seconds=0)
    series = ct_series(2)
    house.receive(series, quiet=dt.timedelta(days=3650))  # due when the clock said so, ten years ahead
    assert house.work() == 0
    sweep(house.context)
    assert house.work() == 1
    house.assert_archived(series)


def test_a_series_that_lost_its_job_gets_one(house: House) -> None:
    series = ct_series(2)
    house.receive(series)
    with house.context.database.session() as session:
        session.execute(delete(Job))
    sweep(house.context)
    house.work()
    house.assert_archived(series)
    sweep(house.context)
    assert [job.state for job in house.jobs()] == ["done"]


def test_a_spool_file_without_a_row_is_adopted_with_sender_and_time(house: House) -> None:
    (encoded,) = ct_series(1)
    received = house.spool(encoded, "SCANNER")
    _age(house.context.spool.path(str(received.spool_name)))

    tidy(house.context)

    (instance,) = house.instances()
    assert (instance.sender_ae_title, instance.sender_address) == ("SCANNER", "192.0.2.7")
    assert instance.received_at == received.received_at
    assert instance.sha256 == received.sha256
    house.work()
    house.assert_archived([encoded])


def test_a_damaged_spool_file_is_adopted_as_what_it_was_and_never_served(house: House) -> None:
    encoded, sound = ct_series(2)
    received = house.spool(encoded)
    path = house.context.spool.path(str(received.spool_name))
    flip_byte(path, -100)
    _age(path)
    _age(house.context.spool.path(str(house.spool(sound).spool_name)))

    for _ in range(2):
        tidy(house.context)

    rows = {row.sop_instance_uid: row for row in house.instances()}
    damaged = rows[encoded.sop_instance_uid]
    assert (damaged.state, damaged.sha256) == ("quarantined", received.sha256)
    assert rows[sound.sop_instance_uid].state == "received"
    assert [event.sop_instance_uid for event in house.audits("quarantined")] == [encoded.sop_instance_uid]
    with pytest.raises(IntegrityError):
        house.assert_retrievable([encoded])
    assert path.exists()
    assert house.receive([encoded]) == [Outcome.STORED]
    house.work()
    house.assert_archived([encoded, sound])


def test_a_damaged_spool_file_of_an_object_that_is_kept_changes_nothing(house: House) -> None:
    (encoded,) = ct_series(1)
    house.receive([encoded])
    path = house.context.spool.path(str(house.spool(encoded).spool_name))
    flip_byte(path, -100)
    _age(path)
    tidy(house.context)
    assert house.states() == ["received"]
    house.assert_retrievable([encoded])


def test_a_spool_file_whose_kept_copy_is_gone_takes_its_place(house: House) -> None:
    (encoded,) = ct_series(1)
    house.receive([encoded])
    house.spool_path(house.instances()[0]).unlink()
    _age(house.context.spool.path(str(house.spool(encoded).spool_name)))
    tidy(house.context)
    assert len(house.audits("copy_lost")) == 1
    house.assert_retrievable([encoded])


def test_a_file_that_cannot_be_looked_at_keeps_nothing_from_being_tidied(house: House) -> None:
    (encoded,) = ct_series(1)
    for name in ("00" + "a" * 94, "ff" + "a" * 94):  # before and behind the good one
        house.context.spool.path(name).mkdir()
        _age(house.context.spool.path(name))
    _age(house.context.spool.path(str(house.spool(encoded).spool_name)))
    folder, temporary = house.context.work_dir / "folder", house.context.work_dir / "temporary"
    folder.mkdir()
    temporary.touch()
    _age(folder)
    _age(temporary)

    tidy(house.context)

    house.assert_retrievable([encoded])
    assert not temporary.exists()


def test_a_young_spool_file_is_left_to_the_receiver_that_is_about_to_enter_it(house: House) -> None:
    house.spool(ct_series(1)[0])
    tidy(house.context)
    assert house.instances() == []
    assert len(house.stray_files()) == 1


def test_a_spool_file_that_is_kept_already_is_removed(house: House) -> None:
    (encoded,) = ct_series(1)
    assert house.receive([encoded]) == [Outcome.STORED]
    _age(house.context.spool.path(str(house.spool(encoded).spool_name)))
    tidy(house.context)
    assert house.stray_files() == []
    house.assert_retrievable([encoded])


def test_a_spool_file_that_is_not_dicom_is_left_where_it_is(house: House) -> None:
    path = house.context.spool.path("ab" * 48)
    for content in (b"", b"not DICOM"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        _age(path)
        tidy(house.context)
        assert path.exists()


def test_what_crashes_left_of_a_container_in_the_making_is_removed_after_the_grace_time_only(house: House) -> None:
    half = house.context.work_dir / ".half.part"
    half.write_bytes(b"half of a container")
    tidy(house.context)
    assert house.stray_files() == [half]
    _age(half)
    tidy(house.context)
    assert house.stray_files() == []
