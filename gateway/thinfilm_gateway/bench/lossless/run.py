"""`thinfilm bench lossless DIR`: every codec on every series, one after the other, on one core."""

import contextlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.console import Console

from thinfilm_gateway.bench.lossless import entrants
from thinfilm_gateway.bench.lossless.figures import Figures
from thinfilm_gateway.bench.lossless.measure import Measurement, Verdict, measure, noise_entropy
from thinfilm_gateway.bench.lossless.rows import Row
from thinfilm_gateway.bench.lossless.series import Series, find
from thinfilm_gateway.bench.lossless.summary import summarise
from thinfilm_gateway.bench.processes import process_on, single_threaded_libraries, usable_cpus
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
        with single_threaded_libraries(), _Measurer() as measurer:
            for series in found:
                with step(console, f"{series.name}: {series.pixels / 1e6:.2f} Mpixel", len(names)) as done:
                    noise = measurer.noise_entropy(series)
                    for name in names:
                        rows.append(Row(series, name, noise, measurer.measure(series, name)))
                        done()
    return Figures(_machine(), tuple(rows), summarise(rows), tuple(skipped))


class _Measurer:
    """A process with one core and one thread that measures; a new one, where a codec took the last one down."""

    def __enter__(self) -> "_Measurer":
        self._process = self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return process_on(usable_cpus()[-1:])

    def noise_entropy(self, series: Series) -> float:
        return self._process.submit(noise_entropy, series).result()

    def measure(self, series: Series, name: str) -> Measurement:
        try:
            return self._process.submit(measure, series, name).result()
        except BrokenProcessPool:
            self._process = self._start()
            return Measurement(Verdict.FAILED, "it ended the process that measured it")


def _machine() -> dict[str, str]:
    machine = {"processor": _processor(), "python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            machine[name] = importlib.metadata.version(name)
    return machine


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
