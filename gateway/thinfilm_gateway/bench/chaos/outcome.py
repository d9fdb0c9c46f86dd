"""What came of each scenario, as a table and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table

Verdict = Literal["right", "WRONG", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    faults: how often each kind of harm was done. acknowledged: instances that were answered with 0x0000. returned:
    those of them that came back by C-GET with their SHA-256. brought_back: what the sweep had to do, in the words of
    the log. wrong: a sentence for each instance that is missing or changed, and for each half row or file.
    skipped: a sentence that says why the scenario was not run, else empty.
    """

    scenario: str
    faults: Mapping[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    returned: int = 0
    brought_back: Mapping[str, int] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether all is as it must be; what was not run is neither."""
        if self.skipped:
            return "not run"
        return "right" if not self.wrong and self.acknowledged == self.returned else "WRONG"


@dataclass(frozen=True)
class Report:
    """All scenarios of a run."""

    seed: int
    outcomes: tuple[Outcome, ...]

    @property
    def is_right(self) -> bool:
        """Whether all is as it must be in every scenario that was run, and one was."""
        verdicts = {outcome.verdict for outcome in self.outcomes}
        return "right" in verdicts and "WRONG" not in verdicts

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` writes."""
        outcomes = [{"verdict": outcome.verdict} | asdict(outcome) for outcome in self.outcomes]
        return {"seed": self.seed, "right": self.is_right, "outcomes": outcomes}

    def table(self) -> Table:
        """Return the same for people."""
        table = Table(title=f"Chaos with seed {self.seed}", box=None, pad_edge=False, title_justify="left")
        for column in ("scenario", "harm done"):
            table.add_column(column)
        for column in ("acknowledged", "returned", "wrong"):
            table.add_column(column, justify="right")
        for column in ("brought back by the sweep", "verdict"):
            table.add_column(column)
        for outcome in self.outcomes:
            table.add_row(
                outcome.scenario,
                _counts(outcome.faults),
                str(outcome.acknowledged),
                str(outcome.returned),
                str(len(outcome.wrong)),
                _counts(outcome.brought_back),
                outcome.skipped or outcome.verdict,
            )
        return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"
