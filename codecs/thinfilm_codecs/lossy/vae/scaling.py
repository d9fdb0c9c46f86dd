"""How samples become what the network sees: values in units of the stack's own small differences, around its mean."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.lossy.exact import Floats, rescale

OUTPUT_ONE_BITS = 10
"""An output of the network of 2^10 stands for one unit."""

LARGEST_SHIFT = 20
"""Of the shifts that decoders accept."""

_NUMERATOR_BITS = 15
_MOST_FRAMES = 16
_LARGEST_UNIT = 4096.0
_SMALLEST_UNIT = 1 / 16
_MOST_UNITS = 8192


@dataclass(frozen=True)
class Scaling:
    """Samples are centre + unit * value, and lie in minimum to maximum; unit = numerator / 2^shift."""

    minimum: int
    maximum: int
    centre: int
    numerator: int
    shift: int

    @property
    def unit(self) -> float:
        """What a value of 1 is worth in stored samples."""
        return float(self.numerator / 2**self.shift)

    @staticmethod
    def of(samples: SampleArray) -> "Scaling":
        """Return the scaling of a stack (frames, rows, columns)."""
        minimum, maximum = int(samples.min()), int(samples.max())
        least = max(_SMALLEST_UNIT, (maximum - minimum) / _MOST_UNITS)
        unit = min(max(activity(samples), least), _LARGEST_UNIT)
        shift = _NUMERATOR_BITS - 1 - math.floor(math.log2(unit))
        numerator = min(round(unit * 2**shift), 2**_NUMERATOR_BITS - 1)
        return Scaling(minimum, maximum, round(float(samples.mean())), numerator, shift)

    def values(self, samples: SampleArray) -> npt.NDArray[np.float32]:
        """Return what the network sees of samples."""
        return ((samples.astype(np.float32) - self.centre) / self.unit).astype(np.float32)

    def samples(self, outputs: Floats, dtype: str) -> SampleArray:
        """Return the samples for outputs of the network: integers of OUTPUT_ONE_BITS."""
        found = rescale(outputs * self.numerator, self.shift + OUTPUT_ONE_BITS) + self.centre
        return np.clip(found, self.minimum, self.maximum).astype(dtype)


def activity(samples: SampleArray) -> float:
    """Return the mean absolute difference of a sample to the mean of its neighbours left and right, in samples.

    Of up to 16 frames of a stack (frames, rows, columns); flat places do not count; 1 where there are no others. About
    the standard deviation of the noise where noise is all there is.
    """
    frames = samples[:: -(-len(samples) // _MOST_FRAMES)].astype(np.float64)
    if frames.shape[2] < 3:
        return 1.0
    differences: npt.NDArray[Any] = np.abs(frames[:, :, 1:-1] - (frames[:, :, :-2] + frames[:, :, 2:]) / 2)
    differences = differences[differences > 0]
    return float(differences.mean()) if differences.size else 1.0
