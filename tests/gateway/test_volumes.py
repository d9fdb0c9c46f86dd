"""Spool and archive as volumes: nothing is written into an empty mount point, and all goes on when it is back."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.datasets import ct_series, mr_series
from support.gateway import running_gateway
from support.house import House, make_due
from support.receiver import running_receiver, wait_until
from support.scu import Answer, store_all
from thinfilm_gateway import data_folder, volumes
from thinfilm_gateway.archive import mark
from thinfilm_gateway.archive.presence import Presence
from thinfilm_gateway.archive.spool import bytes_under
from thinfilm_gateway.commands import status as command
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.server import Receiver
from thinfilm_gateway.index.database import Database
from thinfilm_gateway.index.ingest import Outcome, register_all
from thinfilm_gateway.index.volumes import ARCHIVE, SPOOL, KnownVolumes, known
from thinfilm_workers.context import Context
from thinfilm_workers.jobs.evict import evict

CT, OTHER_CT = ct_series(2)
STORED = Answer(status.SUCCESS, "")
OVER_QUOTA = Answer(status.OUT_OF_RESOURCES, "The spool has reached its quota.")


@pytest.fixture
def build_house(tmp_path: Path, database_url: str) -> Iterator[Callable[..., House]]:
    """Build the house with settings of one's own, its volumes marked."""
    houses = []

    def build(**overrides: object) -> House:
        houses.append(House.build(tmp_path, **{"database_url": database_url, **overrides}))
        volumes.settle(houses[-1].context.settings, houses[-1].context.database)
        return House(Context.over(houses[-1].context.settings, houses[-1].context.database))

    yield build
    for house in houses:
        house.context.database.dispose()


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Leave an empty folder in the place of this one, as an unmounted volume leaves its mount point."""
    aside = folder.rename(folder.with_name("aside"))
    folder.mkdir()
    yield
    assert list(folder.iterdir()) == [], "Something was written into the mount point."
    folder.rmdir()
    aside.rename(folder)


def marks(house: House) -> dict[str, str]:
    with house.context.database.reading() as session:
        return dict(known(session).marks)


def test_volumes_are_marked_once(build_house: Callable[..., House]) -> None:
    house = build_house()
    settings = house.context.settings
    first = marks(house)
    assert first == {SPOOL: mark.read(settings.spool_dir), ARCHIVE: mark.read(settings.archive_dir)}
    volumes.settle(settings, house.context.database)
    assert marks(house) == first


def test_an_index_that_was_rebuilt_takes_the_marks_over_that_lie_there(
    build_house: Callable[..., House], tmp_path: Path
) -> None:
    house = build_house()
    rebuilt = Database(f"sqlite:///{tmp_path / 'rebuilt.sqlite'}")
    rebuilt.upgrade()
    volumes.settle(house.context.settings, rebuilt)
    with rebuilt.reading() as session:
        assert known(session).marks == marks(house)
    rebuilt.dispose()


def test_an_empty_folder_of_which_the_index_names_files_is_not_marked(tmp_path: Path, database_url: str) -> None:
    house = House.build(tmp_path, database_url=database_url)  # as a version without marks left it
    house.receive([CT])
    settings = house.context.settings
    with away(settings.spool_dir):
        volumes.settle(settings, house.context.database)
        assert SPOOL not in marks(house)
    volumes.settle(settings, house.context.database)
    assert marks(house)[SPOOL] == mark.read(settings.spool_dir)
    house.context.database.dispose()


def test_jobs_wait_for_an_archive_that_is_away_and_go_on_when_it_is_back(build_house: Callable[..., House]) -> None:
    house = build_house(max_attempts=1)
    first, second = ct_series(3), mr_series(2)
    house.receive(first)
    house.work()
    house.receive(second)
    archive = house.context.settings.archive_dir
    with away(archive):
        restarted = House(Context.over(house.context.settings, house.context.database))
        assert restarted.work() == 1
        job = house.jobs()[-1]
        assert (job.state, job.attempts) == ("waiting", 0)
        assert f"{archive} has no mark; mount its volume" in str(job.error)
        told = command.status(house.context.settings).to_json()
        assert told["obstacle"].startswith(f"Nothing is compressed: {archive} has no mark; mount its volume")
        assert told["refusal"] is None
    make_due(house)
    house.work()
    house.assert_archived([*first, *second])


def test_an_object_that_comes_again_while_the_archive_is_away_is_kept_too_and_called_no_loss(
    build_house: Callable[..., House],
) -> None:
    house = build_house(cache_bytes=0)
    house.receive([CT])
    house.work()
    evict(house.context)
    (archived,) = house.instances()
    with away(house.context.settings.archive_dir):
        again = house.spool(CT)
        presence = Presence(house.context.spool, house.context.store)
        assert register_all(house.context.database, [again], dt.timedelta(0), presence=presence) == [Outcome.STORED]
        (row,) = house.instances()
        assert (row.spool_name, row.container_pk) == (again.spool_name, archived.container_pk)
        house.assert_retrievable([CT])
    assert house.audits("copy_lost") == []
    evict(house.context)
    house.assert_archived([CT])


def test_the_archive_of_another_gateway_is_not_written(build_house: Callable[..., House]) -> None:
    house = build_house()
    house.receive([CT])
    archive = house.context.settings.archive_dir
    own = (archive / mark.FILE_NAME).read_bytes()
    mark.write(archive)
    house.work()
    assert house.states() == ["received"]
    assert "has the mark of another gateway" in str(house.jobs()[0].error)
    (archive / mark.FILE_NAME).write_bytes(own)  # what the sentence says to do with a folder that is the right one
    make_due(house)
    house.work()
    house.assert_archived([CT])


def test_objects_are_refused_while_the_spool_is_away_and_taken_when_it_is_back(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        volumes.settle(receiver.settings, receiver.database)
    with running_receiver(tmp_path) as receiver:
        assert store_all(receiver.port, [CT]) == [STORED]
        with away(receiver.settings.spool_dir):
            (answer,) = store_all(receiver.port, [OTHER_CT])
            assert answer.status == status.OUT_OF_RESOURCES
            assert "away" in answer.comment
            restarted = Receiver(receiver.settings)
            restarted.start()
            assert store_all(restarted.port, [OTHER_CT]) == [answer]
            restarted.stop(seconds=5)
        assert store_all(receiver.port, [OTHER_CT]) == [STORED]
        assert len(receiver.instances()) == 2


def test_the_log_and_the_health_page_tell_of_a_volume_that_goes_and_comes_back(tmp_path: Path) -> None:
    with running_gateway(tmp_path, receivers=1, local_workers=0) as gateway:
        archive = gateway.settings.archive_dir
        with away(archive):
            assert "has no mark; mount its volume" in gateway.health()["reason"]
            wait_until(lambda: '"health_warning"' in gateway.log.read_text(), "the log says so")
        assert gateway.health()["status"] == "ok"
        wait_until(lambda: "health_warning_over" in gateway.log.read_text(), "the log says that it is over")


def test_a_spool_that_has_reached_its_quota_refuses_until_there_is_room(tmp_path: Path) -> None:
    with running_receiver(tmp_path, spool_quota_bytes=len(CT.dataset)) as receiver:
        assert store_all(receiver.port, [CT]) == [STORED]
        wait_until(lambda: store_all(receiver.port, [OTHER_CT])[0] == OVER_QUOTA, "objects are refused")
        with receiver.database.reading() as session:
            room = data_folder.room(receiver.settings, known(session))
        assert room.refusal
        assert "spool_quota_bytes" in room.refusal
        for instance in receiver.instances():
            receiver.spool.remove(str(instance.spool_name))
        for name in receiver.spool.resent():  # what was sent before it was refused; no worker looks at it here
            receiver.spool.remove_resent(name)
        wait_until(lambda: store_all(receiver.port, [OTHER_CT])[0] == STORED, "objects are taken again")


def test_copies_of_what_is_archived_make_room_within_the_quota(build_house: Callable[..., House]) -> None:
    series = ct_series(4)
    house = build_house(spool_quota_bytes=3 * len(series[0].dataset))
    house.receive(series)
    house.work()
    assert evict(house.context) >= 2
    assert house.context.spool.used_bytes() <= 3 * len(series[0].dataset) * 7 / 8
    house.assert_archived(series)


def test_an_archive_that_has_reached_its_quota_lets_jobs_wait(build_house: Callable[..., House]) -> None:
    house = build_house(archive_quota_bytes=1)
    first, second = ct_series(2), mr_series(2)
    house.receive(first)
    house.work()
    house.receive(second)
    house.work()
    assert house.states() == ["archived", "archived", "received", "received"]
    assert "archive_quota_bytes is 1; raise it" in str(house.jobs()[-1].error)
    told = command.status(house.context.settings).to_json()
    assert "archive_quota_bytes is 1; raise it" in told["obstacle"]
    make_due(house)
    raised = build_house(archive_quota_bytes=2**40)
    raised.work()
    raised.assert_archived([*first, *second])


def test_the_spool_is_measured_once_for_all_that_is_told_of_it(
    build_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(root: Path) -> int:
        measured.append(bytes_under(root))
        return measured[-1]

    monkeypatch.setattr(data_folder, "bytes_under", measure)
    house = build_house(spool_quota_bytes=10_000)
    house.receive([CT])
    assert "raise spool_quota_bytes" in str(data_folder.room(house.context.settings, KnownVolumes()).warning)
    assert measured == [house.context.spool.used_bytes()]
    without = build_house(spool_quota_bytes=None)
    assert data_folder.room(without.context.settings, KnownVolumes()).warning is None
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("overrides", "container_bytes", "sentence"),
    [
        ({"warning_free_bytes": 2**60}, 0, "make room before objects are refused"),
        ({"spool_quota_bytes": 10_000}, 0, "raise spool_quota_bytes or add workers"),
        ({"archive_quota_bytes": 1000}, 950, "raise archive_quota_bytes"),
        ({"archive_quota_bytes": 1000}, 800, None),
    ],
)
def test_people_are_warned_before_it_comes_to_that(
    tmp_path: Path, overrides: dict[str, int], container_bytes: int, sentence: str | None
) -> None:
    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    database = Database(url)
    database.upgrade()
    database.dispose()
    house = House.build(tmp_path, url, **overrides)
    house.receive([CT])
    assert 9000 < house.context.spool.used_bytes() < 10_000
    room = data_folder.room(house.context.settings, KnownVolumes(container_bytes=container_bytes))
    assert (room.refusal, room.obstacle) == (None, None)
    assert room.warning is sentence or sentence in str(room.warning)
    house.context.database.dispose()
