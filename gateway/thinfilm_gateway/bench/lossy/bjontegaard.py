"""The Bjontegaard delta rate: how many more bits one codec takes than another for the same quality, on average."""

import importlib.util
from collections.abc import Sequence

import numpy as np

Curve = Sequence[tuple[float, float]]
"""Points of (bits a sample, quality in dB)."""


class CannotCompare(Exception):
    """Curves cannot be compared here; the message is one sentence."""


def check() -> None:
    """Raise CannotCompare, before anything is measured, if what interpolates curves is not there."""
    if importlib.util.find_spec("scipy") is None:
        raise CannotCompare("SciPy is not installed: pip install 'thinfilm[bench]'.")


def delta_rate(curve: Curve, reference: Curve) -> float | None:
    """Return the mean difference of rate to the reference over the qualities that both reach: -0.1 is 10 % fewer bits.

    The logarithm of the rate is interpolated over quality by monotone cubic pieces (PCHIP) and integrated exactly,
    after Bjontegaard, VCEG-M33 (2001) and VCEG-AI11. Points of infinite quality, and those that cost more than a better
    one, are left out. None where a curve has fewer than two points or both have no quality in common.
    """
    from scipy.interpolate import PchipInterpolator

    qualities, rates = _monotone(curve)
    other_qualities, other_rates = _monotone(reference)
    if min(len(qualities), len(other_qualities)) < 2:
        return None
    low = max(qualities[0], other_qualities[0])
    high = min(qualities[-1], other_qualities[-1])
    if high <= low:
        return None
    areas = [
        float(PchipInterpolator(known, np.log(values)).integrate(low, high))
        for known, values in ((qualities, rates), (other_qualities, other_rates))
    ]
    return float(np.exp((areas[0] - areas[1]) / (high - low)) - 1)


def quality_at(curve: Curve, rate: float) -> float | None:
    """Return the quality at a rate, by the same interpolation; None outside the curve."""
    from scipy.interpolate import PchipInterpolator

    qualities, rates = _monotone(curve)
    if len(rates) < 2 or not rates[0] <= rate <= rates[-1]:
        return None
    return float(PchipInterpolator(np.log(rates), qualities)(np.log(rate)))


def _monotone(curve: Curve) -> tuple[list[float], list[float]]:
    """Return qualities and rates, both rising."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve):
        if np.isfinite(quality) and (not kept or (quality > kept[-1][1] and rate > kept[-1][0])):
            kept.append((rate, quality))
    return [quality for _, quality in kept], [rate for rate, _ in kept]
