"""The figures of a measurement, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measurement.

    seconds: from the first request to the last response. latencies: 50th, 95th and 99th percentile of what a peer waits
    for, in milliseconds.
    """

    node: str
    case: str
    associations: int
    objects: int
    bytes: int
    seconds: float
    objects_per_second: float
    megabytes_per_second: float
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_p99: float


@dataclass(frozen=True)
class Figures:
    """All measurements of a command; latency: what it is the time of."""

    title: str
    latency: str
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        return {"title": self.title, "latency": self.latency, "rows": [asdict(row) for row in self.rows]}

    def table(self) -> Table:
        """Return the same for people."""
        table = Table(title=f"{self.title}; latency: {self.latency}", box=None, pad_edge=False, title_justify="left")
        for column in ("node", "case"):
            table.add_column(column)
        for column in ("associations", "objects", "objects/s", "MB/s", "p50 ms", "p95 ms", "p99 ms"):
            table.add_column(column, justify="right")
        for row in self.rows:
            figures = (row.objects_per_second, row.megabytes_per_second)
            latencies = (row.latency_ms_p50, row.latency_ms_p95, row.latency_ms_p99)
            table.add_row(
                row.node,
                row.case,
                str(row.associations),
                str(row.objects),
                *(f"{figure:.1f}" for figure in figures),
                *(f"{latency:.1f}" for latency in latencies),
            )
        return table


def row(node: str, case: str, associations: int, sizes: Sequence[int], seconds: float, waits: Sequence[float]) -> Row:
    """Make a row of the sizes of the objects in bytes and of how long each wait took in seconds."""
    return Row(
        node=node,
        case=case,
        associations=associations,
        objects=len(sizes),
        bytes=sum(sizes),
        seconds=round(seconds, 4),
        objects_per_second=round(len(sizes) / seconds, 2),
        megabytes_per_second=round(sum(sizes) / seconds / 1e6, 2),
        latency_ms_p50=_percentile(waits, 50),
        latency_ms_p95=_percentile(waits, 95),
        latency_ms_p99=_percentile(waits, 99),
    )


def _percentile(waits: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile, in milliseconds."""
    ordered = sorted(waits)
    rank = max(1, -(-len(ordered) * percent // 100))
    return round(1000 * ordered[rank - 1], 2)
