"""Which coefficients of a plane are kept, and how coarsely: the encoder's choice, a fixed point of coding again.

Source: Thornton, MRI Image Compression with Deep Learning, "Quantized K-Wavelet". Rules: docs/formats/kwavelet.md.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossy.kwavelet import wavelet
from thinfilm_codecs.lossy.kwavelet.wavelet import Int32

DETAIL_SHIFTS = ((0, 0, 0), (1, 1, 0), (2, 2, 1))
LOWEST_SHIFT = 2
"""How many bits finer than a plane's step a band is quantised, by level from the finest: about log2 of its norm."""

COARSEST = 20

_NORMS = ((266, 266, 184), (408, 408, 236), (747, 747, 406))  # of the bands' synthesis, in 1/256
_NORM_BITS = 8
_TURNS = 40
_REACH = (-1, 0, 1, 2)
"""Which details a sample is made of, from its own on."""


@dataclass(frozen=True, eq=False)
class Approximation:
    """What is kept of a plane.

    coefficients: (rows, columns), interleaved; those of a band are multiples of 2^max(step - shift of the band, 0).
    """

    coefficients: Int32
    step: int


def approximated(plane: Int32, count: int) -> Approximation:
    """Return an approximation of `count` coefficients whose samples stay within the range of the plane's.

    A plane of no more coefficients is kept as it is, so that coding again what was decoded changes nothing: `forward`
    gives back the very coefficients that `inverse` was given, since no sample was clipped.
    """
    coefficients = wavelet.forward(plane)
    if np.count_nonzero(coefficients) <= max(count, int(np.count_nonzero(wavelet.lowest(coefficients)))):
        return Approximation(coefficients, _coarsest_exact(coefficients))
    low, high = int(plane.min()), int(plane.max())
    wanted = plane.copy()
    for turn in range(_TURNS):
        found = _largest(wavelet.forward(wanted), count, low, high)
        excess = _excess(found, low, high)
        if not excess.any():
            return found
        wanted -= excess + excess * turn // 8  # pushes harder each turn, since quantisation swallows small pushes
    while excess.any():
        _calm(found, excess != 0)
        excess = _excess(found, low, high)
    return found


def _excess(found: Approximation, low: int, high: int) -> Int32:
    """Return by how much the samples of an approximation pass the range."""
    samples = wavelet.inverse(found.coefficients)
    passed: Int32 = samples - samples.clip(low, high)
    return passed


def _coarsest_exact(coefficients: Int32) -> int:
    """Return the largest step that leaves the coefficients as they are."""
    steps = [COARSEST]
    bands = [(wavelet.lowest(coefficients), LOWEST_SHIFT)]
    for level, shifts in enumerate(DETAIL_SHIFTS, 1):
        bands += zip(wavelet.details(coefficients, level), shifts, strict=True)
    for band, shift in bands:
        used = int(np.bitwise_or.reduce(band, axis=None))
        if used:
            zeros = (used & -used).bit_length() - 1
            steps.append(zeros + shift if zeros else 0)
    return min(steps)


def _largest(coefficients: Int32, count: int, low: int, high: int) -> Approximation:
    """Return the lowest band and the details of largest norm, `count` in all that are not 0, quantised."""
    sizes = np.zeros_like(coefficients)
    for level, norms in enumerate(_NORMS, 1):
        bands = zip(wavelet.details(sizes, level), wavelet.details(coefficients, level), norms, strict=True)
        for size, band, norm in bands:
            np.abs(band, out=size)
            size *= norm
    spare = max(count - int(np.count_nonzero(wavelet.lowest(coefficients))), 0)
    chosen, least = _chosen(sizes, spare)
    step = min(max(least >> _NORM_BITS, 1).bit_length() - 1, COARSEST)
    step = min(step, int(high - low + 1).bit_length() - 1 + LOWEST_SHIFT)  # so that a mean within the range is left
    kept = np.where(chosen, coefficients, 0)
    for level, shifts in enumerate(DETAIL_SHIFTS, 1):
        for band, shift in zip(wavelet.details(kept, level), shifts, strict=True):
            band[...] = np.sign(band) * _rounded(np.abs(band), max(step - shift, 0))
    shift = max(step - LOWEST_SHIFT, 0)
    means = _rounded(wavelet.lowest(coefficients), shift)
    wavelet.lowest(kept)[...] = np.clip(means, -(-low >> shift) << shift, high >> shift << shift)
    return Approximation(kept, step)


def _chosen(sizes: Int32, count: int) -> tuple[npt.NDArray[np.bool_], int]:
    """Return where the `count` largest sizes lie, of equal ones the first, and the least of them; never a size of 0."""
    flat = sizes.ravel()
    count = min(count, int(np.count_nonzero(flat)))
    if not count:
        return np.zeros(sizes.shape, np.bool_), int(flat.max())
    least = np.partition(flat, flat.size - count)[flat.size - count]
    chosen = flat > least
    chosen[np.flatnonzero(flat == least)[: count - int(np.count_nonzero(chosen))]] = True
    return chosen.reshape(sizes.shape), int(least)


def _rounded(values: Int32, shift: int) -> Int32:
    """Return the nearest multiples of 2^shift."""
    found: Int32 = (values + (1 << shift >> 1)) >> shift << shift
    return found


def _calm(found: Approximation, places: npt.NDArray[np.bool_]) -> None:
    """Take an eighth, and one step at the least, off all details that these samples are made of.

    It ends: where no details are left, samples lie between means, and means are held within the range.
    """
    rows, columns = np.nonzero(places)
    for level, shifts in enumerate(DETAIL_SHIFTS, 1):
        for band, shift in zip(wavelet.details(found.coefficients, level), shifts, strict=True):
            reached = np.zeros(band.shape, np.bool_)
            for row, column in itertools.product(_REACH, _REACH):
                y, x = (rows >> level) + row, (columns >> level) + column
                inside = (y >= 0) & (y < band.shape[0]) & (x >= 0) & (x < band.shape[1])
                reached[y[inside], x[inside]] = True
            bits = max(found.step - shift, 0)
            steps = np.abs(band[reached]) >> bits
            band[reached] = np.sign(band[reached]) * (steps - (steps + 7 >> 3) << bits)
