"""Stacks in lossy codecs: coded in groups on threads, and at the setting that is asked for."""

import zlib
from typing import ClassVar, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.lossless.neural import Neural, Preset
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.near_lossless import NearLossless
from thinfilm_codecs.lossy.stack import CodedStack, coarsest, code, gentlest


class Truncation(LossyCodec):
    """The simplest lossy codec: the lowest bits are dropped, the others deflated. It remembers what it coded."""

    codec_id: ClassVar[str] = "truncation"
    setting_name: ClassVar[str] = "bits"
    ladder: ClassVar[tuple[float, ...]] = tuple(range(1, 13))

    def __init__(self, bits: int = 1, coded: list[float] | None = None) -> None:
        self._bits = bits
        self.coded: list[float] = [] if coded is None else coded

    @property
    def setting(self) -> float:
        return self._bits

    def at(self, setting: float) -> Self:
        return type(self)(int(setting), self.coded)

    def supports(self, layout: BlockLayout) -> bool:
        return layout.components == 1

    def frames_per_group(self, layout: BlockLayout) -> int:
        return min(3, layout.frames)

    def prepare(self, stack: PixelBlock) -> bytes:
        self.coded.append(self._bits)
        return bytes([self._bits])

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        return zlib.compress((group.samples >> parameters[0]).tobytes())

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        return np.frombuffer(zlib.decompress(stream), layout.dtype).reshape(layout.shape) << parameters[0]


def stack(frames: int = 8) -> PixelBlock:
    return PixelBlock(np.random.default_rng(0).integers(0, 4096, (frames, 12, 10)).astype(np.uint16), 12)


def test_a_coded_stack_has_what_its_streams_decode_to() -> None:
    block, codec = stack(), Truncation(4)
    coded = code(block, codec)
    assert coded.codec is codec
    assert np.array_equal(coded.samples, block.samples >> 4 << 4)
    lengths = [3, 3, 2]
    parts = [
        codec.decode(stream, block.layout.with_frames(frames), coded.parameters)
        for stream, frames in zip(coded.streams, lengths, strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), coded.samples)
    assert coded.nbytes == 1 + sum(map(len, coded.streams))


@pytest.mark.parametrize(
    "codec", [Truncation(3), NearLossless(3, Neural(Preset.FAST))], ids=lambda codec: codec.codec_id
)
def test_threads_change_nothing(codec: LossyCodec) -> None:
    block = PixelBlock(np.random.default_rng(1).integers(0, 900, (1100, 2, 3)).astype(np.uint16), 12)
    alone, together = code(block, codec), code(block, codec, threads=3)
    assert len(alone.streams) > 2
    assert alone.parameters == together.parameters
    assert alone.streams == together.streams
    assert np.array_equal(alone.samples, together.samples)


@settings(max_examples=60, deadline=None)
@given(last=st.integers(0, 12), start=st.integers(0, 11))
def test_the_coarsest_accepted_setting_is_found_and_none_is_coded_twice(last: int, start: int) -> None:
    codec = Truncation()
    found = coarsest(stack(2), codec, lambda coded: coded.codec.setting <= last, start=start)
    assert (found.codec.setting if found else 0) == last
    assert len(codec.coded) == len(set(codec.coded)) <= 7


@settings(max_examples=60, deadline=None)
@given(first=st.integers(1, 13), start=st.integers(0, 11))
def test_the_gentlest_setting_that_reaches_is_found_and_none_is_coded_twice(first: int, start: int) -> None:
    codec = Truncation()
    found = gentlest(stack(2), codec, lambda coded: coded.codec.setting >= first, start=start)
    assert (found.codec.setting if found else 13) == first
    assert len(codec.coded) == len(set(codec.coded)) <= 7


@settings(max_examples=100, deadline=None)
@given(accepted=st.sets(st.integers(2, 12)))
def test_what_is_found_was_accepted_whatever_order_accepted_and_refused_settings_have(accepted: set[int]) -> None:
    def accepts(coded: CodedStack) -> bool:
        return coded.codec.setting in accepted | {1}

    found = coarsest(stack(2), Truncation(), accepts)
    assert found is not None
    assert accepts(found)
    reached = gentlest(stack(2), Truncation(), accepts)
    assert reached is not None
    assert reached.codec.setting == 1


@pytest.mark.parametrize("last", [1, 5, 11])
def test_where_it_is_expected_rightly_two_settings_are_coded(last: int) -> None:
    codec = Truncation()
    coarsest(stack(2), codec, lambda coded: coded.codec.setting <= last, start=last - 1)
    assert codec.coded == [last, last + 1]


def test_the_smallest_step_that_reaches_a_ratio_is_found() -> None:
    y, x = np.mgrid[:40, :50]
    noise = np.random.default_rng(2).normal(0, 12, (4, 40, 50))
    block = PixelBlock((900 + 90 * np.sin(x / 9) + 70 * np.cos(y / 8) + noise).astype(np.int16), 12)
    codec = NearLossless(engine=Neural(Preset.FAST))

    def ratio(coded: CodedStack) -> float:
        return block.layout.nbytes / coded.nbytes

    found = gentlest(block, codec, lambda coded: ratio(coded) >= 6)
    assert found is not None
    assert ratio(found) >= 6
    assert ratio(code(block, codec.at(found.codec.setting - 1))) < 6
    below = coarsest(block, codec, lambda coded: ratio(coded) <= 6)
    assert below is not None
    assert below.codec.setting == found.codec.setting - 1
