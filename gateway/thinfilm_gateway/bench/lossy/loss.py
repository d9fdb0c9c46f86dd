"""Generational loss: one slice, coded a hundred times from its own decode."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from thinfilm_codecs.blocks import PixelBlock, SampleArray
from thinfilm_codecs.quality.generations import generations
from thinfilm_gateway.bench.entrant import Entrant
from thinfilm_gateway.bench.lossy import entrants
from thinfilm_gateway.bench.lossy.ceilings import permitted_rate
from thinfilm_gateway.bench.lossy.measure import gentlest_setting
from thinfilm_gateway.bench.series import Series

PASSES = 100


@dataclass(frozen=True)
class Generations:
    """Root mean square error to the original after each pass, all passes at one setting.

    reason: why there are none, where the codec failed or does not take such samples; then setting is None.
    """

    series: str
    codec: str
    setting: float | None
    rmse: tuple[float, ...]
    reason: str = ""


def generational_loss(series: Series, names: Sequence[str]) -> tuple[Generations, ...]:
    """Code a series of one frame again and again: each codec at the gentlest setting within the ceiling's rate.

    A codec whose every setting is above that rate takes its coarsest.
    """
    (stack,) = series.stacks
    block = stack.read()
    rate = permitted_rate(series.modality, 8 * block.samples.itemsize)
    assert rate is not None
    return tuple(_of_codec(series.name, block, name, rate) for name in names)


def _of_codec(series: str, block: PixelBlock, name: str, rate: float) -> Generations:
    try:
        setting = gentlest_setting(block, name, rate) or entrants.ladder(name)[-1]
        errors = generations(block, partial(_coded, entrants.entrant(name, setting)), PASSES)
    except Exception as error:  # whatever a codec does, the figures of the others are still to be shown
        return Generations(series, name, None, (), f"{type(error).__name__}: {error}")
    return Generations(series, name, setting, tuple(round(each, 4) for each in errors))


def _coded(entrant: Entrant, block: PixelBlock) -> SampleArray:
    return entrant.decode(entrant.encode(block), block.layout)
