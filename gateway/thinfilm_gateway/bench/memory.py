"""`thinfilm bench memory`: how much memory a large series takes, in and out of a container."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from thinfilm_gateway.bench.processes import process_on, usable_cpus
from thinfilm_gateway.client.phantom import write_ct
from thinfilm_gateway.commands.compress import compress, sources
from thinfilm_gateway.commands.expand import expand
from thinfilm_gateway.progress import step

CODEC = "neural"
SLICES = 500
DISTINCT_SLICES = 50

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of a unit of ru_maxrss


@dataclass(frozen=True)
class Row:
    """What a command took, in a process of its own: seconds by the clock on the wall, and its largest resident set."""

    command: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Figures:
    """What one run measured. pixel_bytes: uncompressed, of the series."""

    slices: int
    pixel_bytes: int
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        return {"slices": self.slices, "pixel_bytes": self.pixel_bytes, "rows": [asdict(row) for row in self.rows]}

    def table(self) -> Table:
        """Return the same for people."""
        title = f"{CODEC}, {self.slices} CT images"
        table = Table(title=title, box=None, pad_edge=False, title_justify="left")
        table.add_column("command")
        for column in ("seconds", "peak MiB"):
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(row.command, f"{row.seconds:.1f}", str(row.peak_bytes >> 20))
        return table


def run(console: Console) -> Figures:
    """Compress and expand a synthetic series, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="thinfilm-bench-") as name:
        folder = Path(name)
        images, container, out = folder / "images", folder / "series.tfa", folder / "out"
        images.mkdir()
        with step(console, f"write {SLICES} images"):
            write_ct(images, SLICES, DISTINCT_SLICES)
        with step(console, "compress"):
            compressing = _in_a_process("compress", _compress, images, container, CODEC)
        with step(console, "expand"):
            expanding = _in_a_process("expand", _expand, container, out)
    return Figures(SLICES, SLICES * 512 * 512 * 2, (compressing, expanding))


def _in_a_process(command: str, work: Callable[..., int], *arguments: object) -> Row:
    begin = time.perf_counter()
    with process_on(usable_cpus()) as process:
        peak_bytes = process.submit(work, *arguments).result()
    return Row(command, round(time.perf_counter() - begin, 2), peak_bytes)


def _compress(images: Path, container: Path, codec: str) -> int:
    compress(sources([images]), container, [codec])
    return _peak_bytes()


def _expand(container: Path, out: Path) -> int:
    expand(container, out)
    return _peak_bytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
