"""Which earlier frames a frame is predicted from: the one before, or in four-dimensional series one further back."""

import numpy as np
import numpy.typing as npt

_LONGEST = 256
_PAIRS = 8


def candidates(frames: npt.NDArray[np.uint16]) -> list[tuple[int, int]]:
    """Return pairs of lags worth measuring for frames (frames, rows, columns) of one group.

    The closest frame may be the one before (a volume), or the same place in the volume before (fMRI, dMRI, cine).
    """
    count = len(frames)
    if count == 1:
        return [(0, 0)]
    if count == 2:
        return [(1, 0), (0, 0)]
    thin = np.ascontiguousarray(frames[:, ::4]).astype(np.int32)
    distances = {lag: _distance(thin, lag) for lag in range(1, min(count - 1, _LONGEST) + 1)}
    nearest = min(distances, key=distances.__getitem__)
    pairs = [(1, 2), (0, 0)]
    if nearest > 1:
        pairs += [(nearest, 1), (1, nearest), (nearest, 2 * nearest)]
    return [(a, b) for a, b in pairs if max(a, b) < count]


def _distance(frames: npt.NDArray[np.int32], lag: int) -> float:
    later = np.unique(np.linspace(lag, len(frames) - 1, min(_PAIRS, len(frames) - lag)).astype(int))
    return float(np.mean([np.abs(frames[i] - frames[i - lag]).mean() for i in later]))
