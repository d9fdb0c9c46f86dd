"""What `thinfilm compress` tells of each series where lossy compression was asked for."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thinfilm_gateway.archive.container.report import PackedSeries
from thinfilm_gateway.archive.lossy import Decision
from thinfilm_gateway.policy.choice import Outcome


@dataclass(frozen=True)
class Guarded:
    """What the guard, or the policy before it, made of a series.

    verdict: "lossy", "lossless", or "mixed" where some of its files stayed as they are. reason: each that there was.
    """

    verdict: str
    reason: str


@dataclass(frozen=True)
class LossySeries:
    """A series, and how near its samples are to those that came.

    max_error, rmse: of all samples that are kept lossily; 0 where there are none. psnr_stored: in dB, of the range of
    Bits Stored, None without errors. ratio_allocated, ratio_stored: bits of these samples, as allocated and as stored,
    to coded bits; of all frames where none are lossy, and None without frames.
    """

    series_instance_uid: str
    settings: tuple[str, ...]
    max_error: int
    rmse: float
    psnr_stored: float | None
    ratio_allocated: float | None
    ratio_stored: float | None
    guard: Guarded

    def to_json(self) -> dict[str, Any]:
        """Return what is added to the row of the series."""
        return {name: value for name, value in asdict(self).items() if name != "series_instance_uid"}

    def sentence(self) -> str:
        """Return the same for a terminal."""
        if not self.settings:
            return f"series {self.series_instance_uid} lossless: {self.guard.reason}"
        return (
            f"series {self.series_instance_uid} {self.guard.verdict}: {', '.join(self.settings)},"
            f" {self.ratio_allocated:.2f} times smaller, no error above {self.max_error}: {self.guard.reason}"
        )


def lossy_series(decisions: Sequence[Decision], rows: Sequence[PackedSeries]) -> tuple[LossySeries, ...]:
    """Return one row a series, in the order of `rows`."""
    of_series: dict[str, list[Decision]] = defaultdict(list)
    for decision in decisions:
        of_series[decision.dicom.series_instance_uid if decision.dicom else ""].append(decision)
    return tuple(_row(row, of_series[row.series_instance_uid]) for row in rows)


def _row(row: PackedSeries, decisions: Sequence[Decision]) -> LossySeries:
    outcomes = list(dict.fromkeys(decision.outcome for decision in decisions if decision.outcome))
    lossy = sum(decision.outcome is not None for decision in decisions)
    verdict = "lossless" if not lossy else "lossy" if lossy == len(decisions) else "mixed"
    guard = Guarded(verdict, " ".join(dict.fromkeys(decision.reason for decision in decisions)))
    if not outcomes:
        allocated, stored = 8 * row.native_pixel_bytes, sum(decision.stored_bits for decision in decisions)
        ratios = _ratio(allocated, row), _ratio(stored, row)
        return LossySeries(row.series_instance_uid, (), 0, 0.0, None, ratios[0], ratios[1], guard)
    return LossySeries(
        series_instance_uid=row.series_instance_uid,
        settings=tuple(dict.fromkeys(outcome.setting for outcome in outcomes)),
        max_error=max(outcome.max_error for outcome in outcomes),
        rmse=_rmse(outcomes),
        psnr_stored=_psnr_stored(outcomes),
        ratio_allocated=_joined([(outcome.samples, outcome.ratio_allocated) for outcome in outcomes]),
        ratio_stored=_joined([(outcome.samples, outcome.ratio_stored) for outcome in outcomes]),
        guard=guard,
    )


def _ratio(bits: int, row: PackedSeries) -> float | None:
    return bits / (8 * row.coded_pixel_bytes) if row.coded_pixel_bytes else None


def _rmse(outcomes: Sequence[Outcome]) -> float:
    samples = sum(outcome.samples for outcome in outcomes)
    return math.sqrt(sum(outcome.samples * outcome.rmse**2 for outcome in outcomes) / samples)


def _psnr_stored(outcomes: Sequence[Outcome]) -> float | None:
    rmse, bits_stored = _rmse(outcomes), max(outcome.bits_stored for outcome in outcomes)
    return 20 * math.log10(((1 << bits_stored) - 1) / rmse) if rmse else None


def _joined(ratios: Sequence[tuple[int, float]]) -> float:
    """Return the ratio of several stacks, of so many samples each, together."""
    return sum(samples for samples, _ in ratios) / sum(samples / ratio for samples, ratio in ratios)
