"""The reversible 5/3 wavelet over three levels: integers to integers, one to one, for planes of any size.

Format: docs/formats/kwavelet.md, "Transform". Source: ISO/IEC 15444-1, Annex F (Le Gall and Tabatabai by lifting).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]

LEVELS = 3


def forward(plane: Int32) -> Int32:
    """Return the coefficients (rows, columns) of a plane (rows, columns), interleaved as `band` finds them."""
    coefficients = plane.copy()
    for level in range(LEVELS):
        low = coefficients[:: 1 << level, :: 1 << level]
        _analyse(low)
        _analyse(low.T)
    return coefficients


def inverse(coefficients: Int32) -> Int32:
    """Return the plane of which `forward` makes these coefficients."""
    plane = coefficients.copy()
    for level in reversed(range(LEVELS)):
        low = plane[:: 1 << level, :: 1 << level]
        _synthesise(low.T)
        _synthesise(low)
    return plane


def lowest(coefficients: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view of the lowest band: means of about 8 x 8 samples."""
    return coefficients[:: 1 << LEVELS, :: 1 << LEVELS]


def details(coefficients: npt.NDArray[Any], level: int) -> tuple[npt.NDArray[Any], ...]:
    """Return views of the three bands of details of a level, 1 the finest: along columns, along rows, along both."""
    step = 1 << level
    half = step >> 1
    return coefficients[::step, half::step], coefficients[half::step, ::step], coefficients[half::step, half::step]


def _analyse(lines: Int32) -> None:
    """Lift pairs of lines in place: odd ones become what even ones do not foretell, even ones means."""
    even, odd = lines[::2], lines[1::2]
    if len(odd):
        odd -= _foretold(even, len(odd))
        even += _smoothed(odd, len(even))


def _synthesise(lines: Int32) -> None:
    even, odd = lines[::2], lines[1::2]
    if len(odd):
        even -= _smoothed(odd, len(even))
        odd += _foretold(even, len(odd))


def _foretold(even: Int32, count: int) -> Int32:
    """Return the means of the even lines on both sides of each odd one; at the end the one before it."""
    found = even[:count].copy()
    found[: len(even) - 1] += even[1:]
    found[len(even) - 1 :] += even[len(even) - 1 :][: count - len(even) + 1]
    found >>= 1
    return found


def _smoothed(odd: Int32, count: int) -> Int32:
    """Return a quarter of the details on both sides of each even line, rounded; at the ends twice the one there is."""
    found = np.empty((count, *odd.shape[1:]), np.int32)
    found[0] = odd[0]
    found[1:] = odd[: count - 1]
    found[: len(odd)] += odd
    found[len(odd) :] += odd[len(odd) - 1]
    found += 2
    found >>= 2
    return found
