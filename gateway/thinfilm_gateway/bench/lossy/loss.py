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
    """Root mean square error to the original after each pass, all passes at one setting."""

    series: str
    codec: str
    setting: float
    rmse: tuple[float, ...]


def generational_loss(series: Series, names: Sequence[str]) -> tuple[Generations, ...]:
    """Code a series of one frame again and again: each codec at the gentlest setting within the ceiling's rate.

    A codec whose every setting is above that rate takes its coarsest.
    """
    (stack,) = series.stacks
    block = stack.read()
    rate = permitted_rate(series.modality, 8 * block.samples.itemsize)
    assert rate is not None
    found = []
    for name in names:
        setting = gentlest_setting(block, name, rate)
        setting = entrants.ladder(name)[-1] if setting is None else setting
        errors = generations(block, partial(_coded, entrants.entrant(name, setting)), PASSES)
        found.append(Generations(series.name, name, setting, tuple(round(error, 4) for error in errors)))
    return tuple(found)


def _coded(entrant: Entrant, block: PixelBlock) -> SampleArray:
    return entrant.decode(entrant.encode(block), block.layout)
