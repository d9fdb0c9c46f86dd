"""What all groups of a stack shall share: value map, references, linear stage and network, found by measurement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.lossless.neural import fitting, references
from thinfilm_codecs.lossless.neural.fitting import Sampler
from thinfilm_codecs.lossless.neural.model import Model, shipped
from thinfilm_codecs.lossless.neural.parameters import COEFFICIENT_STEPS, Parameters, pack, quantised_linear
from thinfilm_codecs.lossless.neural.presets import Preset
from thinfilm_codecs.lossless.neural.values import ValueMap, maps_for

UInt16 = npt.NDArray[np.uint16]

_JUDGED_PIXELS = 1 << 18, 1 << 19
_JUDGED_SHARE = 16
_BANDS = 3
_FEWEST_ROWS = 16
_FIT_PIXELS = 1 << 24
_CHOICE_SAMPLES = 40_000
_LINEAR_SAMPLES = 300_000


@dataclass(frozen=True)
class _Effort:
    """How a network is fitted: how often it sees a pixel, how many at most, and what fitting.tune takes."""

    passes: float
    most_pixels: int
    rate: float
    thrift: float


_EFFORTS = {
    Preset.FAST: None,
    Preset.DEFAULT: _Effort(1.3, 8_000_000, 2.5e-3, 4.0),
    Preset.MAX: _Effort(14.0, 200_000_000, 2.5e-3, 4.0),
}


def prepared(stack: PixelBlock, step: int, preset: Preset) -> Parameters:
    """Return the parameters that make a stack, coded in groups of `step` frames, smallest.

    Raises UnsupportedPixels if its samples span more than 16 bits.
    """
    model, effort, samples = shipped(), _EFFORTS[preset], stack.layout.samples
    plain = _referred(stack, step, model)
    sampler = _sampler(_groups_of(stack, plain.values, step, _FIT_PIXELS), plain)
    most = _LINEAR_SAMPLES if effort is None else max(_LINEAR_SAMPLES, sampler.pixels // 4)
    fitted = fitting.fit_linear(sampler, model.linear, most)
    stages = [quantised_linear(fitted, model, each) for each in COEFFICIENT_STEPS]
    choices = [plain] + [
        replace(plain, linear=linear, coefficient_step=each)
        for each, linear in zip(COEFFICIENT_STEPS, stages, strict=True)
    ]
    judge = _sampler(_bands_of(stack, plain.values, step), plain)
    chosen = min(choices, key=lambda choice: _cost(choice, judge, samples, predict=True))
    if effort is None:
        return chosen
    fitting.predict(sampler.groups, chosen.linear)
    budget = min(int(effort.passes * min(samples, 1.5 * sampler.pixels)), effort.most_pixels)
    network = fitting.tune(sampler, chosen.linear, model, budget, effort.rate, effort.thrift)
    return min(chosen, replace(chosen, network=network), key=lambda choice: _cost(choice, sampler, samples))


def as_frames(samples: SampleArray) -> SampleArray:
    """Return (frames, rows, columns): the components of a pixel become frames that follow one another."""
    if samples.ndim == 3:
        return samples
    frames, rows, columns, components = samples.shape
    return np.moveaxis(samples, 3, 1).reshape(frames * components, rows, columns)


def _referred(stack: PixelBlock, step: int, model: Model) -> Parameters:
    """Return the shipped model with the value map and the references that make bands of the stack smallest."""
    components = stack.layout.components
    tries = []
    for values in maps_for(stack.samples):
        bands = _bands_of(stack, values, step)
        pairs = [(1, components), (components, 1)] if components > 1 else references.candidates(bands[len(bands) // 2])
        tries += [(bands, Parameters(model, values, *lags, model.linear, model.network)) for lags in pairs]
    if len(tries) == 1:
        return tries[0][1]
    costs = []
    for bands, plain in tries:
        sampler = _sampler(bands, plain)
        linear = fitting.fit_linear(sampler, model.linear, _CHOICE_SAMPLES)
        fitting.predict(sampler.groups, linear)
        spent = fitting.estimate(sampler, linear, model.network, model)
        costs.append(spent * stack.layout.samples + 8 * len(pack(plain)))
    return tries[int(np.argmin(costs))][1]


def _cost(choice: Parameters, sampler: Sampler, samples: int, *, predict: bool = False) -> float:
    """Return about how many bits a stack of so many samples takes with these parameters, their own bytes counted."""
    if predict:
        fitting.predict(sampler.groups, choice.linear)
    same = Sampler(sampler.groups, np.random.default_rng(1))
    return fitting.estimate(same, choice.linear, choice.network, choice.model) * samples + 8 * len(pack(choice))


def _sampler(windows: Sequence[UInt16], p: Parameters) -> Sampler:
    return Sampler(fitting.grouped(windows, p.lag_a, p.lag_b, p.values.maximum), np.random.default_rng(0))


def _groups_of(stack: PixelBlock, values: ValueMap, step: int, pixels: int) -> list[UInt16]:
    """Return whole groups of the stack, evenly spread, of about so many pixels together."""
    firsts = _spread(stack, step, pixels)
    return [values.values(as_frames(stack.frames(first, step).samples)) for first in firsts]


def _bands_of(stack: PixelBlock, values: ValueMap, step: int) -> list[UInt16]:
    """Return bands of rows of some groups, evenly spread: a share of the stack, on which choices are measured."""
    layout = stack.layout
    pixels = int(np.clip(layout.samples // _JUDGED_SHARE, *_JUDGED_PIXELS))
    firsts = _spread(stack, step, pixels)
    row = min(step, layout.frames) * layout.columns * layout.components
    rows = max(_FEWEST_ROWS, pixels // (row * len(firsts) * _BANDS))
    if rows * _BANDS > layout.rows:
        rows, tops = layout.rows, [0]
    else:
        tops = [(2 * band + 1) * layout.rows // (2 * _BANDS) - rows // 2 for band in range(_BANDS)]
    return [
        values.values(as_frames(stack.frames(first, step).samples[:, top : top + rows]))
        for first in firsts
        for top in tops
    ]


def _spread(stack: PixelBlock, step: int, pixels: int) -> list[int]:
    """Return the first frames of groups, evenly spread, of about so many pixels together, at least one."""
    firsts = list(range(0, stack.layout.frames, step))
    per_group = step * stack.layout.samples // stack.layout.frames
    wanted = min(len(firsts), max(1, pixels // per_group))
    places = np.linspace(0, len(firsts) - 1, wanted).round() if wanted > 1 else [len(firsts) // 2]
    return [firsts[int(place)] for place in places]
