"""The linear stage that a model starts from: least squares over the pixels of all series, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural import compiled, fitting, references, shape
from thinfilm_codecs.lossless.neural.fitting import Sampler
from thinfilm_codecs.lossless.neural.model import Linear
from thinfilm_codecs.lossless.neural.values import maps_for
from thinfilm_codecs.training.gathering import windows_of
from thinfilm_codecs.training.stacks import Series

_PIXELS = 100_000
_RIDGE = 1e-4
_MOST_MAGNITUDE = 31_000
"""What the coefficients of a class may sum to: below the format's 32,767, so that fitting has room around them."""

_BLANK = Linear(
    np.zeros(shape.ACTIVITY_CLASSES - 1, np.uint8),
    np.zeros(shape.CONSISTENCY_CLASSES - 1, np.uint8),
    np.zeros((shape.CLASSES, shape.TAPS), np.int16),
)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Pixels of one series that are not flat: all arrays have one entry a pixel."""

    taps: npt.NDArray[np.int16]
    targets: npt.NDArray[np.int32]
    activity: npt.NDArray[np.int64]
    level: npt.NDArray[np.int64]
    spread: npt.NDArray[np.int64]
    referred: npt.NDArray[np.bool_]


def pooled(series: Sequence[Series], random: np.random.Generator) -> Linear:
    """Return the linear stage that serves all series best, each counting the same.

    Errors are weighted by 1 / activity^2, as if relative to the noise around them. Classes are parted at quantiles.
    """
    views = [pixels for each in series for pixels in _views(each, random)]
    linear = Linear(
        _thresholds([view.level for view in views], shape.ACTIVITY_CLASSES),
        _thresholds([view.spread[view.referred] for view in views], shape.CONSISTENCY_CLASSES),
        _BLANK.coefficients,
    )
    squares = np.zeros((shape.CLASSES, shape.TAPS, shape.TAPS))
    wanted = np.zeros((shape.CLASSES, shape.TAPS))
    for view in views:
        classes = np.searchsorted(linear.activity_thresholds, view.level, side="right")
        consistency = np.searchsorted(linear.consistency_thresholds, view.spread, side="right")
        classes += np.where(view.referred, shape.ACTIVITY_CLASSES * (1 + consistency), 0)
        scaling = (1 / (view.activity / 32 + 1)).astype(np.float32)
        rows, targets = view.taps * scaling[:, None], view.targets * scaling
        for each in np.unique(classes):
            chosen = classes == each
            squares[each] += rows[chosen].T @ rows[chosen]
            wanted[each] += rows[chosen].T @ targets[chosen]
    traces = squares.trace(axis1=1, axis2=2)[:, None, None]
    ridges = (_RIDGE * traces / shape.TAPS + 1e-9) * np.eye(shape.TAPS)
    coefficients = np.linalg.solve(squares + ridges, wanted[:, :, None])[:, :, 0]
    whole = np.rint(coefficients * shape.COEFFICIENT_ONE)
    whole *= np.minimum(1, _MOST_MAGNITUDE / np.maximum(np.abs(whole).sum(1, keepdims=True), 1))
    return Linear(linear.activity_thresholds, linear.consistency_thresholds, np.trunc(whole).astype(np.int16))


def _views(series: Series, random: np.random.Generator) -> list[_Pixels]:
    """Return pixels of a series, seen with the frames before and seen alone."""
    values = maps_for(series.samples)[0]
    windows = windows_of(values.values(series.samples))
    nearest = references.candidates(windows[0])[0]
    found = []
    for lags in dict.fromkeys((nearest, (0, 0))):
        sampler = Sampler(fitting.grouped(windows, *lags, values.maximum), random)
        drawn = sampler.draw(min(_PIXELS, sampler.pixels))
        parts = [compiled.taps(group, _BLANK, index) for group, index in drawn]
        taps, targets, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
        activity, level, spread = fitting.pixel_features(taps)
        live = activity > 0
        referred = classes >= shape.ACTIVITY_CLASSES
        fields: list[npt.NDArray[Any]] = [taps, targets, activity, level, spread, referred]
        found.append(_Pixels(*(field[live] for field in fields)))
    return found


def _thresholds(values: Sequence[npt.NDArray[np.int64]], parts: int) -> npt.NDArray[np.uint8]:
    """Return what parts the values of all series together into equally many."""
    joined = np.concatenate(values)
    if not len(joined):
        return np.zeros(parts - 1, np.uint8)
    return np.quantile(joined, np.linspace(0, 1, parts + 1)[1:-1]).astype(np.uint8)
