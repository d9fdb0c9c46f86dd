"""Coding one stack of frames: group by group down the ladder of codecs, each group decoded and compared."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_codecs.lossless import search
from thinfilm_gateway.archive.container.format import FRAMES, PARAMETERS, FrameGroup, Stack, StackCodec
from thinfilm_gateway.archive.container.writer import ContainerWriter

_MOST_OVERHEAD = 1024  # bytes of a stream above those of its samples: headers count in tiny groups


@dataclass(frozen=True)
class WrittenStack:
    """A stack as it lies in the container, and one sentence for each way in which a codec failed."""

    stack: Stack
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Coded:
    """A group, proven to decode to its samples; failures of the codecs that were tried before."""

    codec: Codec
    stream: bytes
    failures: tuple[str, ...]


class StackWriter:
    """Writes one stack."""

    def __init__(self, writer: ContainerWriter, block: PixelBlock, candidates: Sequence[str]) -> None:
        """Choose the ladder of codecs for `block`; raises KeyError for an unknown candidate."""
        self._writer = writer
        self._block = block
        choice = search.choose(block, candidates)
        self._ladder = choice.codecs
        self._choice_failures = choice.failures
        self._parameters: dict[str, bytes | Exception] = {}
        self._preparing = threading.Lock()
        self._codecs: dict[str, StackCodec] = {}

    def write(self, threads: int, progress: Callable[[int], None]) -> WrittenStack:
        """Code all groups, `threads` at a time, and write them in order; `progress` is told the frames done."""
        layout = self._block.layout
        step = self._ladder[0].frames_per_group(layout)
        blocks = [self._block.frames(first, step) for first in range(0, layout.frames, step)]
        groups: list[FrameGroup] = []
        failures = dict.fromkeys(self._choice_failures)  # as an ordered set
        pool = ThreadPoolExecutor(threads)
        try:
            for block, coded in zip(blocks, pool.map(self._code, blocks), strict=True):
                failures |= dict.fromkeys(coded.failures)
                number = self._codec_number(coded.codec)
                groups.append(FrameGroup(self._writer.append(FRAMES, coded.stream), number, block.layout.frames))
                progress(len(groups) * step if len(groups) < len(blocks) else layout.frames)
        finally:
            pool.shutdown(cancel_futures=True)
        return WrittenStack(Stack(layout, tuple(self._codecs.values()), tuple(groups)), tuple(failures))

    def _code(self, group: PixelBlock) -> _Coded:
        failures: list[str] = []
        for codec in self._ladder:
            try:
                return _Coded(codec, self._prove(group, codec), tuple(failures))
            except UnsupportedPixels:  # a refusal, no fault
                continue
            except Exception as error:  # P9: whatever goes wrong in a codec, the next one takes over
                failures.append(f"{codec.codec_id}: {error}")
        raise RuntimeError(f"No codec could keep frames of shape {group.layout.shape}: {'; '.join(failures)}")

    def _prove(self, group: PixelBlock, codec: Codec) -> bytes:
        """Return the stream of a group, proven to decode to its samples."""
        parameters = self._prepared(codec)
        stream = codec.encode(group, parameters)
        if len(stream) > group.layout.nbytes + _MOST_OVERHEAD:
            raise UnsupportedPixels(f"{codec.codec_id} makes these samples larger.")
        decoded = codec.decode(stream, group.layout, parameters)
        if decoded.dtype != group.samples.dtype or not np.array_equal(decoded, group.samples):
            raise ValueError("what it coded did not decode to the same samples.")
        return stream

    def _prepared(self, codec: Codec) -> bytes:
        """Return the parameters of a codec, made once; a codec that cannot make them fails for every group."""
        with self._preparing:
            if codec.codec_id not in self._parameters:
                try:
                    self._parameters[codec.codec_id] = codec.prepare(self._block)
                except Exception as error:  # kept, to be raised again
                    self._parameters[codec.codec_id] = error
            parameters = self._parameters[codec.codec_id]
        if isinstance(parameters, Exception):
            raise parameters
        return parameters

    def _codec_number(self, codec: Codec) -> int:
        """Return the codec's place among those of the stack; its parameters are written before its first group."""
        if codec.codec_id not in self._codecs:
            parameters = self._prepared(codec)
            section = self._writer.append(PARAMETERS, parameters) if parameters else None
            self._codecs[codec.codec_id] = StackCodec(codec.codec_id, section)
        return list(self._codecs).index(codec.codec_id)
