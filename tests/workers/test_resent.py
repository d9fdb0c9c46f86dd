"""An object that comes again stays until the copy that was kept is read: it may be rotten."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete

from support.datasets import ct_series
from support.house import House, flip_byte, make_due
from thinfilm_gateway.archive.store import StorageAway
from thinfilm_gateway.index.ingest import Outcome
from thinfilm_gateway.index.models import Instance, Job
from thinfilm_workers.jobs.resent import check_resent
from thinfilm_workers.jobs.sweep import tidy

SERIES = ct_series(3)


def container(house: House) -> Path:
    return house.container_path(house.containers()[0].key)


def rot(path: Path) -> None:
    flip_byte(path, path.stat().st_size // 2)


def test_what_comes_again_goes_once_the_kept_copy_in_the_spool_was_read(house: House) -> None:
    house.receive(SERIES)
    assert house.receive(SERIES) == [Outcome.IDENTICAL] * 3
    assert len(house.context.spool.resent()) == 3
    check_resent(house.context)
    assert house.context.spool.resent() == []
    house.assert_retrievable(SERIES)
    assert house.audits("healed") == []


def test_what_comes_again_goes_once_the_kept_copy_in_the_archive_was_read(house: House) -> None:
    house.archive_alone(SERIES)
    assert house.receive(SERIES) == [Outcome.IDENTICAL] * 3
    check_resent(house.context)
    assert house.stray_files() == []
    house.assert_archived(SERIES)


def test_what_comes_again_heals_a_rotten_copy_in_the_spool(house: House) -> None:
    house.receive(SERIES)
    rot(house.spool_path(house.instances()[1]))
    assert house.receive(SERIES) == [Outcome.IDENTICAL] * 3
    check_resent(house.context)
    house.assert_retrievable(SERIES)
    assert [event.sop_instance_uid for event in house.audits("healed")] == [SERIES[1].sop_instance_uid]
    make_due(house)
    house.work()
    house.assert_archived(SERIES)


@pytest.mark.parametrize("damage", [rot, lambda path: path.write_bytes(bytes(path.stat().st_size))])
def test_what_comes_again_heals_a_rotten_copy_in_the_archive(house: House, damage: Callable[[Path], object]) -> None:
    house.archive_alone(SERIES)
    damage(container(house))
    assert house.receive(SERIES) == [Outcome.IDENTICAL] * 3
    check_resent(house.context)
    house.assert_retrievable(SERIES)
    make_due(house)
    house.work()
    house.assert_archived(SERIES)


def test_what_comes_again_heals_a_rotten_container_though_the_cached_copy_is_right(house: House) -> None:
    house.receive(SERIES)
    house.work()
    rot(container(house))
    house.receive(SERIES)
    check_resent(house.context)
    make_due(house)
    house.work()
    house.assert_archived(SERIES)


def test_what_comes_again_stays_while_the_archive_is_away(house: House, tmp_path: Path) -> None:
    house.archive_alone(SERIES)
    house.receive(SERIES)
    archive = house.context.settings.archive_dir
    archive.rename(tmp_path / "unmounted")
    archive.mkdir()
    with pytest.raises(StorageAway):
        check_resent(house.context)
    assert len(house.context.spool.resent()) == 3
    shutil.rmtree(archive)
    (tmp_path / "unmounted").rename(archive)
    check_resent(house.context)
    assert house.stray_files() == []


def test_what_comes_again_and_rots_itself_takes_nothing_along(house: House) -> None:
    house.archive_alone(SERIES)
    house.receive(SERIES[:1])
    (name,) = house.context.spool.resent()
    rot(house.context.spool.resent_path(name))
    check_resent(house.context)
    assert house.context.spool.resent() == []
    house.assert_archived(SERIES)


def test_of_two_rotten_copies_none_is_thrown_away(house: House) -> None:
    house.receive(SERIES[:1])
    rot(house.spool_path(house.instances()[0]))
    house.receive(SERIES[:1])
    (name,) = house.context.spool.resent()
    rot(house.context.spool.resent_path(name))
    check_resent(house.context)
    assert house.context.spool.resent() == [name]


def test_what_came_again_is_entered_where_the_index_was_restored_from_before_it_came(house: House) -> None:
    house.receive(SERIES)
    house.receive(SERIES)
    for instance in house.instances():
        house.context.spool.remove(str(instance.spool_name))
    with house.context.database.session() as session:
        session.execute(delete(Job))
        session.execute(delete(Instance))
    check_resent(house.context)
    house.assert_retrievable(SERIES)


def test_tidy_looks_at_what_came_again_too(house: House) -> None:
    house.receive(SERIES)
    rot(house.spool_path(house.instances()[0]))
    house.receive(SERIES)
    tidy(house.context)
    house.assert_retrievable(SERIES)
    assert house.context.spool.resent() == []


def test_what_came_again_counts_against_the_quota_of_the_spool(house: House) -> None:
    house.receive(SERIES)
    once = house.context.spool.used_bytes()
    house.receive(SERIES)
    assert house.context.spool.used_bytes() == 2 * once
