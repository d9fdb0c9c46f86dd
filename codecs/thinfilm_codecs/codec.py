"""The contract of a codec."""

from abc import ABC, abstractmethod
from typing import ClassVar

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray


class Codec(ABC):
    """A lossless codec of pixel blocks.

    A stack (all frames of one layout in a series, in prediction order) is coded as groups of consecutive frames. A
    group is decoded without any other group. What all groups of a stack share, a fitted model for example, is the
    stack's parameters, kept once.

    Codecs are stateless: one object serves all threads.
    """

    codec_id: ClassVar[str]
    """Names the stream in containers, for ever: equal ids mean mutually decodable."""

    def tuned(self, preset: str, device: str) -> "Codec":
        """Return the codec that tries as hard as `preset` says and computes on `device`; itself where it knows neither.

        Every tuning decodes the streams of all others. Raises ValueError if the device is not there.
        """
        del preset, device
        return self

    def obstacle(self) -> str | None:
        """Return the sentence that says what this installation lacks to encode by the codec, with the mend; else None.

        What a decoder needs is always there.
        """
        return None

    @abstractmethod
    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether blocks of this layout can be coded at all."""

    @abstractmethod
    def frames_per_group(self, layout: BlockLayout) -> int:
        """How many frames of a stack of this layout make one group: the price of reading a single frame."""

    def prepare(self, stack: PixelBlock) -> bytes:
        """Return the parameters that all groups of the stack share; empty where the codec has none."""
        del stack
        return b""

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return the hashes, in hexadecimal, of the models that a decoder needs for these parameters.

        Raises CorruptStream for bytes that are no parameters of this codec.
        """
        del parameters
        return ()

    @abstractmethod
    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code one group of a stack that was prepared with `parameters`.

        Raises UnsupportedPixels if the samples are outside what the codec can keep.
        """

    def agrees(self, stream: bytes, group: PixelBlock, parameters: bytes) -> bool:
        """Tell whether another back end than that of `decode` finds the samples of the group in a part of its stream.

        Costs seconds at most. True where the codec has one back end alone.
        """
        del stream, group, parameters
        return True

    @abstractmethod
    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of a group: an array of layout.shape and layout.dtype.

        Raises CorruptStream for any bytes that are not a stream of this layout, of these MissingModel where the
        parameters name a model that is not installed; allocates no more than a small multiple of layout.nbytes.
        """
