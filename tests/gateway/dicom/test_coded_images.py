"""What the headers of coded images say is what their decoders make of them."""

import contextlib
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.bombs import jpeg2000 as empty_jpeg2000
from support.bombs import lossless_jpeg
from thinfilm_gateway.dicom.coded_images import (
    CodedImage,
    UnreadableHeader,
    jpeg,
    jpeg2000,
    jpeg_colour,
    jpegxl,
)

SHAPES = [(1, 1), (8, 8), (23, 31), (24, 32), (64, 64), (100, 200), (256, 300), (480, 640), (600, 521), (1030, 9)]


def lossless(samples: Any) -> bytes:
    bits = 8 * samples.itemsize
    return bytes(imagecodecs.jpeg8_encode(samples, lossless=True, predictor=1, bitspersample=bits))


CODERS = {
    "JPEG": (jpeg, lambda a: imagecodecs.jpeg8_encode(a), False),
    "lossless JPEG": (jpeg, lossless, True),
    "JPEG 2000": (jpeg2000, lambda a: imagecodecs.jpeg2k_encode(a, level=0, reversible=True, codecformat="j2k"), True),
    "JP2": (jpeg2000, lambda a: imagecodecs.jpeg2k_encode(a, level=0, reversible=True, codecformat="jp2"), True),
    "lossy JPEG 2000": (jpeg2000, lambda a: imagecodecs.jpeg2k_encode(a, level=30, reversible=False), False),
    "HTJ2K": (jpeg2000, lambda a: imagecodecs.htj2k_encode(a), True),
    "JPEG XL": (jpegxl, lambda a: imagecodecs.jpegxl_encode(a, lossless=True), True),
    "JPEG XL in boxes": (jpegxl, lambda a: imagecodecs.jpegxl_encode(a, lossless=True, usecontainer=True), True),
    "lossy JPEG XL": (jpegxl, lambda a: imagecodecs.jpegxl_encode(a, distance=1.0), False),
}


def picture(shape: tuple[int, ...], dtype: str) -> Any:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CODERS)
def test_a_header_says_the_shape_that_was_coded(name: str, shape: tuple[int, int], dtype: str, components: int) -> None:
    read, code, reversible = CODERS[name]
    if name == "JPEG" and dtype == "uint16":
        pytest.skip("there is no JPEG of 16 bits")
    found = read(bytes(code(picture((*shape, 3) if components == 3 else shape, dtype))))
    assert (found.rows, found.columns, found.components) == (*shape, components)
    assert found.precision == 8 * np.dtype(dtype).itemsize
    assert found.reversible == reversible


@pytest.mark.parametrize(("level", "reversible"), [(0, True), (3, False)])
def test_a_header_of_jpeg_ls_says_whether_anything_is_lost(level: int, reversible: bool) -> None:
    found = jpeg(bytes(imagecodecs.jpegls_encode(picture((64, 50), "uint16"), level=level)))
    assert (found.rows, found.columns, found.reversible) == (64, 50, reversible)


@pytest.mark.parametrize(
    "stream",
    [
        empty_jpeg2000(20_000, 20_000),
        empty_jpeg2000(255, 255, (1, 1), levels=0),
        empty_jpeg2000(4000, 4000, levels=0, precinct=0),
        empty_jpeg2000(1000, 1000, precinct=0x11),
        empty_jpeg2000(64, 64, levels=3, precinct=0x11, layers=65_535),
    ],
    ids=["size", "tiles", "precincts", "small precincts", "layers"],
)
def test_what_makes_jpeg_2000_costly_is_counted(stream: bytes) -> None:
    assert len(stream) < 300
    assert jpeg2000(stream).working_bytes > 400 * 2**20


def test_what_a_tile_says_for_itself_is_counted_too() -> None:
    costly = empty_jpeg2000(4000, 4000, levels=0, precinct=0)
    coding = costly[costly.index(b"\xff\x52") :][:15]
    plain = empty_jpeg2000(4000, 4000)
    data = plain.index(b"\xff\x93")
    within_a_tile = plain[:data] + coding + plain[data:]
    assert jpeg2000(plain).working_bytes < 100 * 2**20
    assert jpeg2000(within_a_tile).working_bytes > 4000 * 2**20


def test_an_ordinary_stream_is_not_thought_costly() -> None:
    """A mammogram of 28 million pixels is within the budget of a process as it comes."""
    for stream in (empty_jpeg2000(4740, 5928), empty_jpeg2000(4740, 5928, (1024, 1024))):
        assert jpeg2000(stream).working_bytes < 300 * 2**20


def test_a_frame_header_is_found_where_a_decoder_finds_it() -> None:
    hidden = struct.pack(">BBHBHHB", 0xFF, 0xC3, 11, 12, 65_500, 65_500, 1) + b"\1\x11\0"
    stream = lossless_jpeg(64, 64)
    for marker in (b"\xff\xd0", b"\xff\x01", b"\xff\x00", b"garbage"):
        with pytest.raises(UnreadableHeader, match="two frame headers"):
            jpeg(stream[:2] + marker + b"\0\x20" + hidden + stream[2:])
    assert jpeg(stream[:2] + b"\xff\xff\xff" + stream[3:]).rows == 64


@pytest.mark.parametrize("read", [jpeg, jpeg_colour, jpeg2000, jpegxl], ids=lambda read: read.__name__)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_header_or_refused(read: Any, data: st.DataObject) -> None:
    starts = [b"", b"\xff\xd8\xff", b"\xff\x0a", empty_jpeg2000(64, 64)[:40], lossless_jpeg(64, 64)[:30]]
    starts += [b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\0jxlc\xff\x0a"]
    stream = data.draw(st.sampled_from(starts)) + data.draw(st.binary(max_size=80))
    with contextlib.suppress(UnreadableHeader):
        found = read(stream)
        assert found is None or isinstance(found, str | CodedImage)


@pytest.mark.parametrize("name", CODERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_header_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, code, _ = CODERS[name]
    stream = bytearray(code(picture((24, 32), "uint8")))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, min(len(stream), 120) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableHeader):
        assert read(bytes(stream)).samples >= 0
