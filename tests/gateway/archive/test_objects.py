"""Objects come back as they were received, from whichever copy is right, or not at all."""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from support.containers import PLAIN
from support.datasets import EncodedDataSet, ct_series, one_of_each
from thinfilm_gateway.archive.container.pack import Source, pack
from thinfilm_gateway.archive.objects import IntegrityError, ObjectLocation, ObjectReader
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import FolderStore, StorageAway, new_key
from thinfilm_gateway.dicom import part10


class Archive:
    """A spool and a store of objects, without an index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool")
        self.store = FolderStore(folder / "archive")

    def receive(self, encoded: EncodedDataSet) -> ObjectLocation:
        writer = self.spool.create()
        header = part10.build(encoded.sop_class_uid, encoded.sop_instance_uid, encoded.transfer_syntax_uid, "TEST")
        writer.write(header)
        writer.begin_dataset()
        writer.write(encoded.dataset)
        sha256 = writer.sha256
        self.spool.commit([writer])
        return ObjectLocation(writer.name, None, None, len(header), len(encoded.dataset), sha256)

    def compress(self, locations: Sequence[ObjectLocation]) -> list[ObjectLocation]:
        sources = [Source(self.spool.path(str(place.spool_name)), str(place.spool_name)) for place in locations]
        packed = self.folder / "packed.tfa"
        pack(sources, packed, PLAIN)
        key = new_key()
        self.store.put(key, packed)
        return [replace(place, container_key=key, container_entry=entry) for entry, place in enumerate(locations)]

    def reader(self, **options: int) -> ObjectReader:
        return ObjectReader(self.spool, self.store, 1024**2, **options)

    def damage_spool(self, location: ObjectLocation) -> None:
        flip(self.spool.path(str(location.spool_name)), location.dataset_offset + location.dataset_bytes - 2)

    def damage_container(self, location: ObjectLocation) -> None:
        path = self.folder / "archive" / str(location.container_key)
        for offset in range(100, path.stat().st_size // 2, 97):
            flip(path, offset)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x55
    path.write_bytes(content)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def series() -> list[EncodedDataSet]:
    return ct_series(6, 32)


@pytest.fixture(params=[1024**2 * 64, 100], ids=["in memory", "mapped"])
def large_object_bytes(request: pytest.FixtureRequest) -> Iterator[int]:
    return request.param


@pytest.mark.parametrize("name", one_of_each())
def test_an_object_of_any_kind_comes_back_from_the_spool_and_from_a_container(
    archive: Archive, large_object_bytes: int, name: str
):
    encoded = one_of_each()[name]
    reader = archive.reader(large_object_bytes=large_object_bytes)
    spooled = archive.receive(encoded)
    (archived,) = archive.compress([spooled])
    for location in (spooled, archived, replace(archived, spool_name=None)):
        with reader.fetch(location) as fetched:
            assert bytes(fetched.dataset) == encoded.dataset
            assert fetched.damages == ()
    reader.close()


@pytest.mark.parametrize("cached", [True, False])
def test_a_large_object_is_mapped_and_its_bytes_live_until_they_are_let_go(
    archive: Archive, series: list[EncodedDataSet], cached: bool
):
    (archived,) = archive.compress([archive.receive(series[0])])
    reader = archive.reader(large_object_bytes=100)
    fetched = reader.fetch(archived if cached else replace(archived, spool_name=None))
    archive.spool.remove(str(archived.spool_name))
    reader.close()
    assert isinstance(fetched.dataset.obj, mmap.mmap)
    assert bytes(fetched.dataset) == series[0].dataset
    fetched.close()


def test_a_damaged_spool_copy_is_passed_over_and_told_of(archive: Archive, series: list[EncodedDataSet]):
    (archived,) = archive.compress([archive.receive(series[0])])
    archive.damage_spool(archived)
    with archive.reader().fetch(archived) as fetched:
        assert bytes(fetched.dataset) == series[0].dataset
        assert fetched.damages == ("The spool copy does not have the SHA-256 of what was received.",)


def test_a_spool_copy_that_the_cache_just_let_go_is_read_from_the_container(
    archive: Archive, series: list[EncodedDataSet]
):
    (archived,) = archive.compress([archive.receive(series[0])])
    archive.spool.remove(str(archived.spool_name))
    with archive.reader().fetch(archived) as fetched:
        assert bytes(fetched.dataset) == series[0].dataset


def test_a_damaged_container_is_passed_over_while_the_spool_copy_lives(archive: Archive, series: list[EncodedDataSet]):
    (archived,) = archive.compress([archive.receive(series[0])])
    archive.damage_container(archived)
    with archive.reader().fetch(archived) as fetched:
        assert bytes(fetched.dataset) == series[0].dataset


def test_with_both_copies_damaged_nothing_comes_back(
    archive: Archive, series: list[EncodedDataSet], large_object_bytes: int
):
    (archived,) = archive.compress([archive.receive(series[0])])
    archive.damage_container(archived)
    archive.damage_spool(archived)
    reader = archive.reader(large_object_bytes=large_object_bytes)
    with pytest.raises(IntegrityError, match="SHA-256"):
        reader.fetch(archived)
    reader.close()


@pytest.mark.parametrize("change", [-2, 2])
def test_a_spool_copy_of_another_length_is_damaged(archive: Archive, series: list[EncodedDataSet], change: int):
    spooled = archive.receive(series[0])
    with archive.spool.path(str(spooled.spool_name)).open("r+b") as file:
        file.truncate(file.seek(0, 2) + change)
    with pytest.raises(IntegrityError):
        archive.reader().fetch(spooled)


def test_an_object_without_any_copy_is_an_integrity_error(archive: Archive, series: list[EncodedDataSet]):
    spooled = archive.receive(series[0])
    archive.compress([archive.receive(series[1])])  # neither spool nor archive is empty
    archive.spool.remove(str(spooled.spool_name))
    with pytest.raises(IntegrityError, match="missing"):
        archive.reader().fetch(spooled)
    with pytest.raises(IntegrityError, match="no copy"):
        archive.reader().fetch(replace(spooled, spool_name=None))
    with pytest.raises(IntegrityError, match="container is missing"):
        archive.reader().fetch(replace(spooled, spool_name=None, container_key=new_key(), container_entry=0))


@pytest.mark.parametrize("place", ["spool", "archive"])
@pytest.mark.parametrize("mount_point", [True, False], ids=["empty", "absent"])
def test_an_object_is_not_called_lost_while_all_of_its_store_is_away(
    archive: Archive, series: list[EncodedDataSet], place: str, mount_point: bool
):
    spooled = archive.receive(series[0])
    location = spooled if place == "spool" else replace(archive.compress([spooled])[0], spool_name=None)
    folder = archive.folder / place
    aside = folder.rename(archive.folder / "aside")
    if mount_point:
        folder.mkdir()
    reader = archive.reader()
    with pytest.raises(StorageAway, match=f"The {place} is empty .* mounted"):
        reader.fetch(location)
    if mount_point:
        folder.rmdir()
    aside.rename(folder)
    assert digest(reader, location) == location.sha256
    reader.close()


def test_an_object_with_one_damaged_copy_is_not_called_lost_while_the_other_store_is_away(
    archive: Archive, series: list[EncodedDataSet]
):
    (archived,) = archive.compress([archive.receive(series[0])])
    archive.damage_spool(archived)
    (archive.folder / "archive").rename(archive.folder / "aside")
    with pytest.raises(StorageAway):
        archive.reader().fetch(archived)


@pytest.mark.parametrize("entry", [1, 6])
def test_another_entry_of_the_container_is_never_taken_for_the_object(
    archive: Archive, series: list[EncodedDataSet], entry: int
):
    archived = archive.compress([archive.receive(encoded) for encoded in series])[0]
    with pytest.raises(IntegrityError, match="index says"):
        archive.reader().fetch(replace(archived, spool_name=None, container_entry=entry))


def test_many_threads_read_through_one_reader(archive: Archive, series: list[EncodedDataSet]):
    locations = archive.compress([archive.receive(encoded) for encoded in series])
    wanted = [replace(location, spool_name=None) for location in locations] * 10
    reader = archive.reader()
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda location: digest(reader, location), wanted))
    assert digests == [location.sha256 for location in wanted]
    reader.close()


def test_only_so_many_containers_stay_open(archive: Archive):
    locations = [archive.compress([archive.receive(one)])[0] for one in ct_series(20, 16)]
    reader = archive.reader()
    before = open_files()
    for location in locations:
        assert digest(reader, replace(location, spool_name=None)) == location.sha256
    assert open_files() - before <= 16
    reader.close()
    assert open_files() <= before


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def digest(reader: ObjectReader, location: ObjectLocation) -> str:
    with reader.fetch(location) as fetched:
        return hashlib.sha256(fetched.dataset).hexdigest()
