"""Padded planes: the samples of a group as the kernel wants them, their margins following from decoded samples.

Format: docs/formats/neural.md, "Planes".
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PAD_LEFT, PAD_RIGHT, PAD_TOP, PAD_BOTTOM = 8, 8, 3, 2
BIAS = 32768


@dataclass(frozen=True)
class Geometry:
    """Size of a group, and how many frames back its two references lie (0: none).

    maximum: largest sample; samples are 0 to maximum, at most 65,535.
    """

    frames: int
    rows: int
    columns: int
    lag_a: int
    lag_b: int
    maximum: int

    @property
    def pitch(self) -> int:
        """Samples from row to row of a padded plane."""
        return self.columns + PAD_LEFT + PAD_RIGHT

    @property
    def plane(self) -> int:
        """Samples of a padded plane."""
        return (self.rows + PAD_TOP + PAD_BOTTOM) * self.pitch

    def empty(self, fill: int) -> npt.NDArray[np.int16]:
        """Return the padded planes of the group, all of one value."""
        return np.full((self.frames, self.rows + PAD_TOP + PAD_BOTTOM, self.pitch), fill, np.int16)


def inside(planes: npt.NDArray[np.int16], geometry: Geometry) -> npt.NDArray[np.int16]:
    """Return the view of padded planes without their margin."""
    return planes[:, PAD_TOP : PAD_TOP + geometry.rows, PAD_LEFT : PAD_LEFT + geometry.columns]


def padded(samples: npt.NDArray[np.uint16], geometry: Geometry) -> npt.NDArray[np.int16]:
    """Return samples (frames, rows, columns), 0 to 65,535, as biased and padded planes.

    Left of a row lies the first sample of the row above, right of it its own last sample, below the frame its last row.
    """
    planes = geometry.empty(-BIAS)
    body = inside(planes, geometry)
    body[:] = (samples ^ np.uint16(BIAS)).view(np.int16)
    planes[:, PAD_TOP + 1 : PAD_TOP + geometry.rows, :PAD_LEFT] = body[:, :-1, :1]
    planes[:, PAD_TOP : PAD_TOP + geometry.rows, PAD_LEFT + geometry.columns :] = body[:, :, -1:]
    planes[:, PAD_TOP + geometry.rows :] = planes[:, PAD_TOP + geometry.rows - 1, None]
    return planes


def unpadded(planes: npt.NDArray[np.int16], geometry: Geometry) -> npt.NDArray[np.uint16]:
    """Return the samples of padded planes: the inverse of `padded`."""
    return np.ascontiguousarray(inside(planes, geometry)).view(np.uint16) ^ np.uint16(BIAS)
