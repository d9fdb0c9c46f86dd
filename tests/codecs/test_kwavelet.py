"""The kwavelet codec: idempotent by construction, exact in a fresh process, and never fooled by damaged bytes."""

import hashlib
import subprocess
import sys
import tracemalloc

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from support import codec_goldens
from support.mutations import single_mutations
from thinfilm_codecs.blocks import BlockLayout, PixelBlock
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy import adaptive
from thinfilm_codecs.lossy.kwavelet import KWavelet, coefficients, wavelet
from thinfilm_codecs.lossy.kwavelet.approximation import approximated


def decoded(codec: KWavelet, samples: np.ndarray) -> np.ndarray:
    block = PixelBlock(samples, 8 * samples.itemsize)
    found: np.ndarray = codec.decode(codec.encode(block, b""), block.layout, b"")
    return found


def ct() -> np.ndarray:
    found: np.ndarray = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False)).pixel_array
    return found


def rmse(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one.astype(np.float64) - other) ** 2)))


@st.composite
def samples(draw: st.DrawFn) -> np.ndarray:
    """Draw a block of any size, of noise, steps or waves, of some range of any type that is supported."""
    dtype = np.dtype(draw(st.sampled_from(("uint8", "int8", "uint16", "int16"))))
    shape: tuple[int, ...] = tuple(draw(st.integers(1, top)) for top in (3, 33, 33))
    if draw(st.booleans()):
        shape = (*shape, 3)
    limits = np.iinfo(dtype)
    low = draw(st.integers(limits.min, limits.max))
    high = draw(st.one_of(st.just(limits.max), st.integers(low, limits.max)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = random.integers(low, high, shape, endpoint=True)
    if draw(st.booleans()):
        found = np.sort(found, axis=draw(st.integers(1, 2)))
    if draw(st.booleans()):
        found = np.where(found > (low + high) // 2, high, low)
    return found.astype(dtype)


@settings(max_examples=25, deadline=None)
@given(block=samples(), setting=st.sampled_from(KWavelet.ladder))
def test_coding_again_what_was_decoded_changes_nothing(block: np.ndarray, setting: float) -> None:
    codec = KWavelet(setting)
    first = decoded(codec, block)
    assert first.shape == block.shape
    assert first.dtype == block.dtype
    assert block.min() <= first.min()
    assert first.max() <= block.max()
    assert np.array_equal(decoded(codec, first), first)


def test_the_error_stays_for_100_generations_while_that_of_jpeg_grows() -> None:
    original = (ct()[48:80, 48:80].clip(0, 2047) // 8).astype(np.uint8)
    ours, jpegs = original[None], original
    ours_errors, jpeg_errors = [], []
    for generation in range(100):  # of changing settings, since one alone settles even with JPEG
        ours = decoded(KWavelet((125, 180, 250, 350, 500)[generation % 5]), ours)
        jpegs = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(jpegs, level=60 + 5 * (generation % 5)))
        ours_errors.append(rmse(ours[0], original))
        jpeg_errors.append(rmse(jpegs, original))
    assert len(set(ours_errors)) == 1
    assert jpeg_errors[-1] > 1.5 * jpeg_errors[0]


@settings(max_examples=100, deadline=None)
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**32 - 1))
def test_the_transform_maps_integers_to_integers_and_back(shape: tuple[int, int], seed: int) -> None:
    plane = np.random.default_rng(seed).integers(-32768, 65536, shape).astype(np.int32)
    assert np.array_equal(wavelet.inverse(wavelet.forward(plane)), plane)
    assert np.array_equal(wavelet.forward(wavelet.inverse(plane)), plane)


def test_the_transform_gathers_a_constant_in_its_lowest_band() -> None:
    found = wavelet.forward(np.full((37, 50), 700, np.int32))
    assert (wavelet.lowest(found) == 700).all()
    assert np.count_nonzero(found) == wavelet.lowest(found).size


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.lists(
        st.one_of(st.integers(-20, 20), st.integers(-adaptive.LARGEST, adaptive.LARGEST)), min_size=1, max_size=60
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_come_back_from_their_adaptive_code(numbers: list[int], seed: int) -> None:
    contexts = adaptive.contexts_of(np.random.default_rng(seed).integers(0, 1 << 21, len(numbers)))
    assert contexts.min() >= 0
    assert contexts.max() < adaptive.CONTEXTS
    encoder, counts = Encoder(), adaptive.Counts()
    for step in range(0, len(numbers), 7):
        adaptive.put(encoder, counts, contexts[step : step + 7], np.array(numbers[step : step + 7]))
    decoder, counts = Decoder.of(encoder.stream()), adaptive.Counts()
    found: list[int] = []
    for step in range(0, len(numbers), 7):
        found += adaptive.take(decoder, counts, contexts[step : step + 7]).tolist()
    assert found == numbers
    assert decoder.finished()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 30)),
    steps=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_coefficients_come_back_from_their_code(shape: tuple[int, int, int], steps: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    planes = np.where(random.random(shape) < 0.2, random.integers(-900, 900, shape) << 9, 0).astype(np.int32)
    steps = steps[: shape[0]]
    assert np.array_equal(coefficients.decode(coefficients.encode(planes, steps), shape, steps), planes)


def test_no_more_coefficients_are_kept_than_asked_for() -> None:
    plane = ct().astype(np.int32)
    for count in (300, 2000):
        assert np.count_nonzero(approximated(plane, count).coefficients) <= count


def test_each_setting_takes_fewer_bytes_than_the_gentler_one_before_and_errs_more() -> None:
    block = PixelBlock(ct()[None], 16)
    sizes, errors = [], []
    for setting in KWavelet.ladder:
        codec = KWavelet().at(setting)
        stream = codec.encode(block, b"")
        sizes.append(len(stream))
        errors.append(rmse(KWavelet().decode(stream, block.layout, b""), block.samples))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_the_gentlest_setting_keeps_to_a_ceiling_of_5() -> None:
    block = PixelBlock(pydicom.dcmread(get_testdata_file("CT_small.dcm")).pixel_array[None], 16)
    assert 3 < block.samples.nbytes / len(KWavelet().encode(block, b"")) < 4


def test_the_positions_and_values_take_a_third_of_what_the_paper_takes_for_them() -> None:
    plane = ct().astype(np.int32)  # 128 x 128: a quarter of the paper's image, so a quarter of its coefficients
    kept = approximated(plane, 750)
    assert 3 * len(coefficients.encode(kept.coefficients[None], [kept.step])) < 750 * (32 + 2 * 8) / 8


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 300), (1, 300, 1), (40, 2, 3), (2, 7, 9, 3)])
def test_images_of_any_size_come_back(shape: tuple[int, ...]) -> None:
    block = (np.arange(np.prod(shape)).reshape(shape) % 251).astype(np.uint8)
    assert rmse(decoded(KWavelet(500), block), block) < 80


def test_a_setting_that_is_not_on_the_ladder_is_refused() -> None:
    with pytest.raises(ValueError, match="thousandths"):
        KWavelet().at(1000)


def test_samples_of_32_bits_are_declined() -> None:
    layout = BlockLayout(1, 8, 8, 1, "int32")
    assert not KWavelet().supports(layout)
    with pytest.raises(UnsupportedPixels):
        KWavelet().encode(PixelBlock(np.zeros((1, 8, 8), np.int32), 32), b"")
    with pytest.raises(CorruptStream):
        KWavelet().decode(seal(b"\1"), layout, b"")


_FRESH = """
import hashlib, sys
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout
samples = registry.decoder("kwavelet").decode(sys.stdin.buffer.read(), BlockLayout(1, 128, 128, 1, "int16"), b"")
print(hashlib.sha256(samples.tobytes()).hexdigest())
"""


def test_a_stream_decodes_to_the_same_samples_in_a_fresh_process() -> None:
    block = PixelBlock(ct()[None], 16)
    stream = KWavelet(65).encode(block, b"")
    expected = hashlib.sha256(KWavelet().decode(stream, block.layout, b"").tobytes()).hexdigest()
    found = subprocess.run([sys.executable, "-c", _FRESH], input=stream, capture_output=True, check=True)
    assert found.stdout.decode().strip() == expected


def test_damaged_streams_are_refused_or_some_samples_within_bounds_of_memory() -> None:
    block = PixelBlock(ct()[None, :40, :50], 16)
    stream = KWavelet(125).encode(block, b"")
    random = np.random.default_rng(3)
    for damaged in single_mutations(stream, random, 100):
        with pytest.raises(CorruptStream):
            KWavelet().decode(damaged, block.layout, b"")
    payloads, refused = single_mutations(unseal(stream), random, 60), 0
    tracemalloc.start()
    try:
        for payload in payloads:
            try:
                assert KWavelet().decode(seal(payload), block.layout, b"").shape == block.samples.shape
            except CorruptStream:
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < 4 * block.layout.nbytes + (2 << 20)
    finally:
        tracemalloc.stop()
    assert refused > 0.9 * len(payloads)


def test_a_stream_of_another_layout_is_refused() -> None:
    block = PixelBlock(ct()[None, :40, :50], 16)
    with pytest.raises(CorruptStream):
        KWavelet().decode(KWavelet(125).encode(block, b""), BlockLayout(3, 700, 600, 1, "int16"), b"")


@pytest.mark.parametrize("name", codec_goldens.supported("kwavelet"))
def test_golden_streams_decode_for_ever(name: str) -> None:
    codec_goldens.decoded_as_kept("kwavelet", name, 180)
