"""Damaged bytes: every codec refuses them or gives samples of the right shape; none crashes, hangs or allocates wildly.

THINFILM_MUTATIONS is how many there are of the neural codec's (docs/formats/neural.md has the command of the long run).
"""

import os
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from support import codec_goldens, neural_goldens
from support.mutations import mutated
from thinfilm_codecs import registry
from thinfilm_codecs.blocks import BlockLayout
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.sealed import seal, unseal

MUTATIONS = int(os.environ.get("THINFILM_MUTATIONS", "1500"))
ROOM = 4 << 20
"""Bytes that a decoder may use besides four times the samples, for parameters and tables."""

OTHERS = [codec_id for codec_id in registry.names() if codec_id != "neural"] + list(codec_goldens.LOSSY_SETTINGS)


@dataclass(frozen=True)
class Kept:
    """A stream that decodes."""

    layout: BlockLayout
    parameters: bytes
    stream: bytes


def neural_streams() -> list[Kept]:
    return [
        Kept(golden.block.layout, *neural_goldens.parameters_and_stream(name))
        for name, golden in neural_goldens.goldens().items()
    ]


def streams_of(codec_id: str) -> list[Kept]:
    settings = codec_goldens.LOSSY_SETTINGS.get(codec_id)
    found = []
    for name, block in codec_goldens.blocks().items():
        if settings:
            paths = [codec_goldens.lossy_path(codec_id, name, setting) for setting in settings]
        else:
            paths = [codec_goldens.path(codec_id, name)]
        found += [Kept(block.layout, codec_goldens.beside(path), path.read_bytes()) for path in paths if path.exists()]
    return found


@contextmanager
def traced(codec: Codec, kept: Sequence[Kept]) -> Iterator[None]:
    """Count allocations, but not of the models, which are loaded once."""
    by_size = sorted(kept, key=lambda one: one.layout.samples, reverse=True)
    least_of_each_model = {codec.model_hashes(one.parameters): one for one in by_size}
    for one in least_of_each_model.values():
        codec.decode(one.stream, one.layout, one.parameters)
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def accepted(codec: Codec, stream: bytes, layout: BlockLayout, parameters: bytes) -> bool:
    """Decode; tell whether the bytes passed for a stream. Samples have the right shape, and memory its bounds."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        samples = codec.decode(stream, layout, parameters)
    except CorruptStream:
        found = False
    else:
        assert samples.shape == layout.shape
        assert samples.dtype.name == layout.dtype
        found = True
    declared = max(layout.nbytes, 2 * layout.samples)  # decoders work in words of 16 bits
    assert tracemalloc.get_traced_memory()[1] - before <= 4 * declared + ROOM
    return found


def pairs(kept: Sequence[Kept], count: int, seed: int) -> Iterator[tuple[Kept, Kept, np.random.Generator]]:
    """Draw a stream to damage, and one to damage it with."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        one, other = (kept[i] for i in random.integers(len(kept), size=2))
        yield one, other, random


def passes_its_seal(codec: Codec, kept: Sequence[Kept], count: int) -> bool:
    """Tell whether one of so many damaged streams is not refused."""
    with traced(codec, kept):
        for one, other, random in pairs(kept, count, 1):
            damaged = mutated(one.stream, other.stream, random)
            if damaged != one.stream and accepted(codec, damaged, one.layout, one.parameters):
                return True
    return False


def accepted_behind_a_right_seal(codec: Codec, kept: Sequence[Kept], count: int) -> int:
    """Return how many of so many damaged streams are not refused when the damage is sealed in."""
    found = 0
    with traced(codec, kept):
        for one, other, random in pairs(kept, count, 2):
            damaged = seal(mutated(unseal(one.stream), unseal(other.stream), random))
            found += damaged != one.stream and accepted(codec, damaged, one.layout, one.parameters)
    return found


def test_a_damaged_neural_stream_never_passes_its_seal() -> None:
    assert not passes_its_seal(Neural(), neural_streams(), MUTATIONS // 5)


def test_a_damaged_neural_stream_behind_a_right_seal_is_refused_or_some_samples() -> None:
    count = MUTATIONS * 3 // 5
    assert accepted_behind_a_right_seal(Neural(), neural_streams(), count) < 0.01 * count


def test_damaged_neural_parameters_are_refused_or_decode_to_some_samples() -> None:
    codec, kept = Neural(), neural_streams()
    with traced(codec, kept):
        for one, other, random in pairs(kept, MUTATIONS // 5, 3):
            accepted(codec, one.stream, one.layout, mutated(one.parameters, other.parameters, random))


def test_a_neural_stream_of_another_layout_is_refused_within_bounds() -> None:
    codec, kept = Neural(), neural_streams()
    with traced(codec, kept):
        for one in kept:
            layout = BlockLayout(3, 700, 600, 1, one.layout.dtype)
            assert not accepted(codec, one.stream, layout, one.parameters)


@pytest.mark.parametrize("codec_id", OTHERS)
def test_a_damaged_stream_of_another_codec_never_passes_its_seal(codec_id: str) -> None:
    assert not passes_its_seal(registry.decoder(codec_id), streams_of(codec_id), MUTATIONS // 10)


# imagecodecs reports some damage of HTJ2K to standard error instead of to its caller.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("codec_id", OTHERS)
def test_a_damaged_stream_of_another_codec_behind_a_right_seal_is_refused_or_some_samples(codec_id: str) -> None:
    rarity = 500 if codec_id == "nagoor" else 10  # nagoor takes seconds for a stream
    accepted_behind_a_right_seal(registry.decoder(codec_id), streams_of(codec_id), MUTATIONS // rarity)


@pytest.mark.parametrize("codec_id", codec_goldens.LOSSY_SETTINGS)
def test_damaged_parameters_of_a_lossy_codec_are_refused_or_decode_to_some_samples(codec_id: str) -> None:
    codec, kept = registry.decoder(codec_id), streams_of(codec_id)
    with traced(codec, kept):
        for one, other, random in pairs(kept, MUTATIONS // 5, 4):
            accepted(codec, one.stream, one.layout, mutated(one.parameters, other.parameters, random))
