"""Objects are prepared ahead of their sending, in order, and what they have in common is decoded once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.containers import BytesReader, pack_files
from support.part10_files import write_series
from thinfilm_gateway.archive.container.format import FRAMES
from thinfilm_gateway.archive.container.reader import open_container, sections
from thinfilm_gateway.archive.objects import ObjectLocation, ObjectReader
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import FileReader, FolderStore, RangeReader, new_key
from thinfilm_gateway.dimse.prefetch import Prepared, ReadAhead, Unsendable
from thinfilm_gateway.index.locate import InstanceLocation
from thinfilm_gateway.index.states import InstanceState

SLICES = 40  # of 100 x 100: 13 a group


class WatchedStore(FolderStore):
    """A store that notes what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.offsets: list[int] = []
        self.late: set[int] = set()  # what is read only when `release` is set
        self.release = threading.Event()

    def open(self, key: str) -> RangeReader:
        store = self

        class Watched(FileReader):
            def read(self, offset: int, length: int) -> bytes:
                store.offsets.append(offset)
                if offset in store.late:
                    store.release.wait()
                return super().read(offset, length)

        return Watched(self._path(key))


class Archive:
    """A series in a container, and what tests ask of it."""

    def __init__(self, folder: Path) -> None:
        paths = write_series(folder / "series", SLICES, 100, 100)
        pack_files(paths, folder / "x.tfa")
        self.groups = [
            section.offset for kind, section in sections(BytesReader((folder / "x.tfa").read_bytes())) if kind == FRAMES
        ]
        self.store = WatchedStore(folder / "archive")
        key = new_key()
        self.store.put(key, folder / "x.tfa")
        self.objects = ObjectReader(Spool(folder / "spool"), self.store, decoded_cache_bytes=0)
        with self.store.open(key) as reader:
            container = open_container(reader)
        self.instances = []  # in the order of their groups
        for place, number in enumerate(container.reading_order()):
            entry = container.entries[number]
            assert entry.dicom is not None
            nbytes = entry.file_bytes - entry.dicom.dataset_offset
            location = ObjectLocation(None, key, number, 0, nbytes, entry.dicom.dataset_sha256)
            uid = entry.dicom.sop_instance_uid
            self.instances.append(InstanceLocation(place, uid, "", "", "", InstanceState.ARCHIVED, location))

    def start(self, instance: InstanceLocation) -> list[object]:
        return list(self.objects.start(instance.location))

    def prepare(self, instance: InstanceLocation) -> Prepared:
        with self.objects.fetch(instance.location):  # which compares the SHA-256
            return Unsendable(instance, "fetched")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path)
    yield made
    made.objects.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def taken(ahead: ReadAhead) -> list[InstanceLocation]:
    found = []
    while (prepared := ahead.take()) is not None:
        found.append(prepared.instance)
    return found


def test_a_series_comes_in_order_and_each_group_is_decoded_once_though_nothing_is_cached(
    archive: Archive, pool: ThreadPoolExecutor
) -> None:
    assert len(archive.groups) == 4
    for order in (archive.instances, archive.instances[::-1]):
        archive.store.offsets.clear()
        with ReadAhead(pool, order, archive.start, archive.prepare) as ahead:
            assert taken(ahead) == order
            assert ahead.is_empty
        assert [archive.store.offsets.count(group) for group in archive.groups] == [1, 1, 1, 1]


def test_the_first_object_waits_for_no_group_but_its_own(archive: Archive, pool: ThreadPoolExecutor) -> None:
    archive.store.late = set(archive.groups[1:])
    with ReadAhead(pool, archive.instances, archive.start, archive.prepare) as ahead:
        first = ahead.take()
        archive.store.release.set()
        assert first is not None
        assert [first.instance, *taken(ahead)] == archive.instances


def test_one_slice_costs_its_own_group_and_no_other(archive: Archive, pool: ThreadPoolExecutor) -> None:
    archive.store.offsets.clear()
    with ReadAhead(pool, archive.instances[20:21], archive.start, archive.prepare) as ahead:
        assert taken(ahead) == archive.instances[20:21]
    assert sum(archive.store.offsets.count(group) for group in archive.groups) == 1


def test_what_nobody_took_is_left(archive: Archive, pool: ThreadPoolExecutor) -> None:
    ahead = ReadAhead(pool, archive.instances, archive.start, archive.prepare)
    for _ in range(5):
        ahead.take()
    assert ahead.left() == archive.instances[5:]
    assert ahead.is_empty
    assert ahead.take() is None


def test_several_may_take(archive: Archive, pool: ThreadPoolExecutor) -> None:
    found: list[InstanceLocation] = []
    with ReadAhead(pool, archive.instances, archive.start, archive.prepare) as ahead:
        threads = [threading.Thread(target=lambda: found.extend(taken(ahead))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found, key=lambda one: one.instance_pk) == archive.instances


def test_an_object_that_cannot_be_decoded_ahead_is_told_of_when_it_is_fetched(archive: Archive) -> None:
    place = archive.instances[0].location
    for wrong in (
        ObjectLocation(None, new_key(), 0, 0, 1, ""),
        ObjectLocation(None, place.container_key, 99, 0, 1, ""),
    ):
        assert archive.objects.start(wrong) == []
