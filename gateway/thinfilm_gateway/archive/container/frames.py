"""Coding one stack of frames: group by group down the ladder of codecs, each group decoded and compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels
from thinfilm_codecs.lossless import search
from thinfilm_gateway.archive.container.format import FRAMES, PARAMETERS, FrameGroup, Stack, StackCodec
from thinfilm_gateway.archive.container.writer import ContainerWriter


@dataclass(frozen=True)
class WrittenStack:
    """A stack as it lies in the container, and a sentence a codec and fault on the way."""

    stack: Stack
    failures: tuple[str, ...]


class StackWriter:
    """Writes one stack."""

    def __init__(self, writer: ContainerWriter, block: PixelBlock, candidates: Sequence[str]) -> None:
        """Choose the ladder of codecs for `block`; raises KeyError for an unknown candidate."""
        self._writer = writer
        self._block = block
        self._ladder = search.choose(block, candidates)
        self._codecs: dict[str, StackCodec] = {}
        self._parameters: dict[str, bytes] = {}
        self._failures: dict[str, None] = {}  # as an ordered set

    def write(self, progress: Callable[[int], None]) -> WrittenStack:
        """Code and write all groups. `progress` is told how many frames are done."""
        layout = self._block.layout
        step = self._ladder[0].frames_per_group(layout)
        groups = []
        for first in range(0, layout.frames, step):
            group = self._block.frames(first, step)
            groups.append(self._write_group(group))
            progress(first + group.layout.frames)
        return WrittenStack(Stack(layout, tuple(self._codecs.values()), tuple(groups)), tuple(self._failures))

    def _write_group(self, group: PixelBlock) -> FrameGroup:
        for codec in list(self._ladder):
            try:
                stream = self._code(group, codec)
            except UnsupportedPixels:  # a refusal, no fault
                continue
            except Exception as error:  # P9: whatever goes wrong in a codec, the next one takes over
                self._failures[f"{codec.codec_id}: {error}"] = None
                if codec.codec_id not in self._parameters:  # it will not do better with the next group
                    self._ladder.remove(codec)
            else:
                return FrameGroup(self._writer.append(FRAMES, stream), self._number(codec), group.layout.frames)
        raise RuntimeError(f"No codec could keep frames of shape {group.layout.shape}: {'; '.join(self._failures)}")

    def _code(self, group: PixelBlock, codec: Codec) -> bytes:
        """Return the stream of a group, proven to decode to its samples."""
        if codec.codec_id not in self._parameters:
            self._parameters[codec.codec_id] = codec.prepare(self._block)
        parameters = self._parameters[codec.codec_id]
        stream = codec.encode(group, parameters)
        decoded = codec.decode(stream, group.layout, parameters)
        if decoded.dtype != group.samples.dtype or not np.array_equal(decoded, group.samples):
            raise ValueError("what it coded did not decode to the same samples.")
        return stream

    def _number(self, codec: Codec) -> int:
        """Return the codec's place among those of the stack; its parameters are written before its first group."""
        if codec.codec_id not in self._codecs:
            parameters = self._parameters[codec.codec_id]
            section = self._writer.append(PARAMETERS, parameters) if parameters else None
            self._codecs[codec.codec_id] = StackCodec(codec.codec_id, section)
        return list(self._codecs).index(codec.codec_id)
