"""The map from samples to what is coded: 0 to at most 65,535, without offset and, where they pay, without gaps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.errors import UnsupportedPixels

UInt16 = npt.NDArray[np.uint16]

_WORTH_PACKING = 0.75
"""Levels are worth packing when fewer than this share of the range is in use."""


@dataclass(frozen=True, eq=False)
class ValueMap:
    """Sample = minimum + value, or minimum + levels[value]; values are 0 to maximum."""

    minimum: int
    maximum: int
    levels: UInt16 | None = None

    def values(self, samples: SampleArray) -> UInt16:
        """Return the values of samples. Raises UnsupportedPixels if one has none."""
        low, high = int(samples.min()), int(samples.max())
        span = self.maximum if self.levels is None else int(self.levels[-1])
        if low < self.minimum or high - self.minimum > span:
            raise UnsupportedPixels("The group has samples outside the range that the stack was prepared for.")
        offset = _offset(samples, self.minimum)
        if self.levels is None:
            return offset
        known = np.zeros(span + 1, bool)
        known[self.levels] = True
        if not known[offset].all():
            raise UnsupportedPixels("The group has samples that the stack was not prepared for.")
        inverse = np.zeros(span + 1, np.uint16)
        inverse[self.levels] = np.arange(self.maximum + 1)
        return inverse[offset]

    def samples(self, values: UInt16, dtype: str) -> SampleArray:
        """Return the samples of values."""
        offset = values if self.levels is None else self.levels[values]
        bits = np.iinfo(dtype).bits
        unsigned = offset.astype(f"uint{bits}")
        unsigned += unsigned.dtype.type(self.minimum % (1 << bits))
        return unsigned.view(dtype)

    def fits(self, dtype: str) -> bool:
        """Tell whether every value stands for a sample of the type."""
        limits = np.iinfo(dtype)
        span = self.maximum if self.levels is None else int(self.levels[-1])
        return limits.min <= self.minimum and self.minimum + span <= limits.max


def _offset(samples: SampleArray, minimum: int) -> UInt16:
    """Return samples - minimum, which is known to fit 16 bits, by arithmetic modulo 2^16."""
    return samples.astype(np.uint16) - np.uint16(minimum % (1 << 16))


def maps_for(samples: SampleArray) -> list[ValueMap]:
    """Return the maps worth trying for a stack: plain, and packed where many values are never used.

    Raises UnsupportedPixels if the samples span more than 16 bits.
    """
    minimum, maximum = int(samples.min()), int(samples.max())
    span = maximum - minimum
    if span > 65535:
        raise UnsupportedPixels(f"The neural codec keeps ranges of 16 bits; these samples span {span + 1} values.")
    used = np.zeros(span + 1, bool)
    for frame in samples:
        used[_offset(frame, minimum).ravel()] = True
    levels = np.flatnonzero(used).astype(np.uint16)
    maps = [ValueMap(minimum, span)]
    if 1 < len(levels) < _WORTH_PACKING * (span + 1):
        maps.append(ValueMap(minimum, len(levels) - 1, levels))
    return maps
