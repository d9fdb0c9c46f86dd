"""Fitting the model to a stack: which references, which linear stage, which weights. Only the encoder does this.

Nothing here must be exact: what it finds is carried in the parameters, rounded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural import compiled, shape
from thinfilm_codecs.lossless.neural.compiled import Float, Group, Inputs, objective
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network
from thinfilm_codecs.lossless.neural.planes import Geometry, padded
from thinfilm_codecs.lossless.neural.reference import logarithm

UInt16 = npt.NDArray[np.uint16]

LINEAR_SAMPLES = 250_000
THRESHOLD_SAMPLES = 40_000
ESTIMATE_SAMPLES = 30_000
BATCH = 2048
_CHUNK = 1 << 15
_DRAWN = 16
_FIRST, _SECOND = 0.9, 0.98  # Adam's memory of slopes and of their squares
_FIELDS = ("inputs", "means", "scales", "flats", "targets")

_ACTIVITY_WEIGHTS = np.array([0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 1, 3, 4, 3, 1, 0, 0, 0, 1, 2, 4, 2, 1, 0], np.int64)


def grouped(windows: Iterable[UInt16], lag_a: int, lag_b: int, maximum: int) -> list[Group]:
    """Return the planes of some groups of frames, coded with these references."""
    groups = []
    for window in windows:
        frames, rows, columns = window.shape
        geometry = Geometry(frames, rows, columns, lag_a, lag_b, maximum)
        groups.append(Group(geometry, padded(window, geometry), geometry.empty(0)))
    return groups


@dataclass(frozen=True)
class Sampler:
    """Draws pixels from groups."""

    groups: Sequence[Group]
    random: np.random.Generator

    def _sizes(self) -> list[int]:
        return [g.geometry.frames * g.geometry.rows * g.geometry.columns for g in self.groups]

    @property
    def pixels(self) -> int:
        """Pixels of all groups."""
        return sum(self._sizes())

    def draw(self, count: int) -> list[tuple[Group, npt.NDArray[np.int64]]]:
        """Return (group, rising flat indices) of `count` pixels, one of each equal part of all pixels."""
        sizes = self._sizes()
        places = (np.arange(count) + self.random.random(count)) * (sum(sizes) / count)
        index = np.minimum(places.astype(np.int64), sum(sizes) - 1)
        starts = np.cumsum([0, *sizes[:-1]])
        parts = np.split(index, np.searchsorted(index, starts[1:]))
        return [
            (group, part - start) for group, start, part in zip(self.groups, starts, parts, strict=True) if len(part)
        ]

    def inputs(self, linear: Linear, count: int) -> tuple[Inputs, float]:
        """Return the network's inputs of about `count` pixels that it is asked for, and the share of these."""
        drawn = [compiled.inputs(group, linear, index) for group, index in self.draw(count)]
        joined = Inputs(*(np.concatenate([getattr(part, name) for part in drawn]) for name in _FIELDS))
        asked = joined.flats != 2
        if asked.all():
            return joined, 1.0
        return Inputs(*(getattr(joined, name)[asked] for name in _FIELDS)), float(asked.mean())


def predict(groups: Sequence[Group], linear: Linear) -> None:
    """Fill the errors of all groups."""
    for group in groups:
        compiled.predict(group, linear)


def estimate(sampler: Sampler, linear: Linear, network: Network, model: Model) -> float:
    """Return about how many bits a pixel costs; the errors must have been predicted."""
    batch, asked = sampler.inputs(linear, ESTIMATE_SAMPLES)
    if not len(batch.means):
        return 0.0
    return float(objective(network, model, batch, gradient=False)[0].mean()) * asked


def fit_linear(sampler: Sampler, prior: Linear, samples: int = LINEAR_SAMPLES) -> Linear:
    """Return a linear stage fitted to the groups by weighted least squares, class by class."""
    linear = _thresholds(sampler, prior, min(samples, THRESHOLD_SAMPLES))
    squares = np.zeros((shape.CLASSES, shape.TAPS, shape.TAPS))
    products, counts = np.zeros((shape.CLASSES, shape.TAPS)), np.zeros(shape.CLASSES, np.int64)
    for group, index in sampler.draw(min(samples, sampler.pixels)):
        for first in range(0, len(index), _CHUNK):
            found = compiled.equations(group, linear, index[first : first + _CHUNK])
            squares += found.squares
            products += found.products
            counts += found.counts
    coefficients = prior.coefficients.astype(np.float64) / shape.COEFFICIENT_ONE
    for each in np.flatnonzero(counts):
        ridge = (1e-4 + 20 / counts[each]) * np.trace(squares[each]) / shape.TAPS + 1e-6
        held = products[each] + ridge * coefficients[each]
        coefficients[each] = np.linalg.solve(squares[each] + ridge * np.eye(shape.TAPS), held)
    whole = np.rint(coefficients * shape.COEFFICIENT_ONE)
    whole *= np.minimum(1, 31500 / np.maximum(np.abs(whole).sum(1, keepdims=True), 1))
    return replace(linear, coefficients=np.rint(whole).astype(np.int16))


def _thresholds(sampler: Sampler, prior: Linear, samples: int) -> Linear:
    """Return the prior's coefficients behind thresholds that part the groups' pixels evenly."""
    taps = np.concatenate([compiled.taps(group, prior, index)[0] for group, index in sampler.draw(samples)])
    activity, level, spread = pixel_features(taps)
    live = activity > 0
    referred = live & taps[:, 24:].any(1)
    return Linear(
        _quantiles(level[live], shape.ACTIVITY_CLASSES, prior.activity_thresholds),
        _quantiles(spread[referred], shape.CONSISTENCY_CLASSES, prior.consistency_thresholds),
        prior.coefficients,
    )


def pixel_features(taps: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int64], ...]:
    """Return activity, its logarithm and the spread of the way to the reference, as the kernel finds them."""
    wide = taps.astype(np.int64)
    activity = np.abs(wide[:, :24]) @ _ACTIVITY_WEIGHTS
    level = logarithm(activity + 16)
    way = np.concatenate([wide[:, 4:8] - wide[:, 32:36], wide[:, 10:14] - wide[:, 26:30]], 1)
    apart = np.abs(way - ((way.sum(1) + 4) >> 3)[:, None]).sum(1)
    return activity, level, np.clip(logarithm(4 * apart + 16) - level + 64, 0, 127)


def _quantiles(values: npt.NDArray[np.int64], parts: int, otherwise: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if not len(values):
        return otherwise
    return np.quantile(values, np.linspace(0, 1, parts + 1)[1:-1]).astype(np.uint8)


def moved_by(network: Network, steps: Float) -> Network:
    """Return the network whose weights, then biases, lie so many whole steps away, weights held to -127..127."""
    sizes = [w.size for w in network.weights] + [b.size for b in network.biases]
    parts = np.split(np.rint(steps).astype(np.int32), np.cumsum(sizes)[:-1])
    w = [
        np.clip(base + part.reshape(base.shape), -127, 127).astype(np.int8)
        for base, part in zip(network.weights, parts[:3], strict=True)
    ]
    b = [base + part * step for base, part, step in zip(network.biases, parts[3:], shape.BIAS_STEPS, strict=True)]
    return Network((w[0], w[1], w[2]), (b[0], b[1], b[2]))


def _batches(sampler: Sampler, linear: Linear, count: int) -> Iterator[Inputs]:
    """Yield `count` batches of pixels that the network is asked for, drawn many at a time, which is faster."""
    for first in range(0, count, _DRAWN):
        drawn = min(_DRAWN, count - first)
        pool, _ = sampler.inputs(linear, drawn * BATCH)
        order = sampler.random.permutation(len(pool.means))
        for part in np.array_split(order, drawn):
            if len(part):
                yield Inputs(*(getattr(pool, name)[part] for name in _FIELDS))


def tune(
    sampler: Sampler,
    linear: Linear,
    model: Model,
    pixels: int,
    rate: float,
    thrift: float,
    watch: Callable[[float], None] | None = None,
) -> Network:
    """Return the shipped network, fitted to about `pixels` pixels of the groups by Adam.

    rate: the largest learning rate. thrift: what a step away from a shipped weight costs in the parameters, in bits;
    this pulls back what the groups do not repay.
    """
    rate, thrift = rate * shape.WEIGHT_ONE, thrift / sampler.pixels
    moved = np.zeros(model.network.size, np.float32)
    first, second = np.zeros_like(moved), np.zeros_like(moved)
    steps = max(1, pixels // BATCH)
    for step, batch in enumerate(_batches(sampler, linear, steps)):
        spent, slopes = objective(moved_by(model.network, moved), model, batch, gradient=True)
        slopes /= np.float32(len(spent))
        now = rate * min(1, (step + 1) / 30) * (0.05 + 0.475 * (1 + np.cos(np.pi * step / steps)))
        first += np.float32(1 - _FIRST) * (slopes - first)
        second += np.float32(1 - _SECOND) * (slopes * slopes - second)
        size = np.sqrt(second / np.float32(1 - _SECOND ** (step + 1))) + np.float32(1e-8)
        moved -= np.float32(now / (1 - _FIRST ** (step + 1))) * first / size
        pull = np.float32(now * thrift) / size
        moved -= np.clip(moved, -pull, pull)
        if watch:
            watch(float(spent.mean()))
    return moved_by(model.network, moved)
