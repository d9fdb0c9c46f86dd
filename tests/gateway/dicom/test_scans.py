import subprocess
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from support.bombs import image
from support.bombs import lossless_jpeg as declared_lossless_jpeg
from support.containers import open_bytes, pack_files
from support.datasets import CT_IMAGE, XA_IMAGE, EncodedDataSet, finish, fragments, image_attributes, instance
from support.part10_files import slice_samples, write_image, write_series
from thinfilm_codecs.blocks import FrameAxis
from thinfilm_codecs.jpeg_lossless import scan_bytes
from thinfilm_gateway.archive.container.format import LiteralRun, ScanRun
from thinfilm_gateway.dicom.dataset import outline
from thinfilm_gateway.dicom.scans import ScannedPixels, scanned_pixels

LOSSLESS_JPEG = "1.2.840.10008.1.2.4.57"
LOSSLESS_JPEG_FIRST_ORDER = "1.2.840.10008.1.2.4.70"


def lossless_jpeg(samples: np.ndarray, bits: int = 16, predictor: int = 1) -> bytes:
    stored = samples.astype(np.int64) & ((1 << bits) - 1)
    stream = imagecodecs.jpeg_encode(
        stored.astype(np.uint16 if bits > 8 else np.uint8), lossless=True, predictor=predictor, bitspersample=bits
    )
    return bytes(stream) + b"\0" * (len(stream) % 2)


def cine(frames: int = 3, dtype: str = "int16") -> np.ndarray:
    return np.stack([slice_samples(number) for number in range(frames)]).astype(dtype)


def data_set(
    samples: np.ndarray, parts: list[bytes], bits: int = 16, syntax: str = LOSSLESS_JPEG_FIRST_ORDER
) -> EncodedDataSet:
    attributes = instance(XA_IMAGE, "XA") | image_attributes(samples, bits_stored=bits)
    return finish(attributes | {"FrameTime": "33.3"}, syntax, tail=fragments(parts))


def scans_of(encoded: EncodedDataSet) -> ScannedPixels | None:
    return scanned_pixels(outline(encoded.dataset, encoded.transfer_syntax_uid), encoded.dataset)


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
@pytest.mark.parametrize("bits", [12, 16])
def test_the_frames_of_a_lossless_jpeg_are_samples_with_their_sign(dtype: str, bits: int) -> None:
    samples = np.abs(cine()).astype(dtype) if dtype == "uint16" else cine()
    encoded = data_set(samples, [lossless_jpeg(frame, bits) for frame in samples], bits)
    found = scans_of(encoded)
    assert found is not None
    assert np.array_equal(found.block.samples, samples)
    assert found.block.samples.dtype == dtype
    assert (found.block.bits_stored, found.block.frame_axis) == (bits, FrameAxis.TIME)
    for frame, (span, coding) in zip(found.block.samples, found.scans, strict=True):
        assert scan_bytes(frame, coding) == encoded.dataset[span.offset : span.offset + span.length]


def test_a_frame_that_declares_another_size_than_the_data_set_is_left_alone_and_not_decoded() -> None:
    tracemalloc.start()
    for encoded in (
        image(LOSSLESS_JPEG_FIRST_ORDER, [declared_lossless_jpeg(65_500, 65_500)]),
        image(LOSSLESS_JPEG_FIRST_ORDER, [declared_lossless_jpeg(65_500, 65_500)], 65_500, 65_500),
        image(LOSSLESS_JPEG_FIRST_ORDER, [declared_lossless_jpeg(64, 80)]),
    ):
        assert scans_of(encoded) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def test_frames_that_are_no_lossless_jpeg_are_left_alone() -> None:
    samples = cine()
    parts = [lossless_jpeg(frame) for frame in samples]
    assert scans_of(data_set(samples, parts)) is not None
    assert scans_of(data_set(samples, [])) is None
    assert scans_of(data_set(samples, [*parts[:-1], b"no JPEG "])) is None
    assert scans_of(data_set(samples, [*parts[:-1], parts[-1][:-8]])) is None
    assert scans_of(data_set(samples, [*parts, lossless_jpeg(samples[0, :-1])])) is None
    assert scans_of(data_set(samples, [*parts, lossless_jpeg(samples[0] & 0xFFF, 12)])) is None
    assert scans_of(data_set(samples, parts, syntax="1.2.840.10008.1.2.4.50")) is None


def test_a_series_of_lossless_jpeg_is_coded_together_and_comes_back_byte_for_byte(tmp_path: Path) -> None:
    plain = write_series(tmp_path / "plain", 12, 64, 64)
    (tmp_path / "files").mkdir()
    files = [tmp_path / "files" / path.name for path in plain]
    for number, (source, target) in enumerate(zip(plain, files, strict=True)):
        subprocess.run(["dcmcjpeg", "+el", "+sv", str(1 + number % 7), source, target], check=True)
    report = pack_files(files, tmp_path / "x.tfa", ["jpegxl"])
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert [b"".join(container.stream(number)) for number in range(12)] == [file.read_bytes() for file in files]
    assert container.verify() == []
    (stack,) = container.manifest.stacks
    assert stack.layout.frames == 12
    (row,) = report.series
    assert (row.codec, row.pixels, row.native_pixel_bytes) == ("jpegxl", 12 * 64 * 64, 2 * 12 * 64 * 64)
    assert report.archive_bytes < 0.9 * sum(file.stat().st_size for file in files)


def test_native_and_lossless_jpeg_files_of_a_series_share_a_stack(tmp_path: Path) -> None:
    first, second, *_ = write_series(tmp_path, 4)
    subprocess.run(["dcmcjpeg", "+e1", second, second], check=True)
    pack_files([first, second], tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert len(container.manifest.stacks) == 1
    assert [b"".join(container.stream(number)) for number in range(2)] == [first.read_bytes(), second.read_bytes()]


def test_every_frame_of_a_cine_is_a_piece_between_its_headers(tmp_path: Path) -> None:
    samples = cine(5)
    path = data_set(samples, [lossless_jpeg(frame, predictor=6) for frame in samples]).write(tmp_path / "cine.dcm")
    pack_files([path], tmp_path / "x.tfa")
    (entry,) = open_bytes((tmp_path / "x.tfa").read_bytes()).entries
    assert [type(piece) for piece in entry.pieces] == [LiteralRun, ScanRun] * 5 + [LiteralRun]
    assert b"".join(open_bytes((tmp_path / "x.tfa").read_bytes()).stream(0)) == path.read_bytes()
    dataset = open_bytes((tmp_path / "x.tfa").read_bytes()).read_dataset(0)
    assert path.read_bytes().endswith(dataset)


def test_a_file_that_is_only_called_lossless_jpeg_comes_back(tmp_path: Path) -> None:
    attributes = instance(CT_IMAGE, "CT") | image_attributes(slice_samples(1))
    tail = fragments([b"\xff\xd8 not a JPEG \xff\xd9"])
    odd = finish(attributes, LOSSLESS_JPEG, tail=tail).write(tmp_path / "odd.dcm")
    native = write_image(tmp_path / "native.dcm", slice_samples(2))
    report = pack_files([odd, native], tmp_path / "x.tfa")
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert [b"".join(container.stream(number)) for number in range(2)] == [odd.read_bytes(), native.read_bytes()]
    assert report.codec_failures == ()
