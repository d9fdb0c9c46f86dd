"""The near-lossless codec: every sample within the bound, what was coded once coded without loss ever after."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import codec_goldens
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import SAMPLE_DTYPES, BlockLayout, PixelBlock
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import Neural, Preset, compiled
from thinfilm_codecs.lossy.near_lossless import NearLossless
from thinfilm_codecs.lossy.stack import code

FAST = NearLossless(engine=Neural(Preset.FAST))
GOLDENS = [
    (setting, name) for setting in codec_goldens.LOSSY_SETTINGS["near_lossless"] for name in codec_goldens.blocks()
]


def expected(samples: np.ndarray, step: int, first: int = 1) -> np.ndarray:
    """Return what the samples become: the same by another arithmetic than the codec's."""
    wide = samples.astype(np.int64)
    minimum, maximum = wide.min(), wide.max()
    grid = minimum + first + step * np.ceil((wide - minimum - first) / step - 0.5).astype(np.int64)
    return np.where(wide == minimum, minimum, np.clip(grid, minimum, maximum)).astype(samples.dtype)


def volume(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A smooth volume with noise, and padding of one value at its side."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    samples = 80 * np.sin(x / 7) + 60 * np.cos(y / 9 + z / 5) + random.normal(0, 9, shape)
    samples[x > 0.8 * shape[2]] = -2000
    found: np.ndarray = samples.astype(np.int16)
    return found


@st.composite
def blocks(draw: st.DrawFn) -> PixelBlock:
    dtype = np.dtype(draw(st.sampled_from(SAMPLE_DTYPES)))
    shape: tuple[int, ...] = tuple(draw(st.integers(1, top)) for top in (4, 12, 12))
    components = draw(st.sampled_from((1, 1, 3)))
    if components > 1:
        shape = (*shape, components)
    limits = np.iinfo(dtype)
    low = draw(st.integers(limits.min, limits.max))
    span = draw(st.sampled_from((0, 1, 9, 255, 4095, 65535)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = random.integers(low, min(low + span, limits.max), shape, np.int64, endpoint=True)
    if draw(st.booleans()):
        samples = np.sort(samples, axis=2)
    return PixelBlock(samples.astype(dtype), 8 * dtype.itemsize)


steps = st.one_of(st.integers(2, 25), st.sampled_from(NearLossless.ladder))


@settings(max_examples=30, deadline=None)
@given(block=blocks(), step=steps)
def test_every_sample_of_any_block_stays_within_the_bound_and_once_coded_as_it_is(block: PixelBlock, step: int) -> None:
    codec = FAST.at(step)
    coded = code(block, codec)
    assert coded.samples.dtype == block.samples.dtype
    errors = coded.samples.astype(np.int64) - block.samples
    assert np.abs(errors).max() <= step // 2 == codec.promised_error
    assert coded.samples.min() == block.samples.min()
    assert coded.samples.max() <= block.samples.max()
    assert np.array_equal(coded.samples, expected(block.samples, step))
    again = code(PixelBlock(coded.samples, block.bits_stored), codec)
    assert np.array_equal(again.samples, coded.samples)


@settings(max_examples=8, deadline=None)
@given(first=st.integers(0, 9), count=st.integers(1, 10), rows=st.integers(1, 16), step=st.integers(2, 61))
def test_any_part_of_what_was_coded_is_coded_as_it_is(first: int, count: int, rows: int, step: int) -> None:
    codec = FAST.at(step)
    coded = code(PixelBlock(volume((10, 16, 20)), 16), codec)
    part = coded.samples[first : first + count, :rows]
    assert np.array_equal(code(PixelBlock(part, 16), codec).samples, part)


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_a_stack_of_several_groups_is_coded_as_it_is_the_second_time_however_the_engine_is_fitted(preset: str) -> None:
    stack = PixelBlock(volume((600, 5, 6)), 16)
    codec = registry.lossy("near_lossless").tuned(preset, "cpu").at(3)
    coded = code(stack, FAST.at(3))
    assert len(coded.streams) > 1
    again = code(PixelBlock(coded.samples, 16), codec)
    assert np.array_equal(again.samples, coded.samples)
    groups = [stack.layout.with_frames(300)] * 2
    decoded = [
        codec.decode(stream, layout, coded.parameters) for stream, layout in zip(coded.streams, groups, strict=True)
    ]
    assert np.array_equal(np.concatenate(decoded), coded.samples)


def test_padding_and_background_of_the_lowest_value_are_kept_exactly() -> None:
    stack = PixelBlock(volume((4, 20, 30)), 16)
    coded = code(stack, FAST.at(63))
    assert np.array_equal(coded.samples == -2000, stack.samples == -2000)


def test_what_lies_beside_padding_of_the_lowest_value_does_not_become_it() -> None:
    samples = np.array([[[0, 0, 1, 2, 3, 40, 41, 500]]], np.uint16)
    for step in (2, 3, 9, 64):
        assert np.array_equal(code(PixelBlock(samples, 12), FAST.at(step)).samples == 0, samples == 0)


def test_a_wider_step_takes_fewer_bytes() -> None:
    stack = PixelBlock(volume((6, 40, 50)), 16)
    sizes = [code(stack, FAST.at(step)).nbytes for step in (2, 3, 5, 9, 17, 33)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 3


def test_a_stream_decodes_at_every_setting_with_every_preset() -> None:
    stack = PixelBlock(volume((3, 12, 14)), 16)
    coded = code(stack, FAST.at(5))
    for other in (FAST, FAST.at(704), registry.lossy("near_lossless"), registry.decoder("near_lossless")):
        assert np.array_equal(other.decode(coded.streams[0], stack.layout, coded.parameters), coded.samples)


def test_the_ladder_has_every_small_step_and_rises() -> None:
    ladder = NearLossless.ladder
    assert ladder[:127] == tuple(range(2, 129))
    assert list(ladder) == sorted(set(ladder))
    assert ladder[-1] > 65000
    assert registry.lossy("near_lossless").setting == 2
    assert [FAST.at(step).promised_error for step in (2, 3, 4, 5)] == [1, 1, 2, 2]
    for setting in (0, 1, -1, 2.5, 129, 65536):
        with pytest.raises(ValueError, match="steps"):
            FAST.at(setting)


def test_a_range_beyond_16_bits_and_a_group_of_another_stack_are_refused() -> None:
    wide = np.array([[[0, 65536]]], np.int32)
    with pytest.raises(UnsupportedPixels, match="65537"):
        FAST.prepare(PixelBlock(wide, 32))
    parameters = FAST.prepare(PixelBlock(np.arange(100, dtype=np.uint16).reshape(1, 10, 10), 16))
    with pytest.raises(UnsupportedPixels, match="outside"):
        FAST.encode(PixelBlock(np.full((1, 10, 10), 100, np.uint16), 16), parameters)


def test_without_a_kernel_a_stack_is_declined_and_streams_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    block = codec_goldens.blocks()["ct"]
    path = codec_goldens.lossy_path("near_lossless", "ct", 9)
    monkeypatch.setattr(compiled, "instruction_sets", list)
    codec = NearLossless(9)
    with pytest.raises(UnsupportedPixels, match="kernel"):
        codec.prepare(block)
    decoded = codec.decode(path.read_bytes(), block.layout, codec_goldens.beside(path))
    assert np.array_equal(decoded, expected(block.samples, 9, first=9))


def test_parameters_name_the_model_of_the_engine() -> None:
    stack = PixelBlock(volume((2, 9, 9)), 16)
    parameters = FAST.prepare(stack)
    assert FAST.model_hashes(parameters) == Neural().model_hashes(Neural(Preset.FAST).prepare(stack))


@pytest.mark.parametrize(("setting", "name"), GOLDENS)
def test_golden_streams_decode_for_ever(setting: int, name: str) -> None:
    if name == "wide":
        assert not codec_goldens.lossy_path("near_lossless", name, setting).exists()
        return
    decoded = codec_goldens.decoded_as_kept("near_lossless", name, setting)
    first = 1 if setting == 4 else setting  # the others are of version 1
    assert np.array_equal(decoded, expected(codec_goldens.blocks()[name].samples, setting, first))


# Streams that are not what they say


def test_parameters_that_are_none_are_refused() -> None:
    stack = PixelBlock(volume((2, 9, 9)), 16)
    parameters, layout = FAST.prepare(stack), stack.layout
    stream = FAST.encode(stack, parameters)
    version, one, none = b"\3" + parameters[1:], parameters[:1] + b"\1\0" + parameters[3:], b"\1\0\0" + parameters[3:]
    largest = b"\1\0\x80" + parameters[3:]
    for damaged in (version, one, none, largest, parameters[:12], parameters[:13], b""):
        with pytest.raises(CorruptStream):
            FAST.decode(stream, layout, damaged)
        with pytest.raises(CorruptStream):
            FAST.model_hashes(damaged)


def test_a_grid_that_does_not_fit_the_samples_is_refused() -> None:
    stack = PixelBlock(volume((2, 9, 9)), 16)
    parameters = FAST.prepare(stack)
    stream = FAST.encode(stack, parameters)
    with pytest.raises(CorruptStream, match="fit uint16"):
        FAST.decode(stream, BlockLayout(2, 9, 9, 1, "uint16"), parameters)
    with pytest.raises(CorruptStream, match="fit int8"):
        FAST.decode(stream, BlockLayout(2, 9, 9, 1, "int8"), parameters)


def test_indices_beyond_the_grid_are_refused() -> None:
    stack = PixelBlock(volume((2, 9, 9)), 16)
    parameters = FAST.prepare(stack)
    stream = FAST.encode(stack, parameters)
    shorter = parameters[:11] + (100).to_bytes(2, "little") + parameters[13:]
    with pytest.raises(CorruptStream, match="beyond"):
        FAST.decode(stream, stack.layout, shorter)
