"""Entrant: what a codec must do to be measured."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray


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
