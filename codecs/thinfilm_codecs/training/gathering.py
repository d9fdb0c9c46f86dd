"""What the network is trained on: its inputs at pixels drawn from all series, under the linear stages it will meet."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import structlog

from thinfilm_codecs.lossless.neural import fitting, references
from thinfilm_codecs.lossless.neural.compiled import Inputs
from thinfilm_codecs.lossless.neural.fitting import Sampler
from thinfilm_codecs.lossless.neural.model import Linear
from thinfilm_codecs.lossless.neural.values import UInt16, maps_for
from thinfilm_codecs.training.stacks import Series

_log = structlog.get_logger()

_GROUP_FRAMES = 20
_GROUP_PIXELS = 1 << 21
_WINDOW_PIXELS = 20_000_000
_LEAST_PIXELS = 500
_LINEAR_FITS = ((0, 0.2), (60_000, 0.3), (300_000, 0.5))
"""Pixels that a linear stage is fitted to (0: the prior as it is), and the share of what is learned under it."""


def windows_of(values: UInt16) -> list[UInt16]:
    """Return groups of frames as the codec makes them, evenly spread over a series (frames, rows, columns)."""
    frame = values.shape[1] * values.shape[2]
    step = min(len(values), max(_GROUP_FRAMES, _GROUP_PIXELS // frame))
    firsts = np.arange(0, len(values), step)
    count = max(1, min(len(firsts), _WINDOW_PIXELS // (step * frame)))
    return [values[first : first + step] for first in firsts[np.linspace(0, len(firsts) - 1, count).astype(int)]]


def gather_series(series: Series, linear: Linear, random: np.random.Generator, pixels: int) -> Inputs:
    """Return what the network shall learn of one series, at about `pixels` pixels.

    Most of it is seen with fitted linear stages, some with the prior; and with the references that lie nearest, with
    the frame before, and with none.
    """
    found = []
    values = maps_for(series.samples)[0]
    windows = windows_of(values.values(series.samples))
    pairs = references.candidates(windows[0])
    views = [((0, 0), 0.2)] if (1, 2) in pairs else [(pairs[0], 1.0)]
    if (1, 2) in pairs:
        views += [((1, 2), 0.8)] if len(pairs) < 3 else [((1, 2), 0.4), (pairs[2], 0.4)]
    for (lags, share), (fit, part) in itertools.product(views, _LINEAR_FITS):
        groups = fitting.grouped(windows, *lags, values.maximum)
        sampler = Sampler(groups, random)
        stage = fitting.fit_linear(sampler, linear, fit) if fit else linear
        fitting.predict(groups, stage)
        found.append(sampler.inputs(stage, int(pixels * share * part) + _LEAST_PIXELS)[0])
    return joined(found)


def gather(series: Sequence[Series], linear: Linear, random: np.random.Generator, most: int) -> list[Inputs]:
    """Return what the network shall learn of each series; one of n pixels gives about 150 sqrt(n), `most` at most."""
    found = []
    for each in series:
        found.append(gather_series(each, linear, random, min(int(150 * math.sqrt(each.samples.size)), most)))
        _log.info("gathered", series=each.name, shape=each.samples.shape, pixels=len(found[-1].means))
    return found


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Return the pixels of all parts."""
    fields = ("inputs", "means", "scales", "flats", "targets")
    return Inputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))
