"""What the rows come to: BD-rates, who wins at the ceilings, the near-lossless codec beside JPEG 2000, and speeds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thinfilm_gateway.bench.lossless.rows import speed
from thinfilm_gateway.bench.lossy.bjontegaard import Curve, delta_rate, quality_at
from thinfilm_gateway.bench.lossy.entrants import JPEG2000, NEAR_LOSSLESS
from thinfilm_gateway.bench.lossy.rows import Row

BOTH = "CT and MR"


@dataclass(frozen=True)
class DeltaRate:
    """BD-rate (PSNR) of a codec to JPEG 2000, mean over the series where there is one; -0.1 is 10 % fewer bits.

    lowest, highest: over those series.
    """

    group: str
    codec: str
    series: int
    bd_rate: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class AtCeiling:
    """A codec at the rate that the ceiling leaves, each series at the gentlest setting within it.

    series: those where the codec has a setting within the rate. Means over them: bits_per_pixel, psnr_stored (without
    series of no error at all), rmse; max_error: the geometric mean. wins_*: series where no other codec has a higher
    PSNR, or a smaller largest error.
    """

    group: str
    codec: str
    series: int
    bits_per_pixel: float
    rmse: float
    psnr_stored: float
    max_error: float
    wins_psnr: int
    wins_max_error: int


@dataclass(frozen=True)
class BesideJpeg2000:
    """near_lossless beside JPEG 2000 at the ceiling, both at the gentlest setting within it.

    gain_db: PSNR of near_lossless less that of JPEG 2000, mean over the series. equal_rate_gain_db: the same with JPEG
    2000 interpolated to the rate that near_lossless takes, over the `equal_rate_series` where its curve goes there.
    max_error_ratio: of the largest errors, the mean; largest_ratio: that of the worst series.
    """

    group: str
    series: int
    gain_db: float
    equal_rate_series: int
    equal_rate_gain_db: float
    max_error_ratio: float
    largest_ratio: float


@dataclass(frozen=True)
class Speed:
    """Millions of samples a second of CPU time on one core: at the ceilings, without any at all settings."""

    codec: str
    encode_mpixel_s: float
    decode_mpixel_s: float


@dataclass(frozen=True)
class Summary:
    """All that the rows come to."""

    delta_rates: tuple[DeltaRate, ...]
    at_ceiling: tuple[AtCeiling, ...]
    beside_jpeg2000: tuple[BesideJpeg2000, ...]
    speeds: tuple[Speed, ...]


def summarise(rows: Sequence[Row]) -> Summary:
    """Summarise the rows."""
    groups = _groups(rows)
    return Summary(
        tuple(found for group, members in groups.items() for found in _delta_rates(group, members)),
        tuple(found for group, members in groups.items() for found in _at_ceiling(group, members)),
        tuple(found for group, members in groups.items() for found in _beside_jpeg2000(group, members)),
        tuple(_speed(codec, _of(rows, codec=codec)) for codec in _codecs(rows)),
    )


def curve(rows: Iterable[Row]) -> Curve:
    """Return the points of (bits a sample, PSNR of the stored range)."""
    return [(row.bits_per_pixel, row.point.psnr_stored) for row in rows]


def at_ceiling(rows: Iterable[Row]) -> Row | None:
    """Return the row of one codec on one series whose setting was sought for the ceiling; None without one."""
    return next((row for row in rows if row.subject.rate in row.point.targets), None)


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups = {
        group: [row for row in rows if row.subject.group == group] for group in sorted({r.subject.group for r in rows})
    }
    if "CT" in groups and "MR" in groups:
        groups[BOTH] = groups["CT"] + groups["MR"]
    return groups


def _codecs(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.codec for row in rows))


def _series(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.subject.series.name for row in rows))


def _of(rows: Iterable[Row], codec: str | None = None, series: str | None = None) -> list[Row]:
    return [row for row in rows if codec in (None, row.codec) and series in (None, row.subject.series.name)]


def _delta_rates(group: str, rows: Sequence[Row]) -> Iterator[DeltaRate]:
    for codec in _codecs(rows):
        if codec == JPEG2000:
            continue
        rates = [
            rate
            for series in _series(rows)
            if (rate := delta_rate(curve(_of(rows, codec, series)), curve(_of(rows, JPEG2000, series)))) is not None
        ]
        if rates:
            yield DeltaRate(group, codec, len(rates), float(np.mean(rates)), min(rates), max(rates))


def _at_ceiling(group: str, rows: Sequence[Row]) -> Iterator[AtCeiling]:
    permitted = {
        (series, codec): row
        for series in _series(rows)
        for codec in _codecs(rows)
        if (row := at_ceiling(_of(rows, codec, series))) is not None
    }
    best = {
        series: (
            max(row.point.psnr_stored for (name, _), row in permitted.items() if name == series),
            min(row.point.max_error for (name, _), row in permitted.items() if name == series),
        )
        for series, _ in permitted
    }
    for codec in _codecs(permitted.values()):
        own = [row for (_, name), row in permitted.items() if name == codec]
        decibels = [row.point.psnr_stored for row in own if np.isfinite(row.point.psnr_stored)]
        yield AtCeiling(
            group,
            codec,
            len(own),
            bits_per_pixel=float(np.mean([row.bits_per_pixel for row in own])),
            rmse=float(np.mean([row.point.rmse for row in own])),
            psnr_stored=float(np.mean(decibels)) if decibels else float("inf"),
            max_error=float(np.exp(np.mean([np.log(max(1, row.point.max_error)) for row in own]))),
            wins_psnr=sum(row.point.psnr_stored == best[row.subject.series.name][0] for row in own),
            wins_max_error=sum(row.point.max_error == best[row.subject.series.name][1] for row in own),
        )


def _beside_jpeg2000(group: str, rows: Sequence[Row]) -> Iterator[BesideJpeg2000]:
    gains, equal_rate_gains, ratios = [], [], []
    for series in _series(rows):
        ours, other = (at_ceiling(_of(rows, codec, series)) for codec in (NEAR_LOSSLESS, JPEG2000))
        if ours is None or other is None or other.point.max_error == 0:
            continue
        gains.append(ours.point.psnr_stored - other.point.psnr_stored)
        ratios.append(ours.point.max_error / other.point.max_error)
        there = quality_at(curve(_of(rows, JPEG2000, series)), ours.bits_per_pixel)
        if there is not None:
            equal_rate_gains.append(ours.point.psnr_stored - there)
    if gains:
        yield BesideJpeg2000(
            group,
            len(gains),
            gain_db=float(np.mean(gains)),
            equal_rate_series=len(equal_rate_gains),
            equal_rate_gain_db=float(np.mean(equal_rate_gains)) if equal_rate_gains else float("nan"),
            max_error_ratio=float(np.mean(ratios)),
            largest_ratio=max(ratios),
        )


def _speed(codec: str, rows: Sequence[Row]) -> Speed:
    chosen = [row for series in _series(rows) if (row := at_ceiling(_of(rows, codec, series)))] or list(rows)
    pixels = sum(row.subject.series.pixels for row in chosen)
    return Speed(
        codec,
        speed(pixels, sum(row.point.encode_seconds for row in chosen)),
        speed(pixels, sum(row.point.decode_seconds for row in chosen)),
    )
