"""`thinfilm bench lossy DIR`: every codec on every series at the same rates, one after the other, on one core."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.lossy import entrants
from thinfilm_gateway.bench.lossy.ceilings import permitted_rate
from thinfilm_gateway.bench.lossy.figures import Figures
from thinfilm_gateway.bench.lossy.loss import Generations, generational_loss
from thinfilm_gateway.bench.lossy.measure import Measurement, Verdict, measure
from thinfilm_gateway.bench.lossy.rows import Result, Subject, rows_of
from thinfilm_gateway.bench.lossy.summary import summarise
from thinfilm_gateway.bench.machine import machine
from thinfilm_gateway.bench.processes import OneCore, ProcessEnded, single_threaded_libraries
from thinfilm_gateway.bench.series import NothingToMeasure, Series, Skipped, cut, find
from thinfilm_gateway.progress import byte_step, step

RATES = (4.0, 2.0, 1.0, 0.5, 0.25)
"""Bits a sample that settings are sought for, besides the rate of the ceiling."""

GENERATIONAL = ("kwavelet", entrants.NEAR_LOSSLESS, "jpeg", "jpeg12", entrants.JPEG2000)
"""The codecs that code one slice again and again."""

_LIBRARIES = ("thinfilm", "numpy", "imagecodecs", "pyjpegls", "scipy")


@dataclass(frozen=True)
class _Task:
    """What is measured of a series, and by which codecs."""

    subject: Subject
    names: tuple[str, ...]


def run(
    console: Console,
    folder: Path,
    codecs: Sequence[str],
    slices: int | None = None,
    only: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
) -> Figures:
    """Measure the codecs of these names on all series below `folder` that were not compressed lossily before.

    slices, only: as in series.find. limits: most samples a series, by codec; beside a codec that has one JPEG 2000 and
    near_lossless are measured on the same middle frames. Raises UnknownEntrant, NothingToMeasure or CommandError.
    """
    names = entrants.check(codecs)
    results: list[Result] = []
    loss: tuple[Generations, ...] = ()
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as scratch:
        with byte_step(console, f"read {folder}", None) as advance:
            found, skipped = find(folder, Path(scratch), slices, only, advance)
        originals = [series for series in found if not series.already_lossy]
        if not originals:
            raise NothingToMeasure(f"All images below {folder} were compressed lossily before.")
        with single_threaded_libraries(), OneCore() as core:
            for task in (task for series in originals for task in _tasks(series, names, limits or {})):
                series = task.subject.series
                with step(console, f"{series.name}: {series.pixels / 1e6:.2f} Mpixel", len(task.names)) as done:
                    for name in task.names:
                        results.append(Result(task.subject, name, _measured(core, task.subject, name)))
                        done()
            slice_of_ct = next((series for series in originals if series.modality == "CT"), None)
            if slice_of_ct:
                with step(console, "generational loss", 1) as done:
                    chosen = [name for name in GENERATIONAL if name in names]
                    loss = core.call(generational_loss, cut(slice_of_ct, 1), chosen)
                    done()
    lossy = [Skipped(each.name, "It was compressed lossily before.") for each in found if each.already_lossy]
    return Figures(machine(_LIBRARIES), tuple(results), summarise(rows_of(results)), loss, (*skipped, *lossy))


def _tasks(series: Series, names: Sequence[str], limits: Mapping[str, int]) -> Iterator[_Task]:
    """Yield the series with the codecs that code all of it, and cut with those that do not and what they stand by."""
    rate = permitted_rate(series.modality, 8 * series.native_bytes // series.pixels)
    cut_to: dict[int, list[str]] = {}
    for name in names:
        if series.pixels > limits.get(name, series.pixels):
            cut_to.setdefault(limits[name], []).append(name)
    slow = {name for several in cut_to.values() for name in several}
    whole = tuple(name for name in names if name not in slow)
    if whole:
        yield _Task(Subject(series, False, rate), whole)
    for pixels, several in cut_to.items():
        beside = tuple(name for name in (entrants.NEAR_LOSSLESS, entrants.JPEG2000) if name in whole)
        yield _Task(Subject(cut(series, pixels), True, rate), (*several, *beside))


def _measured(core: OneCore, subject: Subject, name: str) -> Measurement:
    rates = RATES if subject.rate is None else (*RATES, subject.rate)
    try:
        return core.call(measure, subject.series, name, rates)
    except ProcessEnded as error:
        return Measurement(Verdict.FAILED, str(error))
