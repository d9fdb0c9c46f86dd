"""The coefficients' code: bands from the lowest on, along diagonals, each number in the context of those around it.

Format: docs/formats/kwavelet.md, "Coefficients". The encoder and the decoder are the same loop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thinfilm_codecs.errors import CorruptStream
from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder
from thinfilm_codecs.lossy import adaptive
from thinfilm_codecs.lossy.adaptive import Counts, Int64
from thinfilm_codecs.lossy.diagonals import MARGIN, diagonals
from thinfilm_codecs.lossy.kwavelet import wavelet
from thinfilm_codecs.lossy.kwavelet.approximation import DETAIL_SHIFTS, LOWEST_SHIFT
from thinfilm_codecs.lossy.kwavelet.wavelet import Int32

_NEIGHBOURS = ((0, -1, 3), (-1, 0, 3), (-1, -1, 1), (-1, 1, 1), (0, -2, 1), (-2, 0, 1))
_PARENT = 6
_GRADIENT = 4

Code = Callable[[Counts, Int64, Int64], Int64]
"""Codes one step: takes counts, contexts and numbers; returns the numbers. A decoder takes no notice of those given."""


def encode(coefficients: Int32, steps: Sequence[int]) -> bytes:
    """Return the stream of coefficients (planes, rows, columns), quantised by the steps of their planes."""
    encoder = Encoder()

    def put(counts: Counts, contexts: Int64, numbers: Int64) -> Int64:
        adaptive.put(encoder, counts, contexts, numbers)
        return numbers

    _walk(coefficients, steps, put)
    return encoder.stream()


def decode(stream: bytes, shape: tuple[int, int, int], steps: Sequence[int]) -> Int32:
    """Return the coefficients (planes, rows, columns). Raises CorruptStream if the stream is not one of such planes."""
    decoder = Decoder.of(stream)

    def take(counts: Counts, contexts: Int64, numbers: Int64) -> Int64:
        del numbers
        return adaptive.take(decoder, counts, contexts)

    coefficients = np.zeros(shape, np.int32)
    _walk(coefficients, steps, take)
    if not decoder.finished():
        raise CorruptStream("The kwavelet stream has words behind its end.")
    return coefficients


@dataclass(frozen=True, eq=False)
class _Bands:
    """Bands of one level, quantised, in a margin of zeros.

    padded: (bands, rows, columns) of the largest band, and its margins. shifts (bands,): what the numbers are quantised
    by.
    """

    views: Sequence[Int32]
    shifts: Int64
    padded: Int32

    @staticmethod
    def of(views: Sequence[Int32], shifts: Sequence[int]) -> "_Bands":
        """Return the bands of these coefficients: views (rows, columns), whose multiples of 2^shift they are."""
        rows, columns = (max(view.shape[axis] for view in views) + 2 * MARGIN for axis in (0, 1))
        padded = np.zeros((len(views), rows, columns), np.int32)
        for inside, view, shift in zip(padded, views, shifts, strict=True):
            inside[MARGIN : MARGIN + view.shape[0], MARGIN : MARGIN + view.shape[1]] = view >> shift
        return _Bands(views, np.array(shifts, np.int64), padded)

    def write(self) -> None:
        """Write the numbers back to the coefficients."""
        for inside, view, shift in zip(self.padded, self.views, self.shifts.tolist(), strict=True):
            view[...] = inside[MARGIN : MARGIN + view.shape[0], MARGIN : MARGIN + view.shape[1]] << shift

    def diagonals(self) -> Iterator[tuple[Int64, Int64, Int64]]:
        """Yield the places in `padded` of the numbers of each step."""
        return diagonals([view.shape for view in self.views])

    def settle(self, places: tuple[Int64, Int64, Int64], numbers: Int64) -> None:
        """Write the numbers of one step. Raises CorruptStream if a coefficient is larger than any of samples."""
        if (np.abs(numbers) << self.shifts[places[0]]).max() > adaptive.LARGEST:
            raise CorruptStream("A coefficient of the kwavelet stream is too large.")
        self.padded[places] = numbers


def _walk(coefficients: Int32, steps: Sequence[int], code: Code) -> None:
    """Code all coefficients (planes, rows, columns), and write what was coded back."""
    views = [wavelet.lowest(plane) for plane in coefficients]
    bands = _Bands.of(views, [max(step - LOWEST_SHIFT, 0) for step in steps])
    _walk_lowest(bands, code)
    bands.write()
    parents = None
    for level in range(wavelet.LEVELS, 0, -1):
        views = [view for plane in coefficients for view in wavelet.details(plane, level)]
        bands = _Bands.of(views, [max(step - shift, 0) for step in steps for shift in DETAIL_SHIFTS[level - 1]])
        _walk_details(bands, parents, code)
        bands.write()
        parents = bands.padded


def _walk_lowest(bands: _Bands, code: Code) -> None:
    """Code the lowest bands: each number as its difference from what its neighbours foretell."""
    counts = Counts()
    for places in bands.diagonals():
        band, y, x = places
        west, north, corner, other = (
            bands.padded[band, y + row, x + column].astype(np.int64)
            for row, column in ((0, -1), (-1, 0), (-1, -1), (-1, 1))
        )
        low, high = np.minimum(west, north), np.maximum(west, north)
        foretold = np.clip(west + north - corner, low, high)
        foretold = np.where(y == MARGIN, west, np.where(x == MARGIN, north, foretold))
        expected = _GRADIENT * (np.abs(west - corner) + np.abs(north - corner) + np.abs(north - other))
        numbers = bands.padded[places].astype(np.int64) - foretold
        bands.settle(places, foretold + code(counts, adaptive.contexts_of(expected), numbers))


def _walk_details(bands: _Bands, parents: Int32 | None, code: Code) -> None:
    """Code the details of a level, in the context of sizes around them and at the same place a level up."""
    counts = Counts()
    for places in bands.diagonals():
        band, y, x = places
        expected = np.zeros(len(y), np.int64)
        for row, column, weight in _NEIGHBOURS:
            expected += weight * np.abs(bands.padded[band, y + row, x + column].astype(np.int64))
        if parents is not None:
            above = parents[band, (y - MARGIN >> 1) + MARGIN, (x - MARGIN >> 1) + MARGIN]
            expected += _PARENT * np.abs(above.astype(np.int64))
        numbers = bands.padded[places].astype(np.int64)
        bands.settle(places, code(counts, adaptive.contexts_of(expected), numbers))
