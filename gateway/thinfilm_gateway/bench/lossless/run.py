"""`thinfilm bench lossless DIR`: every codec on every series, one after the other, on one core."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.lossless import entrants
from thinfilm_gateway.bench.lossless.figures import Figures
from thinfilm_gateway.bench.lossless.measure import Measurement, Verdict, measure, noise_entropy
from thinfilm_gateway.bench.lossless.rows import Row
from thinfilm_gateway.bench.lossless.summary import summarise
from thinfilm_gateway.bench.machine import machine
from thinfilm_gateway.bench.processes import OneCore, ProcessEnded, single_threaded_libraries
from thinfilm_gateway.bench.series import Series, find
from thinfilm_gateway.progress import byte_step, step

_LIBRARIES = ("thinfilm", "numpy", "imagecodecs", "pyjpegls", "zstandard", "tomoz")


def run(
    console: Console, folder: Path, codecs: Sequence[str], slices: int | None = None, only: Sequence[str] = ()
) -> Figures:
    """Measure the codecs of these names on all series below `folder`.

    slices: only so many middle files of each series, or frames of a series of one file. only: files alone whose path
    below `folder` contains one of these. Raises UnknownEntrant, NothingToMeasure or CommandError.
    """
    names = entrants.check(codecs)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as scratch:
        with byte_step(console, f"read {folder}", None) as advance:
            found, skipped = find(folder, Path(scratch), slices, only, advance)
        with single_threaded_libraries(), OneCore() as core:
            for series in found:
                with step(console, f"{series.name}: {series.pixels / 1e6:.2f} Mpixel", len(names)) as done:
                    noise = core.call(noise_entropy, series)
                    for name in names:
                        rows.append(Row(series, name, noise, _measured(core, series, name)))
                        done()
    return Figures(machine(_LIBRARIES), tuple(rows), summarise(rows), tuple(skipped))


def _measured(core: OneCore, series: Series, name: str) -> Measurement:
    try:
        return core.call(measure, series, name)
    except ProcessEnded as error:
        return Measurement(Verdict.FAILED, str(error))
