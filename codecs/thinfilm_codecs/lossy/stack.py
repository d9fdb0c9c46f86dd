"""Code a whole stack with a lossy codec, and search its ladder for the setting that is wanted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.lossy.codec import LossyCodec


@dataclass(frozen=True, eq=False)
class CodedStack:
    """A stack as a lossy codec keeps it, and what that decodes to.

    codec: at the setting that the stack was coded with. streams: one a group of codec.frames_per_group frames, the last
    group may be shorter. samples: what the streams decode to, of the stack's shape and dtype.
    """

    codec: LossyCodec
    parameters: bytes
    streams: tuple[bytes, ...]
    samples: SampleArray

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters and of all streams."""
        return len(self.parameters) + sum(map(len, self.streams))


def code(stack: PixelBlock, codec: LossyCodec, threads: int = 1) -> CodedStack:
    """Code a stack at the codec's setting, so many groups at a time, and decode the streams.

    Raises UnsupportedPixels if the codec cannot keep such samples.
    """
    parameters = codec.prepare(stack)
    step = codec.frames_per_group(stack.layout)
    samples = np.empty(stack.layout.shape, stack.layout.dtype)

    def one(first: int) -> bytes:
        group = stack.frames(first, step)
        stream = codec.encode(group, parameters)
        samples[first : first + step] = codec.decode(stream, group.layout, parameters)
        return stream

    with ThreadPoolExecutor(threads) as pool:
        streams = tuple(pool.map(one, range(0, stack.layout.frames, step)))
    return CodedStack(codec, parameters, streams, samples)


def coarsest(
    stack: PixelBlock, codec: LossyCodec, accepts: Callable[[CodedStack], bool], threads: int = 1, start: int = 0
) -> CodedStack | None:
    """Return the stack at the coarsest setting that is accepted, None if not even the gentlest is.

    Where accepted and refused settings alternate on the ladder, it is one that is accepted before one that is not.
    start: the place on the ladder near which it is expected.
    """
    return _parted(stack, codec, lambda coded: not accepts(coded), threads, start)[0]


def gentlest(
    stack: PixelBlock, codec: LossyCodec, reaches: Callable[[CodedStack], bool], threads: int = 1, start: int = 0
) -> CodedStack | None:
    """Return the stack at the gentlest setting that reaches what is asked, None if not even the coarsest does.

    Where settings that reach it and that do not alternate on the ladder, it is one that does after one that does not.
    start: the place on the ladder near which it is expected.
    """
    return _parted(stack, codec, reaches, threads, start)[1]


def _parted(
    stack: PixelBlock, codec: LossyCodec, beyond: Callable[[CodedStack], bool], threads: int, start: int
) -> tuple[CodedStack | None, CodedStack | None]:
    """Return the stack at two neighbours on the ladder, of which the first is not beyond, the second is.

    None stands for what lies before or behind the ladder. Strides double from the start, by default the gentle end,
    where the settings are that diagnostic images are kept with, until they have passed from one to the other; bisection
    follows. No setting is coded twice.
    """
    near, far = -1, len(codec.ladder)
    within: CodedStack | None = None
    past: CodedStack | None = None
    place, stride = start, 1
    while far - near > 1:
        coded = code(stack, codec.at(codec.ladder[place]), threads)
        if beyond(coded):
            far, past = place, coded
        else:
            near, within = place, coded
        if within and past:
            place = (near + far) // 2
        else:
            place = min(near + stride, far - 1) if within else max(far - stride, near + 1)
        stride *= 2
    return within, past
