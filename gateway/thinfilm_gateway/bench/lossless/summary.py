"""What the rows come to: geometric means of size ratios with bootstrap confidence intervals, and speeds, by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinfilm_gateway.bench.lossless.entrants import JPEGLS, JPEGLS_WORDS, JPEGXL, JPEGXL_E9, TOMOZ
from thinfilm_gateway.bench.lossless.rows import Row, speed

REFERENCES = (JPEGLS, JPEGLS_WORDS, JPEGXL, JPEGXL_E9, TOMOZ)
ALL = "all"
"""The group of all series."""

PROJECTION = ("CR", "DX", "MG", "RF", "XA")
ABOVE = 1.001
"""A series counts as above JPEG-LS from this ratio on."""

_RESAMPLES = 10_000
_CONFIDENCE = (2.5, 97.5)


@dataclass(frozen=True)
class Ratio:
    """Geometric mean, over series, of a codec's size to that of a reference; low and high bound 95 % confidence.

    The bounds are percentiles over bootstrap resamples of the series (Efron), drawn with a fixed seed.
    """

    reference: str
    series: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One codec on a group of series.

    bits_per_pixel: mean over the series. ratios: to the references that were measured.
    Speeds in millions of samples a second of CPU time: encode_mpixel_s with fitting, coding_mpixel_s without.
    above_jpegls: names of the series that JPEG-LS makes smaller, by more than 0.1 %.
    """

    group: str
    name: str
    codec: str
    preset: str
    series: int
    bits_per_pixel: float
    ratios: tuple[Ratio, ...]
    encode_mpixel_s: float
    coding_mpixel_s: float
    decode_mpixel_s: float
    above_jpegls: tuple[str, ...]


def summarise(rows: Sequence[Row]) -> tuple[Summary, ...]:
    """Return one summary a group and codec; rows that are not exact are left out."""
    exact = [row for row in rows if row.exact]
    sizes = {(row.series.name, row.name): row.measured.coded_bytes for row in exact}
    return tuple(
        _summary(group, [row for row in members if row.name == name], sizes)
        for group, members in _groups(exact).items()
        for name in dict.fromkeys(row.name for row in members)
    )


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each group that has any and is not the same as one before it; and all."""
    others = {row.series.modality for row in rows} - {"CT", "MR", "PT", *PROJECTION}
    candidates = {
        "CT": _of(rows, "CT"),
        "MR": _of(rows, "MR"),
        "CT and MR": _of(rows, "CT", "MR"),
        "4-D MR": [row for row in _of(rows, "MR") if row.series.repeats_places],
        "PT": _of(rows, "PT"),
        "projection": _of(rows, *PROJECTION),
        **{modality: _of(rows, modality) for modality in sorted(others)},
    }
    groups: dict[str, list[Row]] = {}
    for name, found in candidates.items():
        if found and found not in groups.values():
            groups[name] = found
    return groups | {ALL: list(rows)}


def _of(rows: Sequence[Row], *modalities: str) -> list[Row]:
    return [row for row in rows if row.series.modality in modalities]


def _summary(group: str, rows: Sequence[Row], sizes: Mapping[tuple[str, str], int]) -> Summary:
    """Summarise the rows of one codec."""
    first = rows[0]
    pixels = sum(row.series.pixels for row in rows)
    encode_seconds = sum(row.measured.encode_seconds for row in rows)
    ratios: dict[str, dict[str, float]] = {
        reference: {
            row.series.name: row.measured.coded_bytes / sizes[row.series.name, reference]
            for row in rows
            if (row.series.name, reference) in sizes
        }
        for reference in REFERENCES
    }
    return Summary(
        group=group,
        name=first.name,
        codec=first.codec,
        preset=first.preset,
        series=len(rows),
        bits_per_pixel=float(np.mean([row.bits_per_pixel for row in rows])),
        ratios=tuple(_ratio(reference, list(found.values())) for reference, found in ratios.items() if found),
        encode_mpixel_s=speed(pixels, encode_seconds),
        coding_mpixel_s=speed(pixels, encode_seconds - sum(row.measured.fitting_seconds for row in rows)),
        decode_mpixel_s=speed(pixels, sum(row.measured.decode_seconds for row in rows)),
        above_jpegls=tuple(series for series, ratio in ratios[JPEGLS].items() if ratio > ABOVE),
    )


def _ratio(reference: str, ratios: Sequence[float]) -> Ratio:
    logarithms = np.log(ratios)
    drawn = np.random.default_rng(0).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.percentile(logarithms[drawn].mean(1), _CONFIDENCE)
    mean, low, high = (float(np.exp(value)) for value in (logarithms.mean(), low, high))
    return Ratio(reference, len(ratios), mean, low, high)
