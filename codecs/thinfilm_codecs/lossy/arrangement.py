"""How the frames of a group lie in four dimensions: which of them are volumes of one place.

Format: docs/formats/siren.md, "Places".
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, FrameAxis, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream

_GROUP_SAMPLES = 1 << 23
_GROUP_FRAMES = 4096
_FEWEST_POINTS = 64
_SIDE = 16
_NEARER = 0.85
"""Frames are of one place where they are so much nearer to each other than to frames of the places around."""

_PAIRS = 64


@dataclass(frozen=True)
class Arrangement:
    """Frame f is of place (f // run) % places; it is the next volume of that place.

    places: 1 where nothing is known. run: how many frames of a place follow one another.
    """

    places: int
    run: int

    @staticmethod
    def stated(codec_id: str, places: int, run: int, frames: int) -> "Arrangement":
        """Return what the stream of a codec says of a group of so many frames. Raises CorruptStream if it cannot be."""
        if not (places and run and (places - 1) * run < frames):
            raise CorruptStream(f"The {codec_id} stream has {places} places in runs of {run}, more than its frames.")
        return Arrangement(places, run)

    def frames_of(self, frames: int) -> list[npt.NDArray[np.int64]]:
        """Return for each place its frames of a group of so many, in order."""
        numbers = np.arange(frames)
        place = numbers // self.run % self.places
        return [numbers[place == each] for each in range(self.places)]

    def volumes(self, frames: int) -> int:
        """Return the most frames that a place has in a group of so many."""
        return len(self.frames_of(frames)[0])


ALONE = Arrangement(1, 1)


def frames_per_group(layout: BlockLayout) -> int:
    """Return the length of even groups of at most 8 million samples: of many volumes, since they are what is shared."""
    most = max(1, min(_GROUP_SAMPLES // (layout.rows * layout.columns), _GROUP_FRAMES))
    groups = -(-layout.frames // most)
    return -(-layout.frames // groups)


def arrangement_of(group: PixelBlock) -> Arrangement:
    """Return how the frames of a group seem to lie, from what they look like.

    Frames that the stack's order calls one place after another (FrameAxis.TIME) are runs of one place; in other stacks
    a frame may look most like one a volume earlier.
    """
    if len(group.samples) < 4 or group.samples[0].size < _FEWEST_POINTS:
        return ALONE
    small = _reduced(group.samples)
    return _runs(small) if group.frame_axis is FrameAxis.TIME else _rounds(small)


def _rounds(small: npt.NDArray[np.float64]) -> Arrangement:
    """Return the arrangement of volumes which follow one another, if any: the shortest lag that stands out."""
    distances = np.array([_distance(small, lag) for lag in range(1, len(small) // 2 + 2)])
    around = (distances[:-2] + distances[2:]) / 2
    dips = distances[1:-1] / np.maximum(around, 1e-9)
    if not len(dips) or dips.min() > _NEARER:
        return ALONE
    return Arrangement(2 + int(np.flatnonzero(dips * _NEARER <= dips.min())[0]), 1)


def _runs(small: npt.NDArray[np.float64]) -> Arrangement:
    """Return the arrangement of places that follow one another, each with all its volumes, if there are such."""
    count = len(small)
    steps = np.abs(small[1:] - small[:-1]).mean(1)
    chances = {}
    for run in range(2, count // 2 + 1):
        if count % run == 0:
            between = np.arange(1, count) % run == 0
            chances[run] = float(np.median(steps[~between]) / max(np.median(steps[between]), 1e-9))
    best = min(chances, key=chances.__getitem__, default=count)
    return Arrangement(count // best, best) if chances.get(best, 1.0) < _NEARER else ALONE


def _distance(small: npt.NDArray[np.float64], lag: int) -> float:
    later = np.unique(np.linspace(lag, len(small) - 1, min(_PAIRS, len(small) - lag)).astype(int))
    return float(np.median(np.abs(small[later] - small[later - lag]).mean(1)))


def _reduced(samples: SampleArray) -> npt.NDArray[np.float64]:
    """Return (frames, points): each frame as about 16 x 16 means, of mean 0 and deviation 1."""
    frames, rows, columns = samples.shape
    tops = np.unique(np.linspace(0, rows, min(rows, _SIDE) + 1).astype(int))[:-1]
    lefts = np.unique(np.linspace(0, columns, min(columns, _SIDE) + 1).astype(int))[:-1]
    sums = np.add.reduceat(np.add.reduceat(samples, tops, 1, dtype=np.float64), lefts, 2)
    areas = np.outer(np.diff(tops, append=rows), np.diff(lefts, append=columns))
    small: npt.NDArray[np.float64] = (sums / areas).reshape(frames, -1)
    small -= small.mean(1, keepdims=True)
    small /= np.maximum(small.std(1, keepdims=True), 1e-9)
    return small
