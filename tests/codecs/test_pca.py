"""The pca codec: components across volumes, exact when decoded, and damaged streams refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import codec_goldens
from support.mutations import single_mutations
from thinfilm_codecs.blocks import BlockLayout, FrameAxis, PixelBlock
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import Neural, Preset
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.near_lossless import NearLossless
from thinfilm_codecs.lossy.pca import PrincipalComponents
from thinfilm_codecs.lossy.stack import code

FAST = PrincipalComponents(engine=Neural(Preset.FAST))


def volumes(places: int, count: int, rows: int = 20, columns: int = 24) -> np.ndarray:
    """Return (count x places, rows, columns): volumes of one anatomy in two contrasts, with some noise."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:rows, :columns]
    found = []
    for volume in range(count):
        for place in range(places):
            first = 300 + 120 * np.sin(x / 4 + 0.7 * place)
            second = 90 * np.cos(y / 5 - 0.3 * place)
            found.append(
                first * np.exp(-volume / 9) + second * (1 + 0.2 * np.cos(volume)) + random.normal(0, 1, x.shape)
            )
    return np.array(found).clip(0, None).astype(np.uint16)


@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(("uint8", "int8", "uint16", "int16")),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12)),
    axis=st.sampled_from(FrameAxis),
    step=st.sampled_from((6, 20, 128)),
    seed=st.integers(0, 999),
)
def test_any_block_decodes_near_what_it_was(
    dtype: str, shape: tuple[int, int, int], axis: FrameAxis, step: int, seed: int
) -> None:
    limits = np.iinfo(dtype)
    random = np.random.default_rng(seed)
    samples = random.integers(limits.min, limits.max, shape, np.int64, endpoint=True).astype(dtype)
    block = PixelBlock(samples, 8 * limits.bits, axis)
    codec = FAST.at(step)
    if not codec.supports(block.layout):
        return
    coded = code(block, codec)
    assert coded.samples.dtype == samples.dtype
    rmse = np.sqrt(((coded.samples.astype(float) - samples) ** 2).mean())
    assert rmse <= step / np.sqrt(12) * 1.8 + 1
    assert np.array_equal(codec.decode(coded.streams[0], block.layout, coded.parameters), coded.samples)


def test_few_components_are_kept_where_volumes_are_alike_and_less_is_spent_than_without() -> None:
    block = PixelBlock(volumes(4, 12), 12)
    ours, plain = code(block, FAST.at(10)), code(block, NearLossless(9, Neural(Preset.FAST)))
    errors = [np.sqrt(((coded.samples.astype(float) - block.samples) ** 2).mean()) for coded in (ours, plain)]
    assert ours.nbytes < plain.nbytes
    assert errors[0] < 1.2 * errors[1]


def test_scores_beyond_16_bits_are_refused() -> None:
    samples = np.random.default_rng(0).choice([0, 65535], (16, 8, 8)).astype(np.uint16)
    samples[1:] = samples[:1]
    with pytest.raises(UnsupportedPixels, match="too fine"):
        FAST.at(2).prepare(PixelBlock(samples, 16))


def test_settings_are_those_of_the_ladder_and_models_are_named() -> None:
    assert FAST.at(28).setting == 28
    assert FAST.promised_error is None
    with pytest.raises(ValueError, match="steps of 2 to"):
        FAST.at(1)
    block = PixelBlock(volumes(1, 3), 12)
    assert len(FAST.model_hashes(FAST.prepare(block))) == 1
    assert not FAST.supports(BlockLayout(1, 9, 9, 3, "uint8"))


def kept() -> tuple[bytes, bytes, BlockLayout]:
    block = PixelBlock(volumes(2, 4, 12, 13), 12)
    coded = code(block, FAST.at(20))
    return coded.streams[0], coded.parameters, block.layout


def test_damaged_streams_are_refused_even_behind_a_right_checksum() -> None:
    stream, parameters, layout = kept()
    random = np.random.default_rng(5)
    for damaged in single_mutations(stream, random, 100):
        with pytest.raises(CorruptStream):
            FAST.decode(damaged, layout, parameters)
    for payload in single_mutations(unseal(stream), random, 100):
        try:
            assert FAST.decode(seal(payload), layout, parameters).shape == layout.shape
        except CorruptStream:
            continue


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\x02"),  # version
        (1, b"\x00\x00"),  # step
        (1, b"\xff\xff"),
        (3, b"\x00\x00"),  # components
        (3, b"\xff\x00"),
        (5, b"\x00\x00\x00\x00"),  # places
        (5, b"\xff\xff\xff\xff"),
        (9, b"\x00\x00\x00\x00"),  # run
        (9, b"\xff\xff\xff\xff"),
        (13, b"\xff\xff\xff\xff"),  # minimum
        (17, b"\xff\xff"),  # span
        (19, b"\x00\x00\x10\x00"),  # a mean
    ],
)
def test_a_header_that_no_encoder_writes_is_refused(at: int, value: bytes) -> None:
    stream, parameters, layout = kept()
    payload = bytearray(unseal(stream))
    if at == 17:
        payload[13:17] = (1).to_bytes(4, "little")
    payload[at : at + len(value)] = value
    with pytest.raises(CorruptStream):
        FAST.decode(seal(bytes(payload)), layout, parameters)


@pytest.mark.parametrize("setting", codec_goldens.LOSSY_SETTINGS["pca"])
@pytest.mark.parametrize("name", sorted(codec_goldens.blocks()))
def test_golden_streams_decode_for_ever(name: str, setting: int) -> None:
    path = codec_goldens.lossy_path("pca", name, setting)
    assert path.exists() or name in ("colour", "wide")
    if path.exists():
        codec_goldens.decoded_as_kept("pca", name, setting)
