"""Adaptive coding of integers: contexts of expected size, counts that follow what was met, integers throughout.

Format: docs/formats/kwavelet.md, "Integers". The symbols go through the rANS of docs/formats/neural.md.
"""

import itertools

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural.rans import TOTAL, Decoder, Encoder

Int64 = npt.NDArray[np.int64]

CONTEXTS = 36

EXPECTED_ONE = 16
"""An expected size of 16 stands for a magnitude of 1."""

LARGEST = (1 << 20) - 1
"""Largest magnitude that can be coded."""

_DIRECT = 16
_DIRECT_BITS = 4
_BINS = 32
"""Magnitudes 0 to 15 have a bin each, every octave above has one."""

_PRIOR = 64
_INCREMENT = 24
_MOST = 1 << 14


def contexts_of(expected: Int64) -> Int64:
    """Return the contexts of expected sizes, two an octave."""
    raised = np.minimum(expected + 2, (1 << CONTEXTS // 2 + 1) - 1)
    octave = _bit_lengths(raised) - 2
    found: Int64 = 2 * octave + ((raised >> octave) & 1)
    return found


class Counts:
    """How often to expect each bin in each context: at first as of a geometric law, then as met in every step."""

    def __init__(self) -> None:
        self._counts = np.array([_geometric(context) for context in range(CONTEXTS)], np.int64)

    def bounds(self, contexts: Int64) -> dict[int, list[int]]:
        """Return the cumulative frequencies (bins + 1 numbers, 0 to TOTAL) of each of these contexts."""
        used = np.unique(contexts)
        below = np.zeros((len(used), _BINS + 1), np.int64)
        np.cumsum(self._counts[used], 1, out=below[:, 1:])
        rising = np.arange(_BINS + 1) + below * (TOTAL - _BINS) // below[:, -1:]
        return dict(zip(used.tolist(), rising.tolist(), strict=True))

    def learn(self, contexts: Int64, bins: Int64) -> None:
        """Count what a step met; a context that has met a great deal forgets half."""
        np.add.at(self._counts, (contexts, bins), _INCREMENT)
        full = self._counts.sum(1) > _MOST
        self._counts[full] -= self._counts[full] >> 1


def put(encoder: Encoder, counts: Counts, contexts: Int64, values: Int64) -> None:
    """Put the values (n,) of one step, of magnitudes up to LARGEST: bins, then signs and what the bins leave open."""
    sizes = np.abs(values)
    octaves = np.maximum(_bit_lengths(sizes) - 1, _DIRECT_BITS - 1)
    bins = np.where(sizes < _DIRECT, sizes, _DIRECT + octaves - _DIRECT_BITS)
    bounds = counts.bounds(contexts)
    for chosen, context in zip(bins.tolist(), contexts.tolist(), strict=True):
        encoder.symbol(chosen, bounds[context])
    for value in values[sizes > 0].tolist():
        encoder.uniform(int(value < 0), 1)
        if abs(value) >= _DIRECT:
            bits = abs(value).bit_length() - 1
            low = abs(value) - (1 << bits)
            encoder.uniform(low >> 15, max(bits - 15, 0))
            encoder.uniform(low & 32767, min(bits, 15))
    counts.learn(contexts, bins)


def take(decoder: Decoder, counts: Counts, contexts: Int64) -> Int64:
    """Return the values of one step, whose contexts (n,) are known."""
    bounds = counts.bounds(contexts)
    bins = [decoder.symbol(None, bounds[context]) for context in contexts.tolist()]
    values = list(bins)
    for place, size in enumerate(bins):
        if size:
            negative = decoder.uniform(None, 1)
            if size >= _DIRECT:
                bits = size - _DIRECT + _DIRECT_BITS
                high = decoder.uniform(None, max(bits - 15, 0))
                size = (1 << bits) + (high << 15) + decoder.uniform(None, min(bits, 15))
            values[place] = -size if negative else size
    counts.learn(contexts, np.array(bins, np.int64))
    return np.array(values, np.int64)


def _geometric(context: int) -> list[int]:
    """Return how often to expect each bin where magnitudes follow a geometric law of the context's mean."""
    mean = (2 + context % 2) << context // 2
    tails = [1 << 30]  # of the law, from each bin on, in 2^-30
    for _ in range(_DIRECT):
        tails.append(tails[-1] * mean // (mean + EXPECTED_ONE))
    for _ in range(_BINS - _DIRECT):
        tails.append(tails[-1] * tails[-1] >> 30)
    return [1 + ((before - after) * _PRIOR >> 30) for before, after in itertools.pairwise(tails)]


def _bit_lengths(values: Int64) -> Int64:
    """Return the lengths of numbers of up to 52 bits in binary: 0 for 0, 1 for 1, 2 for 3."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
