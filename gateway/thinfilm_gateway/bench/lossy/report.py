"""The report of `thinfilm bench lossy`: the tables in Markdown."""

from collections.abc import Iterator
from pathlib import Path

from thinfilm_gateway.bench.lossy.figures import Figures, Table


def write(figures: Figures, path: Path, plot_file: Path | None) -> None:
    """Write the report; plot_file: the plot that it shows, where there is one. Raises OSError."""
    path.write_text("\n".join(_lines(figures, path, plot_file)) + "\n", encoding="utf-8")


def _lines(figures: Figures, path: Path, plot_file: Path | None) -> Iterator[str]:
    yield "# Lossy codecs: rate, distortion, speed"
    yield ""
    yield ", ".join(f"{name} {version}" for name, version in figures.machine.items())
    if plot_file:
        shown = plot_file.name if plot_file.resolve().parent == path.resolve().parent else plot_file.resolve()
        yield f"\n![Rate and distortion]({shown})"
    for table in figures.tables():
        yield ""
        yield from _table(table)
    remarks = figures.remarks()
    if remarks:
        yield ""
        yield from (f"- {remark}" for remark in remarks)


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.title}"
    yield ""
    yield _line(table.columns)
    yield _line(tuple("---" if number < table.texts else "---:" for number in range(len(table.columns))))
    yield from map(_line, table.rows)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
