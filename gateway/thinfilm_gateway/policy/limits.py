"""What the samples of a lossy image must keep, however near they are otherwise."""

from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.blocks import SampleArray


@dataclass(frozen=True)
class SampleLimits:
    """The values that samples may have.

    least, most: of Bits Stored. padding: the first and the last value that mark pixels outside the image (PS3.3
    C.7.5.1.1.2), None where there are none.
    """

    least: int
    most: int
    padding: tuple[int, int] | None = None

    def holds(self, samples: SampleArray) -> bool:
        """Tell whether all samples are values of Bits Stored: nothing else is kept in the bits above."""
        return int(samples.min()) >= self.least and int(samples.max()) <= self.most

    def complaint(self, original: SampleArray, decoded: SampleArray) -> str:
        """Return a sentence on what decoded samples do not keep; empty if they keep all."""
        if not self.holds(decoded):
            return "A sample would exceed its Bits Stored."
        if self.padding is not None:
            was, now = self._is_padding(original), self._is_padding(decoded)
            if not np.array_equal(was, now):
                return "A pixel of the image would become padding, or the other way round."
            if not np.array_equal(original[was], decoded[now]):
                return "Padding would not keep its value."
        return ""

    def _is_padding(self, samples: SampleArray) -> SampleArray:
        assert self.padding is not None
        first, last = self.padding
        inside: SampleArray = (samples >= first) & (samples <= last)
        return inside
