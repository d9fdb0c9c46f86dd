"""What a model is worth on scanners it never saw, and whether one model serves all kinds of images.

python -m thinfilm_codecs.training.validation sources TRAIN... --measure OTHERS...: trains one model on all series and,
for each source, one without the series that have its word in Manufacturer or name; both are measured on those of the
other folders that have it. With `modalities` in place of `sources`: trains the shipped model on with the series of one
kind, and with all for as long; both are measured on that kind. Needs torch.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.lossless.neural import compiled, fitting, references
from thinfilm_codecs.lossless.neural.compiled import Inputs
from thinfilm_codecs.lossless.neural.fitting import Sampler
from thinfilm_codecs.lossless.neural.model import Model, from_arrays, shipped
from thinfilm_codecs.lossless.neural.parameters import COEFFICIENT_STEPS, Parameters, pack, quantised_linear
from thinfilm_codecs.lossless.neural.values import maps_for
from thinfilm_codecs.training.gathering import gather, joined
from thinfilm_codecs.training.network import TrainedNetwork
from thinfilm_codecs.training.neural import model_of
from thinfilm_codecs.training.runs import Plan, train
from thinfilm_codecs.training.stacks import NoTrainingData, Series, read_all

_log = structlog.get_logger()

KINDS: Mapping[str, frozenset[str]] = {
    "CT": frozenset({"CT"}),
    "MR": frozenset({"MR"}),
    "PET": frozenset({"PT"}),
    "projection": frozenset({"CR", "DX", "MG", "XA", "RF"}),
}
_FRAMES = 24
_SIDE = 320
_RATE, _THRIFT = 2.5e-3, 2.0
"""How the preset `default` fits a network to a stack."""

_RATE_ON = 1e-3
"""Learning rate where a trained model is trained on."""


@dataclass(frozen=True)
class Cost:
    """Bits a pixel of a series, all parameters counted: under the network as trained, and fitted if that is less."""

    unfitted: float
    fitted: float


def crop(samples: SampleArray) -> SampleArray:
    """Return the middle of the middle frames: at most 24 of 320 x 320."""
    kept = zip(samples.shape, (_FRAMES, _SIDE, _SIDE), strict=True)
    starts = [(max(size - most, 0) // 2, min(size, most)) for size, most in kept]
    return samples[tuple(slice(start, start + size) for start, size in starts)]


def cost(samples: SampleArray, model: Model) -> Cost:
    """Return what a stack (frames, rows, columns) costs as one group, prepared much as the encoder would."""
    value_map = maps_for(samples)[0]
    values = value_map.values(samples)
    lags = references.candidates(values)[0]
    (group,) = groups = fitting.grouped([values], *lags, value_map.maximum)
    sampler = Sampler(groups, np.random.default_rng(0))
    linear = quantised_linear(fitting.fit_linear(sampler, model.linear), model, COEFFICIENT_STEPS[0])
    fitting.predict(groups, linear)
    tuned = fitting.tune(sampler, linear, model, values.size, _RATE, _THRIFT)
    costs = []
    for network in (model.network, tuned):
        carried = pack(Parameters(model, value_map, *lags, linear, network, COEFFICIENT_STEPS[0]))
        costs.append(8 * (len(carried) + len(compiled.encode(group, linear, network, model))) / values.size)
    return Cost(costs[0], min(costs))


def gap(measured: Sequence[Series], one: Model, other: Model) -> list[str]:
    """Return rows of a table: what each series costs with one model, and how much more with the other."""
    rows, changes = [], []
    for series in measured:
        stack = crop(series.samples)
        here, there = cost(stack, one), cost(stack, other)
        changes.append((there.unfitted / here.unfitted, there.fitted / here.fitted))
        rows.append(_row(f"{series.modality} {series.name}", here, *changes[-1]))
        _log.info("measured", series=series.name, shape=stack.shape)
    return [*rows, _row(f"geometric mean of {len(rows)}", None, *np.exp(np.log(changes).mean(0)))]


def _row(name: str, base: Cost | None, unfitted: float, fitted: float) -> str:
    bits = f"{base.unfitted:.3f} | {base.fitted:.3f}" if base else " | "
    return f"| {name} | {bits} | {100 * (unfitted - 1):+.2f} % | {100 * (fitted - 1):+.2f} % |"


def without_sources(
    training: Sequence[Series], measured: Sequence[Series], words: Sequence[str], plan: Plan, most: int
) -> Iterator[str]:
    """Yield the lines of a table of what it costs each source that the model saw nothing of it."""
    yield from _head("all sources", "without its own")
    everything = from_arrays(model_of(training, plan, most))
    for word in words:
        theirs = [series for series in measured if word in series.words]
        rest = [series for series in training if word not in series.words]
        if not theirs or len(rest) in (0, len(training)):
            raise NoTrainingData(
                f"{word} is the source of no series here, or of all that are trained on; name another."
            )
        yield f"| *{word}: {len(training) - len(rest)} of {len(training)} series left out* | | | | |"
        yield from gap(theirs, everything, from_arrays(model_of(rest, plan, most)))


def by_kinds(training: Sequence[Series], measured: Sequence[Series], plan: Plan, most: int) -> Iterator[str]:
    """Yield the lines of a table of what each kind of images gains by a model trained on with that kind alone."""
    base = shipped()
    random = np.random.default_rng(plan.seed)
    parts = gather(training, base.linear, random, most)
    everything = _trained_on(base, parts, plan)
    yield from _head("trained on with all", "with its kind alone")
    for kind, modalities in KINDS.items():
        theirs = [series for series in measured if series.modality in modalities]
        own = [part for part, series in zip(parts, training, strict=True) if series.modality in modalities]
        if theirs and own:
            yield f"| *{kind}: {len(own)} of {len(training)} series trained on* | | | | |"
            yield from gap(theirs, everything, _trained_on(base, own, plan))


def _trained_on(base: Model, parts: Sequence[Inputs], plan: Plan) -> Model:
    return from_arrays(train(joined(parts), plan, start=TrainedNetwork.of(base)).export(base.linear))


def _head(one: str, other: str) -> list[str]:
    return [
        f"| bits a pixel | {one} | the same, fitted | {other} | the same, fitted |",
        "| --- | --- | --- | --- | --- |",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the data, train, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=("sources", "modalities"))
    parser.add_argument("data", nargs="+", type=Path, help="folders of DICOM to train on, a folder a series below them")
    parser.add_argument("--measure", nargs="+", type=Path, required=True, help="folders of other series, to measure on")
    parser.add_argument("--table", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--words", nargs="*", default=["GE", "PHILIPS", "SIEMENS"], help="sources to leave out in turn")
    parser.add_argument("--leave-out", nargs="*", default=[], help="words; folders with one in their path are left out")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=4096, help="pixels of a step")
    parser.add_argument("--most", type=int, default=200_000, help="pixels of a series to train on, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        training, measured = read_all(given.data, given.leave_out), read_all(given.measure, given.leave_out)
        if given.question == "sources":
            plan = Plan(shipped().network.width, given.steps, batch=given.batch, seed=given.seed)
            lines = without_sources(training, measured, given.words, plan, given.most)
        else:
            plan = Plan(shipped().network.width, given.steps, _RATE_ON, given.batch, given.seed)
            lines = by_kinds(training, measured, plan, given.most)
        with given.table.open("w", encoding="utf-8") as table:
            for line in lines:
                table.write(line + "\n")
                table.flush()
    except NoTrainingData as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
