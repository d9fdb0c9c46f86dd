"""Coding one stack of frames: each group by several codecs, the smallest stream kept, decoded and compared."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_codecs.lossless import search
from thinfilm_gateway.archive.ahead import in_order
from thinfilm_gateway.archive.container.format import (
    FRAMES,
    MIB,
    PARAMETERS,
    SECTION_HEADER_BYTES,
    FrameGroup,
    Stack,
    StackCodec,
)
from thinfilm_gateway.archive.container.writer import ContainerWriter

_RAW_OVERHEAD = 4  # bytes of a raw stream above those of its samples; no stream needs more
_AHEAD_BYTES = 256 * MIB  # raw bytes of groups whose streams may wait for those before them


SECOND_EVERY = 8
"""Of so many groups of a stack one, the first on, is also decoded by another back end of its codec, in part."""


@dataclass(frozen=True)
class PreparedStack:
    """A stack, the tiers of codecs that will code it (search.Choice), and the parameters of each.

    failures: a sentence for each way in which a codec failed. seconds: what choosing and fitting took.
    """

    block: PixelBlock
    tiers: tuple[tuple[Codec, ...], ...]
    parameters: Mapping[str, bytes]
    failures: tuple[str, ...]
    seconds: float

    def without_parameters(self) -> "PreparedStack":
        """Return the same without the codecs that need parameters."""
        tiers = (tuple(codec for codec in tier if not self.parameters[codec.codec_id]) for tier in self.tiers)
        return replace(self, tiers=tuple(filter(None, tiers)))


@dataclass(frozen=True)
class ReadyStack:
    """A stack whose streams were made before, by one codec: those of groups of `frames_per_group` frames, in order."""

    layout: BlockLayout
    codec_id: str
    parameters: bytes
    streams: tuple[bytes, ...]
    frames_per_group: int


@dataclass(frozen=True)
class WrittenStack:
    """A stack as it lies in the container, and one sentence for each way in which a codec failed."""

    stack: Stack
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Coded:
    """A group, proven to decode to its samples; failures of the codecs that were tried.

    plain_bytes: what the group would take without the codecs that need parameters.
    """

    codec: Codec
    stream: bytes
    plain_bytes: int
    failures: tuple[str, ...]


def prepare_stack(block: PixelBlock, candidates: Sequence[Codec]) -> PreparedStack:
    """Choose the codecs of a stack and fit them to it. A codec that cannot be fitted gives way to a new choice."""
    begin = time.perf_counter()
    failures: dict[str, None] = {}  # an ordered set
    parameters: dict[str, bytes] = {}
    while True:
        choice = search.choose(block, candidates)
        failures |= dict.fromkeys(choice.failures)
        unfit = set()
        for codec in (codec for tier in choice.tiers for codec in tier if codec.codec_id not in parameters):
            try:
                parameters[codec.codec_id] = codec.prepare(block)
            except UnsupportedPixels:  # a refusal, no fault
                unfit.add(codec.codec_id)
            except Exception as error:  # P9: whatever goes wrong in a codec, others take over
                unfit.add(codec.codec_id)
                failures[f"{codec.codec_id}: {error}"] = None
        if not unfit:
            return PreparedStack(block, choice.tiers, parameters, tuple(failures), time.perf_counter() - begin)
        candidates = [codec for codec in candidates if codec.codec_id not in unfit]


def write_stack(
    prepared: PreparedStack, writer: ContainerWriter, pool: ThreadPoolExecutor, progress: Callable[[int], None]
) -> WrittenStack:
    """Code all groups in `pool` and write them in order; `progress` is told the frames done, perhaps twice.

    Where the parameters of the codecs eat all that these gain, the stack is coded again by those that need none.
    """
    start = writer.size
    written, plain_bytes = _write(prepared, writer, pool, progress)
    if writer.size - start <= plain_bytes:
        return written
    writer.rewind(start)
    again, _ = _write(prepared.without_parameters(), writer, pool, progress)
    return WrittenStack(again.stack, tuple(dict.fromkeys(written.failures + again.failures)))


def write_ready(ready: ReadyStack, writer: ContainerWriter) -> Stack:
    """Write streams that were made before, as they are."""
    parameters = writer.append(PARAMETERS, ready.parameters) if ready.parameters else None
    firsts = range(0, ready.layout.frames, ready.frames_per_group)
    groups = (
        FrameGroup(writer.append(FRAMES, stream), 0, min(ready.frames_per_group, ready.layout.frames - first))
        for first, stream in zip(firsts, ready.streams, strict=True)
    )
    return Stack(ready.layout, (StackCodec(ready.codec_id, parameters),), tuple(groups))


def _write(
    prepared: PreparedStack, writer: ContainerWriter, pool: ThreadPoolExecutor, progress: Callable[[int], None]
) -> tuple[WrittenStack, int]:
    """Return the written stack, and the bytes that it would take without the codecs that need parameters."""
    layout = prepared.block.layout
    step = prepared.tiers[0][0].frames_per_group(layout)
    blocks = [prepared.block.frames(first, step) for first in range(0, layout.frames, step)]
    codecs: dict[str, StackCodec] = {}
    groups: list[FrameGroup] = []
    failures = dict.fromkeys(prepared.failures)
    plain_bytes = 0
    coded_groups = in_order(pool, partial(_code, prepared), list(enumerate(blocks)), _nbytes, _AHEAD_BYTES)
    for block, coded in zip(blocks, coded_groups, strict=True):
        failures |= dict.fromkeys(coded.failures)
        if coded.codec.codec_id not in codecs:
            codecs[coded.codec.codec_id] = _stack_codec(coded.codec, prepared, writer)
        number = list(codecs).index(coded.codec.codec_id)
        section = writer.append(FRAMES, coded.stream)
        groups.append(FrameGroup(section, number, block.layout.frames))
        plain_bytes += SECTION_HEADER_BYTES + coded.plain_bytes
        progress(len(groups) * step if len(groups) < len(blocks) else layout.frames)
    return WrittenStack(Stack(layout, tuple(codecs.values()), tuple(groups)), tuple(failures)), plain_bytes


def _stack_codec(codec: Codec, prepared: PreparedStack, writer: ContainerWriter) -> StackCodec:
    """Write the parameters of a codec, which go before its first group, and return what the stack says of it."""
    parameters = prepared.parameters[codec.codec_id]
    return StackCodec(codec.codec_id, writer.append(PARAMETERS, parameters) if parameters else None)


def _code(prepared: PreparedStack, numbered: tuple[int, PixelBlock]) -> _Coded:
    """Return the smallest stream of the first tier that has one, proven."""
    number, group = numbered
    failures: list[str] = []
    for tier in prepared.tiers:
        streams: list[tuple[Codec, bytes]] = []
        for codec in tier:
            try:
                streams.append((codec, _encode(codec, group, prepared)))
            except UnsupportedPixels:
                continue
            except Exception as error:  # P9
                failures.append(f"{codec.codec_id}: {error}")
        streams.sort(key=lambda pair: len(pair[1]))
        for codec, stream in streams:
            try:
                _prove(codec, stream, group, prepared)
                if number % SECOND_EVERY == 0 and not codec.agrees(stream, group, prepared.parameters[codec.codec_id]):
                    raise ValueError("another of its back ends decodes other samples.")
            except Exception as error:  # P9
                failures.append(f"{codec.codec_id}: {error}")
            else:
                return _Coded(codec, stream, _plain_bytes(streams, group, prepared), tuple(failures))
    raise RuntimeError(f"No codec could keep frames of shape {group.layout.shape}: {'; '.join(failures)}")


def _nbytes(numbered: tuple[int, PixelBlock]) -> int:
    return numbered[1].samples.nbytes


def _encode(codec: Codec, group: PixelBlock, prepared: PreparedStack) -> bytes:
    stream = codec.encode(group, prepared.parameters[codec.codec_id])
    if len(stream) > group.layout.nbytes + _RAW_OVERHEAD:
        raise UnsupportedPixels(f"{codec.codec_id} makes these samples larger.")
    return stream


def _prove(codec: Codec, stream: bytes, group: PixelBlock, prepared: PreparedStack) -> None:
    """Raise ValueError, or what the codec raises, unless the stream decodes to the samples of the group."""
    decoded = codec.decode(stream, group.layout, prepared.parameters[codec.codec_id])
    if decoded.dtype != group.samples.dtype or not np.array_equal(decoded, group.samples):
        raise ValueError("what it coded did not decode to the same samples.")


def _plain_bytes(streams: Sequence[tuple[Codec, bytes]], group: PixelBlock, prepared: PreparedStack) -> int:
    plain = (len(stream) for codec, stream in streams if not prepared.parameters[codec.codec_id])
    return min(plain, default=group.layout.nbytes + _RAW_OVERHEAD)
