"""Entrant: what a codec must do to be measured."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import UnsupportedPixels


class NotInstalled(Exception):
    """The library of a codec is not there; the message is one sentence that says how to get it."""


@dataclass(frozen=True)
class Coded:
    """A coded stack.

    payload: what the entrant decodes. nbytes: all bytes that must be kept, parameters too.
    fitting_seconds: CPU time of the encoder that went into fitting a model to the stack.
    """

    payload: Any
    nbytes: int
    fitting_seconds: float = 0.0


class Entrant(ABC):
    """A codec as it is measured."""

    @abstractmethod
    def encode(self, stack: PixelBlock) -> Coded:
        """Code a stack on one thread. Raises UnsupportedPixels for what the codec does not take."""

    @abstractmethod
    def decode(self, coded: Coded, layout: BlockLayout) -> SampleArray:
        """Decode a stack on one thread."""


class Own(Entrant):
    """A codec of Thinfilm as the gateway uses it: parameters once a stack, groups of frames apart."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, stack: PixelBlock) -> Coded:
        """Prepare the stack and code its groups. Raises UnsupportedPixels."""
        layout = stack.layout
        if not self._codec.supports(layout):
            raise UnsupportedPixels(f"{self._codec.codec_id} does not take blocks of shape {layout.shape}.")
        begin = process_time()
        parameters = self._codec.prepare(stack)
        fitting_seconds = process_time() - begin
        step = self._codec.frames_per_group(layout)
        groups = [stack.frames(first, step) for first in range(0, layout.frames, step)]
        streams = [self._codec.encode(group, parameters) for group in groups]
        return Coded((parameters, step, streams), len(parameters) + sum(map(len, streams)), fitting_seconds)

    def decode(self, coded: Coded, layout: BlockLayout) -> SampleArray:
        """Decode all groups."""
        parameters, step, streams = coded.payload
        samples = np.empty(layout.shape, layout.dtype)
        for number, stream in enumerate(streams):
            target = samples[number * step : (number + 1) * step]
            target[...] = self._codec.decode(stream, layout.with_frames(len(target)), parameters)
        return samples
