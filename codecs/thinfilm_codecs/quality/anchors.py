"""The lossy standards of the field, as a yardstick: one component of one frame at a quality, through imagecodecs.

They are no codecs of the archive: their decoders compute in floating point, so that two machines may differ by a step.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import imagecodecs

from thinfilm_codecs.blocks import SampleArray


class Anchor(ABC):
    """A lossy standard.

    name: as people call it. ladder: the settings there are, gentlest first; each codes to fewer bits, as a rule.
    """

    name: str
    ladder: ClassVar[tuple[float, ...]]

    @abstractmethod
    def encode(self, image: SampleArray, setting: float) -> bytes:
        """Code (rows, columns) of uint8 or uint16."""

    @abstractmethod
    def decode(self, stream: bytes) -> SampleArray:
        """Return the image."""

    def within(self, image: SampleArray, bits_per_sample: float) -> bytes:
        """Return the stream of the gentlest setting that takes no more bits a sample, by bisection.

        Where even the coarsest takes more, that one: it errs less than any within the rate could.
        """
        limit = bits_per_sample * image.size / 8
        best = self.encode(image, self.ladder[-1])
        above, within = -1, len(self.ladder) - 1
        while within - above > 1:
            middle = (above + within) // 2
            stream = self.encode(image, self.ladder[middle])
            if len(stream) <= limit:
                within, best = middle, stream
            else:
                above = middle
        return best


class Jpeg(Anchor):
    """JPEG (ISO/IEC 10918-1) of samples of 8 or 12 bits: process 1, or 2 and 4; Huffman tables made for the image.

    The setting is the quality of the Independent JPEG Group.
    """

    ladder = tuple(range(100, 0, -1))

    def __init__(self, bits: int) -> None:
        if bits not in (8, 12):
            raise ValueError(f"JPEG codes samples of 8 or 12 bits, not {bits}.")
        self.name = "JPEG" if bits == 8 else "12-bit JPEG"
        self._bits = bits

    def encode(self, image: SampleArray, setting: float) -> bytes:
        """Code (rows, columns): uint8 for 8 bits, uint16 for 12."""
        return bytes(imagecodecs.jpeg8_encode(image, level=round(setting), bitspersample=self._bits, optimize=True))

    def decode(self, stream: bytes) -> SampleArray:
        """Return the image."""
        image: SampleArray = imagecodecs.jpeg8_decode(stream)
        return image


class Jpeg2000(Anchor):
    """JPEG 2000 (ISO/IEC 15444-1) through OpenJPEG: wavelet 9/7, one tile, one layer.

    The setting is the peak signal-to-noise ratio in dB that its rate control aims at. bits: of a sample, up to 16.
    """

    name = "JPEG 2000"
    ladder = tuple(half / 2 for half in range(220, 20, -1))

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def encode(self, image: SampleArray, setting: float) -> bytes:
        """Code (rows, columns) of uint8 or uint16."""
        level: Any = setting  # imagecodecs' stub says int, OpenJPEG takes fractions
        return bytes(
            imagecodecs.jpeg2k_encode(
                image, level=level, reversible=False, codecformat="J2K", bitspersample=self._bits, numthreads=1
            )
        )

    def decode(self, stream: bytes) -> SampleArray:
        """Return the image."""
        image: SampleArray = imagecodecs.jpeg2k_decode(stream, numthreads=1)
        return image
