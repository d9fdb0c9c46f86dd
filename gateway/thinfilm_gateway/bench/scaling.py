"""`thinfilm bench scaling`: how much faster two cores are than one, over the groups of a series."""

import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from thinfilm_codecs import registry
from thinfilm_codecs.blocks import PixelBlock
from thinfilm_gateway.bench.processes import process_on, single_threaded_libraries, usable_cpus
from thinfilm_gateway.bench.series import find
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.progress import step

CODEC = "neural"
PRESET = "fast"  # the same streams to write and read as those of other presets, without the time to fit them
SLICES = 64
ROUNDS = 3


class TooFewCores(Exception):
    """There is one CPU only; the message is one sentence."""


@dataclass(frozen=True)
class Row:
    """Speed of the codec in one direction, by the clock on the wall; ratio: of two cores to one."""

    direction: str
    one_core_mpixel_s: float
    two_cores_mpixel_s: float
    ratio: float


@dataclass(frozen=True)
class Figures:
    """What one run measured."""

    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        return {"codec": CODEC, "rows": [asdict(row) for row in self.rows]}

    def table(self) -> Table:
        """Return the same for people."""
        title = f"{CODEC}, {SLICES} CT images, Mpixel/s"
        table = Table(title=title, box=None, pad_edge=False, title_justify="left")
        table.add_column("direction")
        for column in ("one core", "two cores", "ratio"):
            table.add_column(column, justify="right")
        for row in self.rows:
            speeds = (row.one_core_mpixel_s, row.two_cores_mpixel_s, row.ratio)
            table.add_row(row.direction, *(f"{speed:.2f}" for speed in speeds))
        return table


def run(console: Console) -> Figures:
    """Measure encoding and decoding of a synthetic series. Raises TooFewCores."""
    cpus = usable_cpus()
    if len(cpus) < 2:
        raise TooFewCores("Scaling is measured on two CPUs, and this process may use one only.")
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        with step(console, f"write {SLICES} images"):
            write_ct(Path(name), SLICES)
        measuring = f"code and decode them on one core and on two, {ROUNDS} times"
        with step(console, measuring), single_threaded_libraries(), process_on(cpus[-2:]) as process:
            return process.submit(_measure, Path(name)).result()


def _measure(folder: Path) -> Figures:
    """Take the best of several rounds."""
    (series,), _ = find(folder, folder, None, (), lambda count: None)
    stack = series.stacks[0].read()
    codec = registry.get(CODEC, PRESET)
    parameters = codec.prepare(stack)
    length = codec.frames_per_group(stack.layout)
    groups = [stack.frames(first, length) for first in range(0, stack.layout.frames, length)]
    streams = [codec.encode(group, parameters) for group in groups]

    def encode(group: PixelBlock) -> None:
        codec.encode(group, parameters)

    def decode(pair: tuple[PixelBlock, bytes]) -> None:
        codec.decode(pair[1], pair[0].layout, parameters)

    pairs = list(zip(groups, streams, strict=True))
    rows = (_row("encode", stack.layout.samples, encode, groups), _row("decode", stack.layout.samples, decode, pairs))
    return Figures(rows)


def _row(direction: str, pixels: int, work: Callable[[Any], None], items: list[Any]) -> Row:
    seconds = {threads: min(_seconds(work, items, threads) for _ in range(ROUNDS)) for threads in (1, 2)}
    one, two = (pixels / seconds[threads] / 1e6 for threads in (1, 2))
    return Row(direction, round(one, 3), round(two, 3), round(two / one, 3))


def _seconds(work: Callable[[Any], None], items: Iterable[Any], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        list(pool.map(work, items))
        return time.perf_counter() - begin
