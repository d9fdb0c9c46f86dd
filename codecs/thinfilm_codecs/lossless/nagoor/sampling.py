"""Local sampling: the causal neighbours of a pixel as a vector, the cube or the pyramid of Nagoor et al.

Format: docs/formats/nagoor.md, "Neighbourhood" and "Sampling". All numbers are integers that float32 holds exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MISSING = -1.0
"""Stands in padded planes for what lies outside the group; values are 0 to 65,535."""

LARGEST_INPUT = 127

INPUT_ONE_BITS = 3
"""An input of 2^3 stands for 1."""

LARGEST_RADIUS = 6

_REFERENCE = {(0, -1): 3, (-1, 0): 3, (-1, -1): 1, (-1, 1): 1}
_ACTIVITY = {(0, -1): 3, (-1, 0): 3, (-1, -1): 3, (-1, 1): 3, (0, -2): 2, (-2, 0): 2}
_HIGHEST_GAIN = 4
_INPUT_BITS = 8


@dataclass(frozen=True)
class Neighbourhood:
    """Which pixels a pixel is predicted from.

    radii: of the square in the pixel's own slice, of which the part before the pixel counts, then of the whole squares
        in the slices before it. (5, 5, 5, 5, 5, 5) is the causal half of the cube 11^3, (6, 4, 2, 0) the pyramid 13^2,
        9^2, 5^2, 1.
    """

    radii: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.radii or self.radii[0] < 2 or min(self.radii) < 0 or max(self.radii) > LARGEST_RADIUS:
            raise ValueError(f"The radii of a neighbourhood are 2 to {LARGEST_RADIUS}, then 0 to it; got {self.radii}.")

    @cached_property
    def offsets(self) -> tuple[Int64, ...]:
        """For each slice back, (n, 2) steps (rows, columns) in raster order."""
        found = []
        for back, radius in enumerate(self.radii):
            side = np.arange(-radius, radius + 1)
            square = np.stack(np.meshgrid(side, side, indexing="ij"), 2).reshape(-1, 2)
            found.append(square[: len(square) // 2] if back == 0 else square)
        return tuple(found)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """For each slice back, its place among the inputs."""
        ends = np.cumsum([len(offsets) for offsets in self.offsets]).tolist()
        return tuple(slice(end - len(offsets), end) for end, offsets in zip(ends, self.offsets, strict=True))

    @property
    def inputs(self) -> int:
        """Number of neighbours."""
        return sum(map(len, self.offsets))

    @property
    def margin(self) -> int:
        """Rows and columns around a padded plane."""
        return max(self.radii)

    @property
    def row_lag(self) -> int:
        """How many columns a row of the wavefront runs ahead of the next."""
        return self.radii[0] + 1

    @property
    def frame_lag(self) -> int:
        """How many columns a frame of the wavefront runs ahead of the next."""
        reach = [(radius * (1 + self.row_lag)) // back + 1 for back, radius in enumerate(self.radii) if back]
        return max(reach, default=1)

    def columns_of(self, weights: dict[tuple[int, int], int]) -> tuple[list[int], Float32]:
        """Return the inputs at these steps in the own slice, and their weights."""
        own = [tuple(step) for step in self.offsets[0].tolist()]
        return [own.index(step) for step in weights], np.array(list(weights.values()), np.float32)


@dataclass(frozen=True, eq=False)
class Planes:
    """Values of a group: (1 + frames, rows + 2 margin, columns + 2 margin), the first frame and the margins missing."""

    padded: Float32
    margin: int

    @staticmethod
    def empty(shape: Sequence[int], margin: int) -> "Planes":
        """Return planes for (frames, rows, columns) values, all of them missing."""
        frames, rows, columns = shape
        size = (frames + 1, rows + 2 * margin, columns + 2 * margin)
        return Planes(np.full(size, MISSING, np.float32), margin)

    @staticmethod
    def of(values: npt.NDArray[np.uint16], margin: int) -> "Planes":
        """Return planes that hold values (frames, rows, columns)."""
        planes = Planes.empty(values.shape, margin)
        planes.inside[:] = values
        return planes

    @property
    def inside(self) -> Float32:
        """The view of the group's own pixels."""
        m = self.margin
        return self.padded[1:, m : self.padded.shape[1] - m, m : self.padded.shape[2] - m]

    def gather(self, pixels: Int64, hood: Neighbourhood) -> Float32:
        """Return the neighbours (n, hood.inputs) of pixels (n, 3): frame, row, column."""
        _, rows, pitch = self.padded.shape
        frame, place = pixels[:, 0], (pixels[:, 1] + self.margin) * pitch + pixels[:, 2] + self.margin
        found = np.empty((len(pixels), hood.inputs), np.float32)
        flat = self.padded.ravel()
        for back, (offsets, part) in enumerate(zip(hood.offsets, hood.slices, strict=True)):
            start = np.maximum(frame + 1 - back, 0) * (rows * pitch) + place
            found[:, part] = flat[start[:, None] + (offsets[:, 0] * pitch + offsets[:, 1])]
        return found


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels as the network sees them.

    inputs: (n, hood.inputs), -127 to 127: the neighbours' differences from the reference, times 2^gain. references,
    activities, gains: (n,). Where the activity is 0 the reference is the prediction.
    """

    inputs: Float32
    references: Int64
    activities: Int64
    gains: Int64


def sample(neighbours: Float32, hood: Neighbourhood) -> Sample:
    """Return what `Planes.gather` found, relative to the nearest neighbours and scaled by how far they differ."""
    missing = neighbours == MISSING
    references = _references(neighbours, missing, hood)
    differences = neighbours - references[:, None]
    differences[missing] = 0
    near, weights = hood.columns_of(_ACTIVITY)
    activities = np.abs(differences[:, near]) @ weights
    gains = np.minimum(_INPUT_BITS - np.frexp(activities)[1], _HIGHEST_GAIN)
    differences *= np.ldexp(np.float32(1), gains)[:, None]
    differences += np.float32(0.5)
    np.floor(differences, out=differences)
    np.clip(differences, -LARGEST_INPUT, LARGEST_INPUT, out=differences)
    return Sample(differences, references.astype(np.int64), activities.astype(np.int64), gains.astype(np.int64))


def _references(neighbours: Float32, missing: npt.NDArray[np.bool_], hood: Neighbourhood) -> Float32:
    """Return the rounded mean of the nearest neighbours that there are; else the pixel one slice back, or 0."""
    near, weights = hood.columns_of(_REFERENCE)
    present = np.where(missing[:, near], 0, weights).astype(np.int64)
    total = present.sum(1)
    mean = ((neighbours[:, near].astype(np.int64) * present).sum(1) + total // 2) // np.maximum(total, 1)
    back = np.zeros_like(mean)
    if len(hood.radii) > 1:
        part = hood.slices[1]
        back = np.maximum(neighbours[:, (part.start + part.stop) // 2].astype(np.int64), 0)
    found: Float32 = np.where(total > 0, mean, back).astype(np.float32)
    return found


def targets(values: Float32, sampled: Sample) -> Float32:
    """Return what the network should say of pixels with these values (n,), in its own units."""
    found: Float32 = np.ldexp(values - sampled.references.astype(np.float32), sampled.gains - INPUT_ONE_BITS)
    return found
