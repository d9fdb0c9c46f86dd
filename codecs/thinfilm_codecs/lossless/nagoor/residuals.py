"""The adaptive code of residuals: contexts of expected size, counts that follow the group, integers throughout.

Format: docs/formats/nagoor.md, "Residuals".
"""

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural.rans import TOTAL, Decoder, Encoder

Int64 = npt.NDArray[np.int64]

CONTEXTS = 76
DIRECT = 64
BINS = 75
_DIRECT_BITS = 6

FINE_BITS = 7
"""Expected sizes of more bits shift their residuals, by one for each."""

_INCREMENT = 32
_MOST = 1 << 20


def contexts_of(expected: Int64) -> tuple[Int64, Int64]:
    """Return context and shift for expected sizes: sixteen times the error to expect, at most 2^21 - 5."""
    raised = expected + 4
    octave = np.frexp(raised.astype(np.float64))[1].astype(np.int64)
    contexts = 4 * (octave - 3) + ((raised >> (octave - 3)) & 3)
    return contexts, np.maximum(octave - FINE_BITS, 0)


def bins_of(residuals: Int64, shifts: Int64) -> tuple[Int64, Int64, Int64]:
    """Return the bin of each residual, the low bits that the bin leaves open, and how many they are."""
    coarse = residuals >> shifts
    folded = np.where(coarse < 0, -2 * coarse - 1, 2 * coarse)
    octave = np.maximum(np.frexp(folded.astype(np.float64))[1].astype(np.int64) - 1, _DIRECT_BITS - 1)
    bins = np.where(folded < DIRECT, folded, DIRECT + octave - _DIRECT_BITS)
    bits = extra_bits(bins)
    low = (folded & ((1 << bits) - 1)) << shifts | residuals & ((1 << shifts) - 1)
    return bins, low, bits + shifts


def extra_bits(bins: Int64) -> Int64:
    """Return how many bits of the folded residual each bin leaves open."""
    found: Int64 = np.where(bins < DIRECT, 0, bins - DIRECT + _DIRECT_BITS)
    return found


def residuals_of(bins: Int64, low: Int64, shifts: Int64) -> Int64:
    """Return the residuals: the inverse of `bins_of`."""
    bits = extra_bits(bins)
    folded = np.where(bins < DIRECT, bins, (1 << bits) + (low >> shifts))
    coarse = np.where(folded & 1, -((folded + 1) >> 1), folded >> 1)
    return coarse << shifts | low & ((1 << shifts) - 1)


class Counts:
    """How often to expect each bin in each context; starts from what training met, moves after every step.

    met: (CONTEXTS, BINS), what this group alone has met.
    """

    def __init__(self, residuals: npt.NDArray[np.uint16]) -> None:
        self._counts = residuals.astype(np.int64)
        self.met = np.zeros_like(self._counts)

    def bounds(self, contexts: Int64) -> dict[int, list[int]]:
        """Return the cumulative frequencies (BINS + 1 numbers, 0 to TOTAL) of each of these contexts."""
        used = np.unique(contexts)
        counts = self._counts[used]
        below = np.zeros((len(used), BINS + 1), np.int64)
        np.cumsum(counts, 1, out=below[:, 1:])
        total = np.maximum(below[:, -1:], 1)
        rising = np.arange(BINS + 1) + below * (TOTAL - BINS) // total
        rising[:, -1] = TOTAL
        return dict(zip(used.tolist(), rising.tolist(), strict=True))

    def learn(self, contexts: Int64, bins: Int64) -> None:
        """Count what a step met; a context that has met a great deal forgets half."""
        np.add.at(self.met, (contexts, bins), 1)
        np.add.at(self._counts, (contexts, bins), _INCREMENT)
        full = self._counts.sum(1) > _MOST
        self._counts[full] >>= 1


def put(encoder: Encoder, counts: Counts, contexts: Int64, shifts: Int64, residuals: Int64) -> None:
    """Put the residuals (n,) of one step."""
    bins, low, bits = bins_of(residuals, shifts)
    bounds = counts.bounds(contexts)
    for chosen, context in zip(bins.tolist(), contexts.tolist(), strict=True):
        encoder.symbol(chosen, bounds[context])
    for value, width in zip(low.tolist(), bits.tolist(), strict=True):
        encoder.uniform(value >> 15, max(width - 15, 0))
        encoder.uniform(value & 32767, min(width, 15))
    counts.learn(contexts, bins)


def take(decoder: Decoder, counts: Counts, contexts: Int64, shifts: Int64) -> Int64:
    """Return the residuals of one step, whose contexts and shifts (n,) are known."""
    bounds = counts.bounds(contexts)
    bins = np.array([decoder.symbol(None, bounds[context]) for context in contexts.tolist()], np.int64)
    low = [
        decoder.uniform(None, max(width - 15, 0)) << 15 | decoder.uniform(None, min(width, 15))
        for width in (extra_bits(bins) + shifts).tolist()
    ]
    counts.learn(contexts, bins)
    return residuals_of(bins, np.array(low, np.int64), shifts)
