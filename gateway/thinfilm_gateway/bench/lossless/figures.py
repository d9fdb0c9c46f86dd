"""All figures of `thinfilm bench lossless`, as tables for people and as JSON."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinfilm_gateway.bench.lossless.measure import Verdict
from thinfilm_gateway.bench.lossless.rows import Row
from thinfilm_gateway.bench.lossless.summary import ALL, REFERENCES, Ratio, Summary
from thinfilm_gateway.bench.series import Skipped

_CODEC_COLUMN = 7  # width, so that the names of many codecs fit beside each other


@dataclass(frozen=True)
class Figures:
    """What one run measured. machine: processor and versions by name."""

    machine: dict[str, str]
    rows: tuple[Row, ...]
    summary: tuple[Summary, ...]
    skipped: tuple[Skipped, ...]

    @property
    def failures(self) -> list[str]:
        """A sentence for each measurement that failed: an error, or a decode that was not exact."""
        failed = [row for row in self.rows if row.measured.verdict is Verdict.FAILED]
        return [f"{row.name} on {row.series.name}: {row.measured.reason}." for row in failed]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        return {
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "summary": [asdict(summary) for summary in self.summary],
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }

    def table(self) -> RenderableType:
        """Return the same for people."""
        return Group(self._sizes(), Text(), self._summary(), *map(Text, self._remarks()))

    def _sizes(self) -> Table:
        """Bits a sample: a line a series, a column a codec."""
        names = list(dict.fromkeys(row.name for row in self.rows))
        table = _table("Bits a sample, parameters counted; excess: of the smallest over the estimated entropy of noise")
        for column in ("series", "modality"):
            table.add_column(column)
        for column in ("Mpixel", "noise", "excess"):
            table.add_column(column, justify="right")
        for name in names:
            table.add_column(name, justify="right", min_width=_CODEC_COLUMN)
        for series in dict.fromkeys(row.series for row in self.rows):
            rows = {row.name: row for row in self.rows if row.series is series}
            sizes = [row.bits_per_pixel for row in rows.values() if row.exact]
            noise = next(iter(rows.values())).noise_entropy
            table.add_row(
                series.name,
                f"{series.modality} 4-D" if series.repeats_places else series.modality,
                f"{series.pixels / 1e6:.2f}",
                f"{noise:.3f}",
                f"{min(sizes) - noise:+.3f}" if sizes else "-",
                *(_size(rows[name]) for name in names),
            )
        return table

    def _summary(self) -> Table:
        """Ratios and speeds: a line a group and codec."""
        table = _table("Size, geometric mean to each reference with 95 % confidence; Mpixel/s on one core")
        for column in ("group", "codec"):
            table.add_column(column)
        references = [r for r in REFERENCES if any(ratio.reference == r for s in self.summary for ratio in s.ratios)]
        for column in ("series", *(f"to {name}" for name in references), "encode", "unfitted", "decode"):
            table.add_column(column, justify="right")
        before = ""
        for summary in self.summary:
            ratios = {ratio.reference: ratio for ratio in summary.ratios}
            if before and summary.group != before:
                table.add_section()
            table.add_row(
                summary.group if summary.group != before else "",
                summary.name,
                str(summary.series),
                *(_ratio(ratios[name]) if name in ratios else "-" for name in references),
                *(_speed(s) for s in (summary.encode_mpixel_s, summary.coding_mpixel_s, summary.decode_mpixel_s)),
            )
            before = summary.group
        return table

    def _remarks(self) -> list[str]:
        """Sentences about what the tables leave out."""
        remarks = [
            f"{summary.name} is above JPEG-LS by more than 0.1 % on {', '.join(summary.above_jpegls)}."
            for summary in self.summary
            if summary.group == ALL and summary.above_jpegls and summary.ratios[0].mean < 1
        ]
        absent = {row.name: row.measured.reason for row in self.rows if row.measured.verdict is Verdict.NOT_INSTALLED}
        remarks += [f"{name}: {reason}" for name, reason in absent.items()]
        remarks += [f"FAILED {failure}" for failure in self.failures]
        reasons = Counter(skipped.reason for skipped in self.skipped)
        remarks += [f"{count} files skipped: {reason}" for reason, count in reasons.most_common()]
        return ["", *remarks] if remarks else []


def _table(title: str) -> Table:
    return Table(title=title, box=None, pad_edge=False, title_justify="left")


def _size(row: Row) -> str:
    """Return a cell: the size, or what stands against it."""
    return f"{row.bits_per_pixel:.3f}" if row.exact else row.measured.verdict.value


def _ratio(ratio: Ratio) -> str:
    interval = f" [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.series > 1 else ""
    return f"{ratio.mean:.3f}{interval}"


def _speed(mpixel_s: float) -> str:
    return f"{mpixel_s:.1f}" if mpixel_s >= 10 else f"{mpixel_s:.2f}"
