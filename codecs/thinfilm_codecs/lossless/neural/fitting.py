"""Fitting the model to a stack: which references, which linear stage, which weights. Only the encoder does this.

Nothing here must be exact: what it finds is carried in the parameters, rounded.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural import compiled, shape
from thinfilm_codecs.lossless.neural.compiled import Group, Inputs
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network
from thinfilm_codecs.lossless.neural.objective import FloatNetwork, bits
from thinfilm_codecs.lossless.neural.planes import Geometry, padded
from thinfilm_codecs.lossless.neural.reference import logarithm

UInt16 = npt.NDArray[np.uint16]

LINEAR_SAMPLES = 250_000
ESTIMATE_SAMPLES = 30_000
BATCH = 2048

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
        """Return (group, flat indices) of about `count` pixels, each pixel as likely as any."""
        sizes = self._sizes()
        counts = self.random.multinomial(count, np.array(sizes) / sum(sizes))
        return [
            (group, self.random.integers(0, size, drawn))
            for group, size, drawn in zip(self.groups, sizes, counts, strict=True)
            if drawn
        ]

    def inputs(self, linear: Linear, count: int) -> tuple[Inputs, float]:
        """Return the network's inputs of about `count` pixels that it is asked for, and the share of these."""
        drawn = [compiled.inputs(group, linear, index) for group, index in self.draw(count)]
        fields = ("inputs", "means", "scales", "flats", "targets")
        joined = Inputs(*(np.concatenate([getattr(part, name) for part in drawn]) for name in fields))
        asked = joined.flats != 2
        return Inputs(*(getattr(joined, name)[asked] for name in fields)), float(asked.mean())


def predict(groups: Sequence[Group], linear: Linear) -> None:
    """Fill the errors of all groups."""
    for group in groups:
        compiled.predict(group, linear)


def estimate(sampler: Sampler, linear: Linear, network: Network, model: Model) -> float:
    """Return about how many bits a pixel costs; the errors must have been predicted."""
    batch, asked = sampler.inputs(linear, ESTIMATE_SAMPLES)
    if not len(batch.means):
        return 0.0
    return float(bits(FloatNetwork.of(network), model, batch, gradient=False)[0].mean()) * asked


def fit_linear(sampler: Sampler, prior: Linear, samples: int = LINEAR_SAMPLES) -> Linear:
    """Return a linear stage fitted to the groups by weighted least squares, class by class."""
    drawn = sampler.draw(min(samples, sampler.pixels))
    parts = [compiled.taps(group, prior, index) for group, index in drawn]
    taps, targets = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    activity, level, spread = pixel_features(taps)
    live = activity > 0
    referred = live & taps[:, 24:].any(1)
    linear = Linear(
        _quantiles(level[live], shape.ACTIVITY_CLASSES, prior.activity_thresholds),
        _quantiles(spread[referred], shape.CONSISTENCY_CLASSES, prior.consistency_thresholds),
        prior.coefficients,
    )
    classes = np.concatenate([compiled.taps(group, linear, index)[2] for group, index in drawn])
    scaling = 1 / np.sqrt(activity / 32 + 1)
    coefficients = prior.coefficients.astype(np.float64) / shape.COEFFICIENT_ONE
    for each in np.unique(classes[live]):
        chosen = live & (classes == each)
        rows = taps[chosen].astype(np.float32) * scaling[chosen, None].astype(np.float32)
        wanted = (targets[chosen] * scaling[chosen]).astype(np.float32)
        squares = (rows.T @ rows).astype(np.float64)
        ridge = (1e-4 + 20 / chosen.sum()) * np.trace(squares) / shape.TAPS + 1e-6
        held = (rows.T @ wanted).astype(np.float64) + ridge * coefficients[each]
        coefficients[each] = np.linalg.solve(squares + ridge * np.eye(shape.TAPS), held)
    whole = np.rint(coefficients * shape.COEFFICIENT_ONE)
    whole *= np.minimum(1, 31500 / np.maximum(np.abs(whole).sum(1, keepdims=True), 1))
    return replace(linear, coefficients=np.rint(whole).astype(np.int16))


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

    rate: the largest learning rate. thrift: how strongly weights are held to the shipped ones, in bits a step.
    """
    network, base = FloatNetwork.of(model.network), FloatNetwork.of(model.network).arrays()
    arrays = network.arrays()
    first, second = [np.zeros_like(a) for a in arrays], [np.zeros_like(a) for a in arrays]
    steps = max(1, pixels // BATCH)
    for step in range(steps):
        batch, _ = sampler.inputs(linear, BATCH)
        if not len(batch.means):
            continue
        spent, slopes = bits(network, model, batch, gradient=True)
        now = rate * min(1, (step + 1) / 30) * (0.05 + 0.475 * (1 + np.cos(np.pi * step / steps)))
        for array, shipped, slope, m, v in zip(arrays, base, slopes, first, second, strict=True):
            m += np.float32(0.1) * (slope - m)
            v += np.float32(0.02) * (slope * slope - v)
            size = now / (1 - 0.9 ** (step + 1))
            array -= np.float32(size) * m / (np.sqrt(v / np.float32(1 - 0.98 ** (step + 1))) + np.float32(1e-8))
            if thrift:
                moved = array - shipped
                array -= np.clip(moved, -now * thrift, now * thrift).astype(np.float32)
        if watch:
            watch(float(spent.mean()))
    return network.rounded(model.network)
