import threading
from pathlib import Path

import numpy as np
import pytest

from support.containers import BytesReader, open_bytes, pack_files
from support.part10_files import slice_samples, write_image, write_series
from thinfilm_gateway.archive.container.cache import FrameCache
from thinfilm_gateway.archive.container.format import FOOTER_BYTES, SECTION_HEADER_BYTES, DamagedContainer, Section
from thinfilm_gateway.archive.container.reader import Container, open_container, sections

ROWS = COLUMNS = 400  # above 256 KiB a slice: one frame a group


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("series"), 6, ROWS, COLUMNS)


@pytest.fixture(scope="module")
def packed(series: list[Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    destination = tmp_path_factory.mktemp("packed") / "x.tfa"
    pack_files(series, destination)
    return destination.read_bytes()


def whole(section: Section) -> tuple[int, int]:
    return section.offset, SECTION_HEADER_BYTES + section.length


def test_one_instance_is_read_by_footer_manifest_its_literals_and_its_frames_alone(
    packed: bytes, series: list[Path]
) -> None:
    reader = BytesReader(packed)
    container = open_container(reader)
    assert container.read_dataset(2) in series[2].read_bytes()
    entry = container.entries[2]
    (run,) = entry.frame_runs
    frames = container.manifest.stacks[run.stack].groups[run.first].section
    literals = container.manifest.literals[0].section
    manifest = list(sections(BytesReader(packed)))[-2][1]
    footer = (len(packed) - FOOTER_BYTES, FOOTER_BYTES)
    assert reader.ranges == [footer, whole(manifest), whole(literals), whole(frames)]


def test_sections_stand_back_to_back_from_the_magic_to_the_footer(packed: bytes) -> None:
    found = list(sections(BytesReader(packed)))
    assert [kind for kind, _ in found] == [b"LITS", *6 * [b"FRMS"], b"MANI", b"MANI"]
    ends = [section.offset + SECTION_HEADER_BYTES + section.length for _, section in found]
    assert [section.offset for _, section in found] == [8, *ends[:-1]]
    assert ends[-1] == len(packed) - FOOTER_BYTES


def test_in_reading_order_each_group_is_read_once(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 40, 100, 100)  # 13 slices a group, in the order against their names
    pack_files(paths, tmp_path / "x.tfa")
    reader = BytesReader((tmp_path / "x.tfa").read_bytes())
    container = open_container(reader, cache=FrameCache(600_000))
    for number in container.reading_order():
        assert b"".join(container.stream(number)) == paths[number].read_bytes()
    assert len(reader.ranges) == len(set(reader.ranges))


def test_a_shared_cache_keeps_containers_apart(tmp_path: Path) -> None:
    cache = FrameCache(10_000_000)
    containers = []
    paths = []
    for name in ("a", "b"):
        paths.append(write_image(tmp_path / name, slice_samples(ord(name))))
        pack_files([paths[-1]], tmp_path / f"{name}.tfa")
        containers.append(open_container(BytesReader((tmp_path / f"{name}.tfa").read_bytes()), f"{name}.tfa", cache))
    for _ in range(2):
        for container, path in zip(containers, paths, strict=True):
            assert b"".join(container.stream(0)) == path.read_bytes()
    assert cache.nbytes > 0


def test_what_was_read_lately_is_not_read_again(packed: bytes) -> None:
    cache = FrameCache(10_000_000)
    first, second = BytesReader(packed), BytesReader(packed)
    open_container(first, "key", cache).read_dataset(0)
    open_container(second, "key", cache).read_dataset(0)
    assert len(first.ranges) == 4
    assert len(second.ranges) == 2


def test_a_cache_never_holds_more_than_its_bytes_and_lets_the_least_recent_go() -> None:
    cache = FrameCache(250)
    loads = []

    def get(key: str, size: int = 100) -> None:
        def load() -> np.ndarray:
            loads.append(key)
            return np.zeros(size, np.uint8)

        assert not cache.start(key, load, 7).result().flags.writeable
        assert cache.nbytes <= 250

    for key in ("a", "b", "a", "c", "a"):
        get(key)
    assert loads == ["a", "b", "c"]
    get("too large", 251)
    get("c")
    get("a")
    assert loads == ["a", "b", "c", "too large"]


def test_what_somebody_holds_is_decoded_once_however_small_the_cache_and_for_all_who_want_it() -> None:
    cache = FrameCache(0)
    loads = []
    release = threading.Event()

    def load() -> np.ndarray:
        release.wait()
        loads.append(1)
        return np.zeros(100, np.uint8)

    wanted = [cache.start("a", load, 7) for _ in range(3)]
    release.set()
    assert len({id(each.result()) for each in wanted}) == 1
    assert cache.start("a", load, 7).result() is wanted[0].result()
    assert loads == [1]
    assert cache.nbytes == 0


def test_what_is_no_work_is_there_at_once_though_all_who_decode_are_busy() -> None:
    cache = FrameCache(1000)
    release = threading.Event()

    def load() -> np.ndarray:
        release.wait()
        return np.zeros(1, np.uint8)

    busy = [cache.start(number, load, 7) for number in range(200)]
    assert len(cache.get("literals", lambda: np.zeros(5, np.uint8))) == 5
    release.set()
    assert all(len(each.result()) == 1 for each in busy)
    with pytest.raises(DamagedContainer):
        cache.get("damaged", _fail)
    assert len(cache.get("damaged", lambda: np.zeros(7, np.uint8))) == 7


def _fail() -> np.ndarray:
    raise DamagedContainer("The disk is away.")


def test_a_group_that_could_not_be_read_is_read_anew_for_the_next() -> None:
    cache = FrameCache(1000)
    failed = cache.start("a", _fail, 7)
    with pytest.raises(DamagedContainer):
        failed.result()
    assert len(cache.start("a", lambda: np.zeros(7, np.uint8), 7).result()) == 7


def test_many_threads_read_one_container(packed: bytes, series: list[Path]) -> None:
    container = open_container(BytesReader(packed), cache=FrameCache(2 * ROWS * COLUMNS * 2))
    wrong: list[int] = []

    def read(offset: int) -> None:
        for step in range(12):
            number = (step * 5 + offset) % 6
            if b"".join(container.stream(number)) != series[number].read_bytes():
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_only_dicom_entries_have_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not an image")
    pack_files([path], tmp_path / "x.tfa")
    with pytest.raises(ValueError, match=r"notes\.txt is not a DICOM file"):
        list(open_bytes((tmp_path / "x.tfa").read_bytes()).stream_dataset(0))


def test_the_file_meta_information_is_not_read_for_the_data_set(packed: bytes, series: list[Path]) -> None:
    container: Container = open_bytes(packed)
    for number, path in enumerate(series):
        dicom = container.entries[number].dicom
        assert dicom is not None
        assert container.read_dataset(number) == path.read_bytes()[dicom.dataset_offset :]
        assert container.samples(number) == ROWS * COLUMNS
