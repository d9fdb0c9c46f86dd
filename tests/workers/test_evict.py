import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest

from support.datasets import ct_series, mr_series
from support.house import House, flip_byte
from thinfilm_gateway.archive import spool
from thinfilm_gateway.archive.space import LEAST_FREE_FILES, Space
from thinfilm_gateway.config import GIB
from thinfilm_gateway.index import cache
from thinfilm_workers.jobs.evict import evict
from thinfilm_workers.jobs.scrub import scrub


def _read(house: House, position: int, minutes_ago: int) -> None:
    with house.context.database.session() as session:
        when = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes_ago)
        cache.touch(session, [house.instances()[position].id], when)


def _file_bytes(house: House) -> int:
    return house.spool_path(house.instances()[-1]).stat().st_size


def test_the_least_recently_read_spool_copies_go_until_the_rest_fits(build_house: Callable[..., House]) -> None:
    house = build_house()
    series = ct_series(4)
    house.receive(series)
    house.work()
    for position, minutes_ago in enumerate((1, 4, 2, 3)):
        _read(house, position, minutes_ago)
    smaller = build_house(cache_bytes=2 * _file_bytes(house) + 100)

    assert evict(smaller.context) == 2

    assert [instance.spool_name is not None for instance in house.instances()] == [True, False, True, False]
    assert house.stray_files() == []
    house.assert_retrievable(series)
    house.assert_archived(series)
    assert evict(smaller.context) == 0


def test_with_too_little_free_space_spool_copies_go_though_the_cache_is_within_its_limit(
    build_house: Callable[..., House],
) -> None:
    house = build_house()
    archived, waiting = ct_series(3), mr_series(2)
    house.receive(archived)
    house.work()
    house.receive(waiting, quiet=dt.timedelta(hours=1))
    assert evict(house.context) == 0

    assert evict(build_house(minimum_free_bytes=2**60).context) == 3

    assert [instance.spool_name is not None for instance in house.instances()] == [False] * 3 + [True] * 2
    house.assert_retrievable([*archived, *waiting])
    assert house.stray_files() == []


def test_only_as_much_is_evicted_as_the_receivers_need_with_a_margin(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build_house(minimum_free_bytes=GIB)
    house.receive(ct_series(4))
    house.work()
    free = GIB + GIB // 4 - 2 * _file_bytes(house) + 100
    space = replace(house.context.spool.space(), free_bytes=free)
    monkeypatch.setattr(house.context.spool, "space", lambda: space)
    assert evict(house.context) == 2


def test_what_is_not_archived_is_never_evicted(build_house: Callable[..., House]) -> None:
    house = build_house(cache_bytes=0)
    house.receive(ct_series(3))
    assert evict(house.context) == 0
    assert len(house.context.settings.spool_dir.rglob("*") and list(house.context.spool.names())) == 3


def test_a_spool_copy_stays_while_its_container_is_not_whole(build_house: Callable[..., House]) -> None:
    house = build_house(cache_bytes=0)
    lost, whole = ct_series(2), mr_series(2)
    house.receive(lost)
    house.work()
    house.receive(whole)
    house.work()
    house.container_path(house.containers()[0].key).write_bytes(b"cut off")

    assert evict(house.context) == 2

    assert [instance.spool_name is not None for instance in house.instances()] == [True, True, False, False]
    scrub(house.context)
    house.work()
    assert evict(house.context) == 2
    house.assert_archived([*lost, *whole])


def test_a_spool_copy_stays_while_its_container_is_rotten(build_house: Callable[..., House]) -> None:
    house = build_house(cache_bytes=0)
    house.receive(series := ct_series(3))
    house.work()
    path = house.container_path(house.containers()[0].key)
    flip_byte(path, path.stat().st_size // 2)
    assert evict(house.context) == 0
    house.assert_retrievable(series)


def test_a_file_that_a_crash_left_after_it_was_forgotten_is_swept_away(build_house: Callable[..., House]) -> None:
    house = build_house()
    series = ct_series(1)
    house.receive(series)
    house.work()
    with house.context.database.session() as session:
        assert cache.forget(session, house.instances()[0].id)
    assert len(house.stray_files()) == 1
    from thinfilm_workers.jobs.sweep import tidy

    tidy(house.context, grace=dt.timedelta(seconds=-1))
    assert house.stray_files() == []
    house.assert_archived(series)


def test_copies_of_what_is_archived_go_where_files_run_short_however_small_they_are(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = ct_series(3)
    house.receive(series)
    house.work()
    assert evict(house.context) == 0
    left = Space(free_bytes=GIB * GIB, free_files=LEAST_FREE_FILES, files=10**6)
    with monkeypatch.context() as patched:
        patched.setattr(spool, "space", lambda place: left)
        assert evict(house.context) == 3
    house.assert_archived(series)
