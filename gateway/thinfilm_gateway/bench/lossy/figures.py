"""All figures of `thinfilm bench lossy`, as tables for people and as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from thinfilm_gateway.bench.lossy.loss import Generations
from thinfilm_gateway.bench.lossy.measure import Verdict
from thinfilm_gateway.bench.lossy.rows import Result, Row, rows_of
from thinfilm_gateway.bench.lossy.summary import Summary, at_ceiling
from thinfilm_gateway.bench.series import Skipped


@dataclass(frozen=True)
class Table:
    """A table, ready to be written: the first `texts` columns are words, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 2


@dataclass(frozen=True)
class Figures:
    """What one run measured. machine: processor and versions by name."""

    machine: dict[str, str]
    results: tuple[Result, ...]
    summary: Summary
    generations: tuple[Generations, ...]
    skipped: tuple[Skipped, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row a series, codec and setting."""
        return rows_of(list(self.results))

    @property
    def failures(self) -> list[str]:
        """A sentence for each measurement that failed."""
        failed = [result for result in self.results if result.measured.verdict is Verdict.FAILED]
        return [f"{each.codec} on {each.subject.series.name}: {each.measured.reason}." for each in failed]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        summary = self.summary
        kinds: dict[str, Sequence[Any]] = {
            "bd_rate": summary.delta_rates,
            "ceiling": summary.at_ceiling,
            "near_lossless_beside_jpeg2000": summary.beside_jpeg2000,
            "speed": summary.speeds,
            "generations": self.generations,
        }
        return {
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "summary": [{"kind": kind, **_finite(asdict(each))} for kind, found in kinds.items() for each in found],
            "failures": self.failures,
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }

    def tables(self) -> tuple[Table, ...]:
        """Return the tables, those that have rows."""
        tables = (
            self._at_ceilings(),
            _winners(self.summary),
            _beside_jpeg2000(self.summary),
            _delta_rates(self.summary),
            _speeds(self.summary),
            _generations(self.generations),
        )
        return tuple(table for table in tables if table.rows)

    def table(self) -> RenderableType:
        """Return the same for people, and what the tables leave out."""
        parts: list[RenderableType] = []
        for table in self.tables():
            parts += [_rendered(table), Text()]
        return Group(*parts, *map(Text, self.remarks()))

    def remarks(self) -> list[str]:
        """Sentences about what the tables leave out."""
        remarks = [
            f"{result.codec} on {result.subject.series.name}: {result.measured.reason}"
            for result in self.results
            if result.measured.verdict is Verdict.UNSUPPORTED
        ]
        remarks += [f"{each.codec}, generational loss: {each.reason}" for each in self.generations if each.reason]
        remarks += [f"FAILED {failure}" for failure in self.failures]
        reasons = Counter(skipped.reason for skipped in self.skipped)
        return remarks + [f"{count} skipped: {reason}" for reason, count in reasons.most_common()]

    def _at_ceilings(self) -> Table:
        """Each series at the rate of its ceiling: bits, PSNR and largest error of each codec."""
        codecs = list(dict.fromkeys(row.codec for row in self.rows))
        lines = []
        for series in dict.fromkeys(row.subject.series.name for row in self.rows):
            of_series = [row for row in self.rows if row.subject.series.name == series]
            rate = of_series[0].subject.rate
            found = {codec: at_ceiling(row for row in of_series if row.codec == codec) for codec in codecs}
            if rate is not None and any(found.values()):
                lines.append((series, f"{rate:.2f}", *(_at(found[codec]) for codec in codecs)))
        title = "At the ceiling of the modality: bits a sample, PSNR in dB (stored range), largest error"
        return Table(title, ("series", "rate", *codecs), tuple(lines), texts=1)


def _winners(summary: Summary) -> Table:
    columns = ("series of", "codec", "series", "bits", "RMSE", "PSNR", "largest error", "best PSNR", "least error")
    rows = tuple(
        (
            each.group,
            each.codec,
            str(each.series),
            f"{each.bits_per_pixel:.2f}",
            f"{each.rmse:.2f}",
            f"{each.psnr_stored:.2f}",
            f"{each.max_error:.1f}",
            str(each.wins_psnr),
            str(each.wins_max_error),
        )
        for each in summary.at_ceiling
    )
    return Table("At the ceilings: means over series, and in how many a codec is best", columns, rows)


def _beside_jpeg2000(summary: Summary) -> Table:
    columns = ("series of", "series", "gain, dB", "at equal rate, dB", "its series", "largest errors", "worst")
    rows = tuple(
        (
            each.group,
            str(each.series),
            f"{each.gain_db:+.2f}",
            f"{each.equal_rate_gain_db:+.2f}" if each.equal_rate_series else "-",
            str(each.equal_rate_series),
            f"{each.max_error_ratio:.3f}",
            f"{each.largest_ratio:.3f}",
        )
        for each in summary.beside_jpeg2000
    )
    return Table("near_lossless beside JPEG 2000 at the ceilings: PSNR, and ratio of largest errors", columns, rows, 1)


def _delta_rates(summary: Summary) -> Table:
    columns = ("series of", "codec", "series", "BD-rate", "lowest", "highest")
    rows = tuple(
        (each.group, each.codec, str(each.series), *(f"{x:+.1%}" for x in (each.bd_rate, each.lowest, each.highest)))
        for each in summary.delta_rates
    )
    return Table("BD-rate (PSNR) to JPEG 2000: below 0 fewer bits for the same quality", columns, rows)


def _speeds(summary: Summary) -> Table:
    rows = tuple((each.codec, f"{each.encode_mpixel_s:.2f}", f"{each.decode_mpixel_s:.2f}") for each in summary.speeds)
    return Table("Mpixel/s on one core, CPU time", ("codec", "encode", "decode"), rows, 1)


def _generations(found: Sequence[Generations]) -> Table:
    shown = (1, 2, 10, 50, 100)
    rows = tuple(
        (each.codec, f"{each.setting:g}", *(f"{each.rmse[number - 1]:.3f}" for number in shown))
        for each in found
        if each.rmse
    )
    columns = ("codec", "setting", *(f"pass {number}" for number in shown))
    title = f"Generational loss: RMSE to the original, {found[0].series if found else ''}"
    return Table(title, columns, rows, 1)


def _at(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row.bits_per_pixel:.2f} {row.point.psnr_stored:.1f} {row.point.max_error}"


def _rendered(table: Table) -> RichTable:
    rendered = RichTable(title=table.title, box=None, pad_edge=False, title_justify="left")
    for number, column in enumerate(table.columns):
        rendered.add_column(column, justify="left" if number < table.texts else "right")
    for row in table.rows:
        rendered.add_row(*row)
    return rendered


def _finite(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures with null for what JSON has no number for."""
    return {
        key: None if isinstance(value, float) and not abs(value) < float("inf") else value
        for key, value in found.items()
    }
