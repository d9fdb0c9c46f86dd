"""Every codec gives back the samples it was given, or refuses them; it never gives other samples."""

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from support import codec_goldens
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import SAMPLE_DTYPES, BlockLayout, PixelBlock
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CodecError, CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.sealed import seal, unseal

CLASSICAL = ("htj2k", "jpegls", "jpegxl", "raw", "zstd")
IMAGE_CODECS = ("htj2k", "jpegls", "jpegxl")

every_codec = pytest.mark.parametrize("codec", [registry.get(codec_id) for codec_id in CLASSICAL], ids=CLASSICAL)
image_codec = pytest.mark.parametrize("codec", [registry.get(codec_id) for codec_id in IMAGE_CODECS], ids=IMAGE_CODECS)


@st.composite
def blocks(draw: st.DrawFn) -> PixelBlock:
    """Draw a small block: any layout, any type, ranges from constant to full."""
    dtype = np.dtype(draw(st.sampled_from(SAMPLE_DTYPES)))
    components = draw(st.sampled_from((1, 1, 1, 3, 2, 4)))
    shape: tuple[int, ...] = tuple(draw(st.integers(1, top)) for top in (3, 40, 40))
    if components > 1:
        shape = (*shape, components)
    limits = np.iinfo(dtype)
    low = draw(st.integers(limits.min, limits.max))
    high = draw(st.one_of(st.just(limits.max), st.integers(low, min(limits.max, low + 5000)), st.just(low)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = rng.integers(low, high, shape, np.int64, endpoint=True)
    if draw(st.booleans()):
        samples = np.sort(samples, axis=2)
    samples -= samples % (1 << draw(st.sampled_from((0, 0, 1, 4))))
    return PixelBlock(samples.clip(limits.min, limits.max).astype(dtype), 8 * dtype.itemsize)


def round_trip(codec: Codec, block: PixelBlock) -> bytes:
    parameters = codec.prepare(block)
    stream = codec.encode(block, parameters)
    decoded = codec.decode(stream, block.layout, parameters)
    assert decoded.dtype.name == block.layout.dtype
    assert decoded.dtype.isnative
    assert decoded.shape == block.layout.shape
    assert np.array_equal(decoded, block.samples)
    return stream


@every_codec
@settings(max_examples=150, deadline=None)
@given(block=blocks())
def test_any_block_comes_back_or_is_refused(codec: Codec, block: PixelBlock) -> None:
    if not codec.supports(block.layout):
        with pytest.raises(UnsupportedPixels):
            codec.encode(block, b"")
        return
    try:
        round_trip(codec, block)
    except UnsupportedPixels:
        assert codec.codec_id in IMAGE_CODECS
        spread = int(block.samples.max()) - int(block.samples.min())
        assert spread > 65535 or block.samples.size < 256


@every_codec
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_the_full_range_of_16_bits_comes_back(codec: Codec, dtype: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).view(dtype)
    round_trip(codec, PixelBlock(ramp.reshape(1, 256, 256), 16))
    noise = np.random.default_rng(1).permutation(ramp)
    round_trip(codec, PixelBlock(noise.reshape(1, 128, 512), 16))


@every_codec
@pytest.mark.parametrize(
    "shape", [(1, 1, 65), (1, 65, 1), (1, 1, 5000), (1, 5000, 1), (300, 1, 3), (1, 64, 1, 3), (7, 1, 64, 3)]
)
def test_thin_images_come_back(codec: Codec, shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(2).integers(0, 4096, shape).astype(np.uint16)
    round_trip(codec, PixelBlock(samples, 12))


@every_codec
def test_one_pixel_comes_back_since_it_is_constant(codec: Codec) -> None:
    round_trip(codec, PixelBlock(np.full((1, 1, 1), -7, np.int16), 16))


@image_codec
def test_a_constant_group_takes_15_bytes_in_an_image_codec(codec: Codec) -> None:
    assert len(round_trip(codec, PixelBlock(np.full((3, 100, 100), 4095, np.uint32), 16))) == 15


@image_codec
def test_32_bit_samples_of_a_16_bit_range_come_back_and_wider_ones_are_refused(codec: Codec) -> None:
    samples = np.random.default_rng(3).integers(0, 65536, (1, 30, 30)).astype(np.int32) - 2_000_000_000
    samples[0, 0, :2] = -2_000_000_000, -2_000_000_000 + 65535
    round_trip(codec, PixelBlock(samples, 32))
    samples[0, 0, 0] -= 1
    with pytest.raises(UnsupportedPixels, match="17"):
        codec.encode(PixelBlock(samples, 32), b"")


@every_codec
def test_samples_may_be_a_strided_unaligned_read_only_view(codec: Codec) -> None:
    buffer = bytes(1) + np.random.default_rng(4).integers(0, 900, 3 * 20 * 30).astype("<u2").tobytes()
    planar = np.frombuffer(buffer, "<u2", offset=1).reshape(1, 3, 20, 30)
    round_trip(codec, PixelBlock(np.moveaxis(planar, 1, -1), 10))


@image_codec
def test_smooth_images_become_smaller_than_with_zstd(codec: Codec) -> None:
    y, x = np.mgrid[:64, :64]
    samples = (x * x // 9 + y * 7 + np.random.default_rng(5).integers(0, 5, (4, 64, 64))).astype(np.int16) - 1000
    block = PixelBlock(samples, 12)
    assert len(codec.encode(block, b"")) < 0.8 * len(registry.get("zstd").encode(block, b""))


def test_grey_shown_in_colour_costs_jpegls_little_more_than_grey() -> None:
    codec = registry.get("jpegls")
    grey = np.random.default_rng(6).integers(0, 200, (1, 80, 80)).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    assert len(codec.encode(PixelBlock(colour, 8), b"")) < 1.1 * len(codec.encode(PixelBlock(grey, 8), b""))


@every_codec
@pytest.mark.parametrize("name", codec_goldens.blocks())
def test_golden_streams_decode_for_ever(codec: Codec, name: str) -> None:
    block = codec_goldens.blocks()[name]
    path = codec_goldens.path(codec.codec_id, name)
    if name == "wide" and codec.codec_id in IMAGE_CODECS:
        assert not path.exists()
        return
    assert np.array_equal(codec.decode(path.read_bytes(), block.layout, b""), block.samples)


# Streams that are not what they say


@pytest.fixture(scope="module")
def block() -> PixelBlock:
    return PixelBlock(np.random.default_rng(8).integers(0, 900, (2, 25, 30)).astype(np.uint16), 12)


@every_codec
def test_every_flipped_bit_and_every_cut_is_noticed(codec: Codec, block: PixelBlock) -> None:
    stream = codec.encode(block, b"")
    for position in range(0, len(stream), 7):
        damaged = bytearray(stream)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CorruptStream):
            codec.decode(bytes(damaged), block.layout, b"")
        with pytest.raises(CorruptStream):
            codec.decode(stream[:position], block.layout, b"")
    with pytest.raises(CorruptStream):
        codec.decode(stream + b"\0", block.layout, b"")


@every_codec
@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=200))
def test_bytes_under_a_right_checksum_that_are_no_stream_are_refused(codec: Codec, payload: bytes) -> None:
    with pytest.raises(CorruptStream):
        codec.decode(seal(payload), BlockLayout(3, 200, 200, 1, "uint16"), b"")


@every_codec
@pytest.mark.parametrize(
    "other",
    [
        BlockLayout(1, 25, 30, 1, "uint16"),
        BlockLayout(2, 25, 31, 1, "uint16"),
        BlockLayout(2, 25, 12, 3, "uint16"),
        BlockLayout(2, 25, 30, 1, "uint8"),
        BlockLayout(60000, 25, 30, 1, "uint16"),
    ],
    ids=str,
)
def test_a_stream_of_another_layout_is_refused(codec: Codec, block: PixelBlock, other: BlockLayout) -> None:
    with pytest.raises(CorruptStream):
        codec.decode(codec.encode(block, b""), other, b"")


def _forged(codec_id: str, stream: bytes, rows: int, columns: int) -> bytes:
    """Return the stream with a false size in the header of its image or frame, under a right checksum."""
    payload = bytearray(unseal(stream))
    if codec_id == "jpegls":
        at = payload.index(b"\xff\xf7") + 5
        payload[at : at + 4] = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    elif codec_id == "htj2k":
        at = payload.index(b"\xff\x51") + 6
        payload[at : at + 8] = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    elif codec_id == "jpegxl":  # 18181-1 A.3: large size, 18 bits each
        at = payload.index(b"\xff\x0a") + 2
        bits = 0 | 2 << 1 | (rows - 1) << 3 | 0 << 21 | 2 << 24 | (columns - 1) << 26
        payload[at : at + 6] = bits.to_bytes(6, "little")
    return seal(bytes(payload))


@image_codec
def test_a_false_size_is_refused_before_anything_is_allocated_for_it(codec: Codec, block: PixelBlock) -> None:
    stream = _forged(codec.codec_id, codec.encode(block, b""), 60000, 60000)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptStream):
            codec.decode(stream, block.layout, b"")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_of_another_size_is_refused_before_it_is_inflated() -> None:
    bomb = seal(zstandard.ZstdCompressor().compress(bytes(200_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptStream, match="200000000"):
            registry.get("zstd").decode(bomb, BlockLayout(1, 9, 9, 1, "uint8"), b"")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_end_marker_is_asked_of_jpegls_because_charls_would_search_for_seconds(block: PixelBlock) -> None:
    codec = registry.get("jpegls")
    cut = seal(unseal(codec.encode(block, b""))[:-200])
    with pytest.raises(CorruptStream, match="end marker"):
        codec.decode(cut, block.layout, b"")


@pytest.mark.parametrize("codec_id", ["jpegls", "jpegxl", "zstd"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_forged_image_is_refused_or_gives_an_array_of_the_layout(codec_id: str, data: st.DataObject) -> None:
    codec = registry.get(codec_id)
    block = PixelBlock(np.random.default_rng(8).integers(0, 900, (2, 25, 30)).astype(np.uint16), 12)
    payload = bytearray(unseal(codec.encode(block, b"")))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        samples = codec.decode(seal(bytes(payload)), block.layout, b"")
    except CorruptStream:
        return
    assert samples.shape == block.layout.shape
    assert samples.dtype == np.uint16


def test_each_byte_of_the_markers_that_openjph_would_follow_blindly_is_checked(block: PixelBlock) -> None:
    codec = registry.get("htj2k")
    payload = unseal(codec.encode(block, b""))
    free = {*range(64, 66), *range(84, 101), *range(107, 126)}  # Ccap, the exponents, the name of the library
    positions = set(range(11, 140)) - free
    for position in sorted(positions):
        damaged = bytearray(payload)
        damaged[position] ^= 0x81
        with pytest.raises(CorruptStream):
            codec.decode(seal(bytes(damaged)), block.layout, b"")


@pytest.mark.parametrize("header", [(2, 0, 10, 0), (1, 9, 10, 0), (1, 0, 17, 0), (1, 0, 10, -1), (1, 0, 10, 70000)])
def test_a_header_that_does_not_fit_the_samples_is_refused(header: tuple[int, ...], block: PixelBlock) -> None:
    codec = registry.get("jpegls")
    payload = unseal(codec.encode(block, b""))
    with pytest.raises(CorruptStream):
        codec.decode(seal(struct.pack("<BBBq", *header) + payload[11:]), block.layout, b"")


# Groups


@every_codec
@pytest.mark.parametrize(
    ("layout", "frames"),
    [
        (BlockLayout(500, 64, 64, 1, "int16"), 32),
        (BlockLayout(5, 64, 64, 1, "int16"), 5),
        (BlockLayout(90, 512, 512, 1, "uint16"), 1),
        (BlockLayout(90, 4096, 3328, 1, "uint16"), 1),
        (BlockLayout(1, 1, 1, 1, "uint8"), 1),
    ],
    ids=str,
)
def test_small_frames_are_grouped_to_256_kib(codec: Codec, layout: BlockLayout, frames: int) -> None:
    assert codec.frames_per_group(layout) == frames


@image_codec
def test_a_group_never_exceeds_the_height_that_the_codec_keeps(codec: Codec) -> None:
    for components in (1, 3):
        layout = BlockLayout(200_000, 30_000, 1, components, "uint8")
        if not codec.supports(layout):
            assert (codec.codec_id, components) == ("jpegls", 3)
            continue
        frames = codec.frames_per_group(layout)
        rng = np.random.default_rng(9)
        group = PixelBlock(rng.integers(0, 9, layout.with_frames(frames).shape).astype(np.uint8), 8)
        round_trip(codec, group)


def test_images_beyond_the_limits_of_a_codec_are_not_supported() -> None:
    assert not registry.get("jpegls").supports(BlockLayout(1, 70_000, 8, 1, "uint8"))
    assert not registry.get("jpegxl").supports(BlockLayout(1, 8, 300_000, 1, "uint8"))
    assert registry.get("raw").supports(BlockLayout(1, 8, 300_000, 5, "uint32"))


# The registry


def test_the_registry_names_each_codec_once() -> None:
    assert set(CLASSICAL) <= set(registry.names())
    assert all(registry.get(codec_id).codec_id == codec_id for codec_id in registry.names())


def test_an_unknown_codec_is_refused_by_name_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"'jpeg'.*jpegls"):
        registry.get("jpeg")


def test_all_refusals_are_codec_errors() -> None:
    errors: tuple[Any, ...] = (CorruptStream, UnsupportedPixels)
    assert all(issubclass(error, CodecError) for error in errors)
