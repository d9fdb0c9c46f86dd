import tracemalloc

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.jpeg_lossless import HuffmanTable, ScanCoding, open_scan, scan_bytes

PREDICTORS = range(1, 8)


def picture(rows: int, columns: int, bits: int, components: int = 1, noise: float = 0.05, seed: int = 0) -> SampleArray:
    """Return a slope with noise over the whole range of `bits`."""
    random = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(rows) / rows, np.arange(columns) / columns) / 2
    values = slope[..., None] + random.normal(0, noise, (rows, columns, components))
    samples = (values.clip(0, 1) * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    return samples[..., 0] if components == 1 else samples


def lossless_jpeg(samples: SampleArray, bits: int, predictor: int = 1) -> bytes:
    colorspace = "RGB" if samples.ndim == 3 else None
    return bytes(
        imagecodecs.jpeg_encode(
            samples,
            lossless=True,
            predictor=predictor,
            bitspersample=bits,
            colorspace=colorspace,
            outcolorspace=colorspace,
        )
    )


def shape_of(samples: SampleArray) -> tuple[int, int, int]:
    rows, columns, *components = samples.shape
    return rows, columns, components[0] if components else 1


def assert_comes_back(stream: bytes, samples: SampleArray) -> None:
    scan = open_scan(stream, shape_of(samples))
    assert scan is not None
    assert np.array_equal(scan.samples, samples)
    coding = ScanCoding.from_json(scan.coding.to_json())
    assert stream[: scan.start] + scan_bytes(scan.samples, coding) + stream[scan.end :] == stream


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_stream_of_every_predictor_comes_back_from_its_samples(predictor: int, bits: int) -> None:
    samples = picture(37, 53, bits)
    assert_comes_back(lossless_jpeg(samples, bits, predictor), samples)


def test_a_stream_of_three_components_comes_back() -> None:
    samples = picture(33, 21, 8, components=3)
    assert_comes_back(lossless_jpeg(samples, 8, predictor=4), samples)


def test_a_stream_that_is_coded_in_many_bands_comes_back() -> None:
    samples = picture(700, 1000, 16, noise=0.2)
    assert_comes_back(lossless_jpeg(samples, 16), samples)


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    bits=st.sampled_from([2, 8, 10, 16]),
    predictor=st.sampled_from(PREDICTORS),
    noise=st.sampled_from([0.0, 0.05, 2.0]),
    seed=st.integers(0, 2**16),
)
def test_small_streams_come_back(rows: int, columns: int, bits: int, predictor: int, noise: float, seed: int) -> None:
    samples = picture(rows, columns, bits, noise=noise, seed=seed)
    assert_comes_back(lossless_jpeg(samples, bits, predictor), samples)


@given(position=st.integers(0, 2**16), value=st.integers(0, 255))
def test_a_stream_with_a_changed_byte_comes_back_or_is_left_alone(position: int, value: int) -> None:
    stream = bytearray(lossless_jpeg(picture(12, 17, 12), 12))
    stream[position % len(stream)] = value
    scan = open_scan(bytes(stream), (12, 17, 1))
    assert scan is None or scan_bytes(scan.samples, scan.coding) == bytes(stream[scan.start : scan.end])


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        bytes(imagecodecs.jpeg_encode(picture(16, 16, 8))),
        bytes(imagecodecs.jpegls_encode(picture(16, 16, 8))),
        lossless_jpeg(picture(16, 16, 8), 8)[:-2],
    ],
    ids=["empty", "start alone", "start and end", "baseline", "JPEG-LS", "no end"],
)
def test_what_is_no_lossless_jpeg_is_left_alone(stream: bytes) -> None:
    assert open_scan(stream, (16, 16, 1)) is None


@pytest.mark.parametrize("shape", [(60, 71, 1), (65_535, 65_535, 1), (1000, 65_535, 1)], ids=str)
@pytest.mark.parametrize("rows", [65_535, 1000])
def test_a_stream_too_short_for_the_size_that_it_declares_is_not_decoded(
    rows: int, shape: tuple[int, int, int]
) -> None:
    stream = bytearray(lossless_jpeg(picture(60, 71, 12), 12))
    sizes = stream.index(b"\xff\xc3") + 5
    stream[sizes : sizes + 4] = rows.to_bytes(2) + (65_535).to_bytes(2)
    tracemalloc.start()
    assert open_scan(bytes(stream), shape) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_stream_of_another_shape_than_is_wanted_is_left_alone() -> None:
    stream = lossless_jpeg(picture(16, 20, 12), 12)
    assert open_scan(stream, (16, 20, 1)) is not None
    for shape in ((20, 16, 1), (16, 20, 3), (16, 21, 1), (0, 0, 1)):
        assert open_scan(stream, shape) is None


@pytest.mark.parametrize("marker", [b"\xff\xd0", b"\xff\x01", b"\xff\xd8"], ids=["RST0", "TEM", "SOI"])
def test_a_frame_header_that_only_decoders_would_find_is_not_decoded(marker: bytes) -> None:
    stream = lossless_jpeg(picture(16, 20, 12), 12)
    hidden = bytearray(stream[stream.index(b"\xff\xc3") :][:13])
    hidden[5:9] = (65_500).to_bytes(2) * 2
    assert open_scan(stream[:2] + marker + (2 + len(hidden)).to_bytes(2) + hidden + stream[2:], (16, 20, 1)) is None
    assert open_scan(stream[:2] + hidden + stream[2:], (16, 20, 1)) is None


def test_a_stream_of_a_bit_a_sample_comes_back() -> None:
    samples = np.full((64, 128), 2048, np.uint16)
    assert_comes_back(lossless_jpeg(samples, 12), samples)


def test_bits_above_the_precision_do_not_count() -> None:
    samples = picture(9, 9, 12).astype(np.int16)
    scan = open_scan(lossless_jpeg(picture(9, 9, 12), 12), (9, 9, 1))
    assert scan is not None
    assert scan_bytes(samples | np.int16(-4096), scan.coding) == scan_bytes(scan.samples, scan.coding)


def test_a_difference_without_a_code_is_refused() -> None:
    coding = ScanCoding(8, 1, 1, (HuffmanTable(bytes([0, 2, *[0] * 14]), bytes([0, 1])),))
    assert scan_bytes(np.full((2, 2), 128, np.uint8), coding) == b"\x00"
    with pytest.raises(ValueError, match="no code"):
        scan_bytes(picture(4, 4, 8), coding)


@pytest.mark.parametrize(
    ("counts", "symbols"),
    [
        (bytes(16), b"\x01"),
        (bytes([2, *[0] * 15]), b"\x01\x01"),
        (bytes([1, *[0] * 15]), b"\x11"),
        (bytes([3, *[0] * 15]), b"\x01\x02\x03"),
        (bytes(15), b""),
    ],
    ids=["uncounted", "twice", "no category", "too many", "short"],
)
def test_impossible_tables_are_refused(counts: bytes, symbols: bytes) -> None:
    with pytest.raises(ValueError, match="Huffman"):
        HuffmanTable(counts, symbols)


@pytest.mark.parametrize(
    "change",
    [{"precision": 17}, {"predictor": 0}, {"padding": 2}, {"tables": []}, {"tables": ["00"]}, {"more": 1}],
    ids=str,
)
def test_impossible_codings_are_refused(change: dict[str, object]) -> None:
    scan = open_scan(lossless_jpeg(picture(5, 5, 8), 8), (5, 5, 1))
    assert scan is not None
    with pytest.raises(ValueError, match=r"scan|table|Huffman"):
        ScanCoding.from_json(scan.coding.to_json() | change)
