"""Of every group the smallest stream is kept, and no stack is larger than it would be without the neural codec."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.containers import open_bytes, pack_files
from support.part10_files import smooth_slices, write_image, write_series
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import SAMPLE_DTYPES, PixelBlock, SampleArray
from thinfilm_gateway.archive.container.format import SECTION_HEADER_BYTES, Stack
from thinfilm_gateway.archive.container.reader import open_container
from thinfilm_gateway.archive.store import FileReader
from thinfilm_gateway.config import Settings

DEFAULT = Settings().lossless_codecs


def stacks_of(tmp_path: Path, samples: SampleArray, codecs: tuple[str, ...], **attributes: int) -> tuple[Stack, ...]:
    """Pack an image, prove that it comes back, and return its stacks."""
    path = write_image(tmp_path / "x.dcm", samples, **attributes)
    report = pack_files([path], tmp_path / "x.tfa", codecs)
    assert report.codec_failures == ()
    container = open_bytes((tmp_path / "x.tfa").read_bytes())
    assert container.verify() == []
    return container.manifest.stacks


def codecs_of(stacks: tuple[Stack, ...]) -> set[str]:
    return {stack.codecs[group.codec].codec_id for stack in stacks for group in stack.groups}


def stored_bytes(stacks: tuple[Stack, ...]) -> int:
    """Return the bytes of all sections of the stacks."""
    sections = [group.section for stack in stacks for group in stack.groups]
    sections += [codec.parameters for stack in stacks for codec in stack.codecs if codec.parameters]
    return sum(SECTION_HEADER_BYTES + section.length for section in sections)


@pytest.mark.parametrize("dtype", SAMPLE_DTYPES)
@pytest.mark.parametrize("codecs", [DEFAULT, ("neural",), ("jpegls",)], ids="-".join)
@pytest.mark.parametrize("shape", [(3, 40, 50), (1, 1, 1), (2, 1, 9)], ids=str)
def test_noise_of_every_type_takes_no_more_than_raw_and_64_bytes_a_group(
    tmp_path: Path, dtype: str, codecs: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    limits = np.iinfo(dtype)
    samples = np.random.default_rng(3).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    stacks = stacks_of(tmp_path, samples, codecs)
    groups = sum(len(stack.groups) for stack in stacks)
    assert 0 < stored_bytes(stacks) <= samples.nbytes + 64 * groups


def test_the_neural_codec_is_the_default_choice_where_it_is_smallest(tmp_path: Path) -> None:
    samples = smooth_slices(12, 96)
    stacks = stacks_of(tmp_path, samples, DEFAULT)
    assert codecs_of(stacks) == {"neural"}
    block = PixelBlock(samples, 12)
    for codec_id in ("jpegls", "jpegxl"):
        assert stored_bytes(stacks) < len(registry.get(codec_id).encode(block, b""))


def test_a_stack_too_small_for_parameters_to_pay_is_coded_without_them(tmp_path: Path) -> None:
    stacks = stacks_of(tmp_path, smooth_slices(1, 9), DEFAULT)
    assert "neural" not in codecs_of(stacks)
    assert all(codec.parameters is None for stack in stacks for codec in stack.codecs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [10, 16, 33])
def test_no_stack_is_larger_than_with_jpegls_alone(tmp_path: Path, size: int, seed: int) -> None:
    samples = smooth_slices(1 + 2 * seed, size, seed)
    ours = stored_bytes(stacks_of(tmp_path, samples, ("neural", "jpegls")))
    (tmp_path / "x.tfa").unlink()
    assert ours <= 1.001 * stored_bytes(stacks_of(tmp_path, samples, ("jpegls",)))


def test_a_group_unlike_the_others_takes_the_codec_that_is_best_for_it(tmp_path: Path) -> None:
    samples = smooth_slices(4, 400)  # a group each
    samples[2] = np.random.default_rng(1).integers(0, 4096, 400)  # only zstd sees that all lines are the same
    (stack,) = stacks_of(tmp_path, samples, ("jpegls", "htj2k"))
    by_group = [stack.codecs[group.codec].codec_id for group in stack.groups]
    assert by_group == ["jpegls", "jpegls", "zstd", "jpegls"]


def test_single_bits_colour_and_palettes_take_what_is_smallest_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    mask = np.zeros((4, 64, 64), np.uint8)
    mask[:, 20:40, 20:40] = 1
    palette = rng.choice(np.array([0, 3, 17, 90, 255], np.uint8), (2, 64, 64))
    colour = rng.integers(0, 200, (2, 48, 48, 3)).astype(np.uint8)
    images = {
        "mask": (mask, {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}),
        "palette": (palette, {}),
        "colour": (colour, {}),
    }
    for name, (samples, attributes) in images.items():
        (tmp_path / name).mkdir()
        stacks = stacks_of(tmp_path / name, samples, DEFAULT, **attributes)
        for codec_id in ("jpegxl", "jpegls", "zstd"):
            (tmp_path / name / "x.tfa").unlink()
            alone = stored_bytes(stacks_of(tmp_path / name, samples, (codec_id,), **attributes))
            assert stored_bytes(stacks) <= 1.01 * alone, (name, codec_id)


def test_a_series_with_presets_and_without_comes_back_from_one_container(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 3)
    samples = smooth_slices(12, 96)
    paths.append(write_image(tmp_path / "cine.dcm", samples, series_uid="2.25.9"))
    report = pack_files(paths, tmp_path / "x.tfa", DEFAULT)
    assert report.series[1].codec == "neural"
    assert open_bytes((tmp_path / "x.tfa").read_bytes()).verify() == []


def a_mammogram() -> SampleArray:
    samples = np.zeros((1, 5000, 5000), np.uint16)
    samples[0, 1000:4000, :2000] = np.arange(2000) // 4 + 500
    return samples


def a_long_cine() -> SampleArray:
    samples = np.zeros((20_000, 48, 48), np.uint8)
    for number in range(len(samples)):
        samples[number, 3 * number % 40 :][:5, 7 * number % 40 :][:, :5] = 200
    return samples


@pytest.mark.parametrize("make", [a_mammogram, a_long_cine])
def test_a_mammogram_and_a_cine_of_20_000_frames_come_back_in_bounded_memory(
    tmp_path: Path, make: Callable[[], SampleArray]
) -> None:
    samples = make()
    nbytes = samples.nbytes
    path = write_image(tmp_path / "x.dcm", samples)
    del samples
    tracemalloc.start()
    try:
        pack_files([path], tmp_path / "x.tfa", DEFAULT)
        with FileReader(tmp_path / "x.tfa") as reader:
            assert open_container(reader).verify() == []
        assert tracemalloc.get_traced_memory()[1] < 8 * nbytes
    finally:
        tracemalloc.stop()
