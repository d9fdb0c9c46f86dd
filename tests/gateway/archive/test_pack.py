import hashlib
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from support.containers import PLAIN, open_bytes, pack_files
from support.part10_files import SERIES_UID, slice_samples, write_image, write_series
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_gateway.archive.container.format import STACK_LIMIT, FrameRun, MissingDecoder
from thinfilm_gateway.archive.container.pack import CannotPack, Source, pack
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.dicom.part10 import locate
from thinfilm_gateway.policy.lossless import treatment

MIB = 1024 * 1024

CODECS = [codec for codec in registry.names() if codec != "nagoor"]  # which needs a minute for a few slices

BUNDLED = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_padded.dcm",
    "MR_small_RLE.dcm",
    "MR_truncated.dcm",
    "JPEG2000.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "liver_expb_1frame.dcm",
    "rtdose.dcm",
    "rtplan_truncated.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
    "no_meta.dcm",
    "README.txt",
)


def bundled_files() -> list[Path]:
    return [Path(str(get_testdata_file(name, download=False))) for name in BUNDLED]


def contents(container: Path) -> dict[str, bytes]:
    opened = open_bytes(container.read_bytes())
    return {entry.name: b"".join(opened.stream(number)) for number, entry in enumerate(opened.entries)}


@pytest.mark.parametrize("codec", CODECS)
def test_real_files_come_back_byte_for_byte_with_every_codec(tmp_path: Path, codec: str) -> None:
    paths = bundled_files()
    report = pack_files(paths, tmp_path / "x.tfa", [codec])
    assert contents(tmp_path / "x.tfa") == {path.name: path.read_bytes() for path in paths}
    assert not report.codec_failures
    assert report.archive_bytes == (tmp_path / "x.tfa").stat().st_size
    assert open_bytes((tmp_path / "x.tfa").read_bytes()).verify() == []


def test_an_entry_keeps_what_the_index_needs(tmp_path: Path) -> None:
    path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    pack_files([path], tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    (entry,) = container.entries
    assert entry.dicom is not None
    assert entry.dicom.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert entry.dicom.sop_instance_uid == "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
    assert entry.dicom.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert entry.dicom.modality == "CT"
    assert entry.file_bytes == path.stat().st_size
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    dataset = path.read_bytes()[entry.dicom.dataset_offset :]
    assert entry.dicom.dataset_sha256 == hashlib.sha256(dataset).hexdigest()
    assert container.read_dataset(0) == dataset


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    paths = [*write_series(tmp_path / "series", 12), *bundled_files()]
    pack_files(paths, tmp_path / "one.tfa")
    pack_files(paths, tmp_path / "two.tfa")
    assert (tmp_path / "one.tfa").read_bytes() == (tmp_path / "two.tfa").read_bytes()


def test_slices_are_coded_in_the_order_of_their_place_in_the_patient(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 30)  # names run against the place
    random.Random(1).shuffle(paths)
    pack_files(paths, tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    (stack,) = container.manifest.stacks
    assert stack.layout == BlockLayout(30, 24, 20, 1, "int16")
    order = {entry.name: entry.frame_runs[0].first for entry in container.entries}
    assert order == {f"{30 - number:03}.dcm": number for number in range(30)}


def test_slices_without_a_place_are_coded_by_instance_number(tmp_path: Path) -> None:
    paths = [
        write_image(tmp_path / f"{number}.dcm", slice_samples(number), InstanceNumber=100 - number)
        for number in range(6)
    ]
    pack_files(paths, tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert [entry.frame_runs[0].first for entry in container.entries] == [5, 4, 3, 2, 1, 0]


def test_series_do_not_share_a_stack_nor_do_sizes(tmp_path: Path) -> None:
    paths = [
        write_image(tmp_path / "a.dcm", slice_samples(1), series_uid="2.25.1"),
        write_image(tmp_path / "b.dcm", slice_samples(2), series_uid="2.25.2"),
        write_image(tmp_path / "c.dcm", slice_samples(3, rows=8), series_uid="2.25.2"),
        write_image(tmp_path / "d.dcm", slice_samples(4), series_uid="2.25.2"),
    ]
    report = pack_files(paths, tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert [stack.layout.frames for stack in container.manifest.stacks] == [1, 2, 1]
    assert [(row.series_instance_uid, row.instances) for row in report.series] == [("2.25.1", 1), ("2.25.2", 3)]


def test_the_report_counts_samples_and_coded_bytes(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    report = pack_files([*write_series(tmp_path / "series", 10), text], tmp_path / "x.tfa")
    image, rest = report.series
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    coded = sum(group.section.length for stack in container.manifest.stacks for group in stack.groups)
    assert (image.series_instance_uid, image.modality, image.instances) == (SERIES_UID, "CT", 10)
    assert (image.codec, image.preset) == ("jpegls", "fast")
    assert (image.pixels, image.native_pixel_bytes) == (10 * 24 * 20, 10 * 24 * 20 * 2)
    assert image.coded_pixel_bytes == coded
    assert image.bits_per_pixel == pytest.approx(8 * coded / image.pixels)
    assert (rest.codec, rest.pixels, rest.coded_pixel_bytes, rest.bits_per_pixel) == ("zstd", 0, 0, None)
    assert report.codecs == ("jpegls",)
    assert sum(entry.stored_bytes for entry in report.entries) == pytest.approx(report.archive_bytes, abs=11)


def test_progress_adds_up_to_the_bytes_of_the_files(tmp_path: Path) -> None:
    paths = [*write_series(tmp_path / "series", 10), *bundled_files()]
    told: list[int] = []
    pack([Source(path, path.name) for path in paths], tmp_path / "x.tfa", PLAIN, told.append)
    assert min(told) >= 0
    assert sum(told) == sum(path.stat().st_size for path in paths)


class Faulty(Codec):
    """A codec that goes wrong in the way it is told."""

    codec_id = "faulty"

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def supports(self, layout: BlockLayout) -> bool:
        return True

    def frames_per_group(self, layout: BlockLayout) -> int:
        return 2

    def prepare(self, stack: PixelBlock) -> bytes:
        if self.fault == "prepare":
            raise MemoryError("no room for the model")
        return b"shared by all groups"

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        assert parameters == b"shared by all groups"
        if self.fault == "grow":
            return 2 * group.samples.tobytes() + bytes(1024)
        if self.fault == "encode":
            raise ZeroDivisionError("a fault in the codec")
        if self.fault == "refuse" and group.samples.max() > 995:
            raise UnsupportedPixels("too bright")
        return zlib.compress(group.samples.tobytes())

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        assert parameters == b"shared by all groups"
        samples = np.frombuffer(zlib.decompress(stream), layout.dtype).reshape(layout.shape).copy()
        if self.fault == "decode":
            samples[0, 0, 0] ^= 1
        return samples


@pytest.fixture
def faulty(request: pytest.FixtureRequest) -> Iterator[None]:
    registry._CODECS["faulty"] = Faulty(request.param)
    yield
    del registry._CODECS["faulty"]


@pytest.mark.parametrize("faulty", ["prepare", "encode", "decode"], indirect=True)
@pytest.mark.usefixtures("faulty")
def test_a_codec_that_fails_or_does_not_verify_is_told_and_the_next_one_codes(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 7)
    report = pack_files(paths, tmp_path / "x.tfa", ["faulty"])
    assert contents(tmp_path / "x.tfa") == {path.name: path.read_bytes() for path in paths}
    assert len(report.codec_failures) == 1
    assert "faulty" in report.codec_failures[0]
    assert report.series[0].codec == "zstd"


@pytest.mark.parametrize("faulty", ["grow"], indirect=True)
@pytest.mark.usefixtures("faulty")
def test_a_codec_that_makes_frames_larger_gives_way_without_blame(tmp_path: Path) -> None:
    report = pack_files(write_series(tmp_path / "series", 7), tmp_path / "x.tfa", ["faulty"])
    assert report.series[0].codec == "zstd"
    assert report.codec_failures == ()


@pytest.mark.parametrize("faulty", ["refuse"], indirect=True)
@pytest.mark.usefixtures("faulty")
def test_groups_of_one_stack_may_be_coded_by_different_codecs(tmp_path: Path) -> None:
    dim, bright = np.full((24, 20), 7, np.int16), np.full((24, 20), 999, np.int16)
    paths = [
        write_image(tmp_path / f"{number}.dcm", bright if number in (2, 3) else dim, InstanceNumber=number)
        for number in range(8)
    ]
    report = pack_files(paths, tmp_path / "x.tfa", ["faulty"])
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    (stack,) = container.manifest.stacks
    assert [stack.codecs[group.codec].codec_id for group in stack.groups] == ["faulty", "zstd", "faulty", "faulty"]
    assert stack.codecs[0].parameters is not None
    assert report.series[0].codec == "faulty,zstd"
    streams = sum(group.section.length for group in stack.groups)
    assert report.series[0].coded_pixel_bytes == streams + len(b"shared by all groups")
    assert container.verify() == []


@pytest.mark.parametrize("faulty", [""], indirect=True)
def test_frames_of_a_codec_that_is_not_installed_are_told_and_the_rest_reads(tmp_path: Path, faulty: None) -> None:
    del faulty
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    pack_files([*write_series(tmp_path / "series", 2), text], tmp_path / "x.tfa", ["faulty"])
    codec = registry._CODECS.pop("faulty")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    try:
        with pytest.raises(MissingDecoder, match="need the codec faulty, which this version of Thinfilm does not have"):
            container.verify()
    finally:
        registry._CODECS["faulty"] = codec
    assert b"".join(container.stream(2)) == b"not an image"


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(1, 19),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    kind=st.sampled_from(["bit", "uint8", "int8", "uint16", "int16", "uint32", "int32", "rgb", "planar"]),
    seed=st.integers(0, 2**32 - 1),
    codec=st.sampled_from(CODECS),
)
def test_frames_of_any_layout_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    frames: int,
    rows: int,
    columns: int,
    kind: str,
    seed: int,
    codec: str,
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    rng = np.random.default_rng(seed)
    attributes: dict[str, int] = {}
    if kind == "bit":
        samples = rng.integers(0, 2, (frames, rows, columns), np.uint8)
        attributes = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    elif kind in ("rgb", "planar"):
        samples = rng.integers(0, 256, (frames, rows, columns, 3), np.uint8)
        attributes = {"PlanarConfiguration": int(kind == "planar")}
    else:
        limits = np.iinfo(kind)
        samples = rng.integers(limits.min, limits.max, (frames, rows, columns), kind, endpoint=True)
    path = write_image(folder / "x.dcm", samples, **attributes)
    pack_files([path], folder / "x.tfa", [codec])
    container = open_bytes((folder / "x.tfa").read_bytes())
    assert b"".join(container.stream(0)) == path.read_bytes()
    if kind != "planar" or rows * columns > 1:
        assert container.entries[0].frame_runs


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["../a", "b"], ["/a", "b"], ["", "b"]])
def test_names_that_collide_or_escape_are_refused(tmp_path: Path, names: list[str]) -> None:
    paths = write_series(tmp_path / "series", 2)
    with pytest.raises(CannotPack):
        pack([Source(path, name) for path, name in zip(paths, names, strict=True)], tmp_path / "x.tfa", PLAIN)
    assert not (tmp_path / "x.tfa").exists()


def test_when_packing_fails_nothing_is_left(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path / "series", 1)
    folder = tmp_path / "archive"
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        pack([Source(path, "a"), Source(tmp_path / "missing", "b")], folder / "x.tfa", PLAIN)
    with pytest.raises(CannotPack):
        pack([], folder / "x.tfa", PLAIN)
    assert list(folder.iterdir()) == []


def test_a_large_object_is_packed_and_streamed_in_bounded_memory(tmp_path: Path) -> None:
    frame = np.arange(1024 * 1024, dtype=np.uint16).reshape(1024, 1024)
    frames = STACK_LIMIT // frame.nbytes + 20
    dot = np.zeros((1, 1), np.uint16)
    path = write_image(tmp_path / "x.dcm", dot, NumberOfFrames=frames, Rows=1024, Columns=1024)
    header = path.read_bytes()[: -dot.nbytes - 4] + (frames * frame.nbytes).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(header)
        for number in range(frames):
            file.write((frame + np.uint16(number)).tobytes())
    tracemalloc.start()
    report = pack_files([path], tmp_path / "x.tfa", ["zstd"])
    with FileReader(tmp_path / "x.tfa") as reader:
        container = open_container(reader)
        digest = hashlib.sha256()
        for part in container.stream(0):
            assert len(part) <= 16 * MIB
            digest.update(part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * MIB
    assert report.series[0].native_pixel_bytes == frames * frame.nbytes
    assert len(container.manifest.stacks) == 2
    assert [run.count for run in container.entries[0].pieces if isinstance(run, FrameRun)] == [128, 20]
    assert digest.hexdigest() == container.entries[0].sha256


def test_a_long_file_that_is_no_image_is_kept_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "long.bin"
    path.write_bytes(random.Random(1).randbytes(MIB) * 40)
    pack_files([path], tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert [group.raw_bytes for group in container.manifest.literals] == [16 * MIB, 16 * MIB, 8 * MIB]
    assert b"".join(container.stream(0)) == path.read_bytes()
    assert (tmp_path / "x.tfa").stat().st_size < 4 * MIB  # the window reaches back over a whole group


def test_a_data_set_without_a_part_10_header_is_an_image_all_the_same(tmp_path: Path) -> None:
    whole = Path(str(get_testdata_file("MR_small_implicit.dcm", download=False))).read_bytes()
    header = locate(whole)
    assert header is not None
    path = tmp_path / "bare"
    path.write_bytes(whole[header.dataset_offset :])
    report = pack_files([path], tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    (dicom,) = (entry.dicom for entry in container.entries)
    assert dicom is not None
    assert (dicom.dataset_offset, dicom.transfer_syntax_uid, dicom.modality) == (0, "", "MR")
    assert report.series[0].codec == "jpegls"
    assert container.read_dataset(0) == path.read_bytes()


@pytest.mark.parametrize("content", [b"", bytes(8), b"a short text", b"\x08\x00\x05\x00\x00\x00\x00\x00", bytes(1000)])
def test_bytes_that_look_like_elements_are_no_dicom_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    pack_files([tmp_path / "x"], tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert container.entries[0].dicom is None
    assert b"".join(container.stream(0)) == content


def test_a_file_that_is_changed_meanwhile_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x.dcm", slice_samples(1))

    def change(count: int) -> None:
        path.unlink()
        write_image(path, slice_samples(1, rows=9))

    with pytest.raises(CannotPack, match=r"x\.dcm was changed"):
        pack([Source(path, "x.dcm")], tmp_path / "x.tfa", PLAIN, change)
    assert [child.name for child in tmp_path.iterdir()] == ["x.dcm"]


def test_single_frames_at_one_place_are_coded_as_a_course_of_time(tmp_path: Path) -> None:
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 5]}
    paths = [
        write_image(tmp_path / f"{number}.dcm", slice_samples(number), InstanceNumber=9 - number, **place)
        for number in range(4)
    ]
    pack_files(paths, tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert [entry.frame_runs[0].first for entry in container.entries] == [3, 2, 1, 0]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_bytes(tmp_path: Path, threads: int) -> None:
    paths = write_series(tmp_path / "series", 40, 100, 100)
    sources = [Source(path, path.name) for path in paths]
    pack(sources, tmp_path / "one.tfa", treatment(["jpegls", "jpegxl"]))
    pack(sources, tmp_path / "many.tfa", treatment(["jpegls", "jpegxl"]), threads=threads)
    assert (tmp_path / "one.tfa").read_bytes() == (tmp_path / "many.tfa").read_bytes()


def test_literal_bytes_of_any_length_come_back_whatever_their_neighbours(tmp_path: Path) -> None:
    lengths = [0, 1, MIB - 1, 2, MIB, 3, MIB + 1, MIB // 2, MIB // 2, 1, 0, 16 * MIB, 16 * MIB + 1, 5]
    paths = []
    for number, length in enumerate(lengths):
        paths.append(tmp_path / f"{number:02}")
        paths[-1].write_bytes((b"%d," % number * length)[:length])
    pack_files(paths, tmp_path / "x.tfa")
    assert contents(tmp_path / "x.tfa") == {path.name: path.read_bytes() for path in paths}
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert max(group.raw_bytes for group in container.manifest.literals) == 16 * MIB
    assert all(len(entry.pieces) <= 1 + (entry.file_bytes > 16 * MIB) for entry in container.entries)
