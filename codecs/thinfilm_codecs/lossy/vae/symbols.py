"""Coding of latents by tables: a bin, the low bits that no table tells apart, and the whole number behind an escape.

Format: docs/formats/vae.md, "Symbols".
"""

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural.rans import Decoder, Encoder
from thinfilm_codecs.lossy.vae.model import Tables

Int64 = npt.NDArray[np.int64]

_ESCAPE_BITS = 16


def put(encoder: Encoder, tables: Tables, indices: Int64, values: Int64) -> None:
    """Put values (n,) of -2^15 to 2^15 - 1, each by the table of its index (n,)."""
    shifts, sides = np.array(tables.shifts)[indices], np.array(tables.sides)[indices]
    bins = values >> shifts
    escaped = np.abs(bins) > sides
    slots = np.where(escaped, 2 * sides + 1, bins + sides)
    starts = np.concatenate([[0], np.cumsum([len(bounds) for bounds in tables.bounds])])[indices] + slots
    bounds = np.concatenate(tables.bounds)
    raw_bits = np.where(escaped, _ESCAPE_BITS, shifts)
    raw = values & (1 << raw_bits) - 1
    entries = np.empty((len(values), 2, 2), np.int64)
    entries[:, 0] = np.stack([bounds[starts], bounds[starts + 1] - bounds[starts]], 1)
    entries[:, 1] = np.stack([raw << 16 - raw_bits, 1 << 16 - raw_bits], 1)
    there = np.stack([np.ones(len(values), bool), raw_bits > 0], 1)
    encoder.symbols.extend((start, frequency) for start, frequency in entries[there].tolist())


def take(decoder: Decoder, tables: Tables, indices: Int64) -> Int64:
    """Take values (n,) that were put with these tables and indices. Raises CorruptStream if the stream ends before."""
    bounds = [each.tolist() for each in tables.bounds]
    sides, shifts = tables.sides, tables.shifts
    found = []
    for index in indices.tolist():
        side, shift = sides[index], shifts[index]
        value = decoder.symbol(None, bounds[index]) - side
        if value > side:
            value = decoder.uniform(None, _ESCAPE_BITS)
            value -= value >> 15 << 16
        elif shift:
            value = value << shift | decoder.uniform(None, shift)
        found.append(value)
    return np.array(found, np.int64)


def differences(first: Int64) -> Int64:
    """Return the differences of the first latents (rows, columns) to their median predictions, as JPEG-LS has them."""
    padded = np.pad(first, ((1, 0), (1, 0)))
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    low, high = np.minimum(left, above), np.maximum(left, above)
    predicted = np.clip(left + above - corner, low, high)
    predicted[0], predicted[:, 0] = left[0], above[:, 0]
    found: Int64 = first - predicted
    return found


def undo_differences(found: Int64) -> Int64:
    """Return the latents (rows, columns) that have these differences."""
    rows: list[list[int]] = []
    above = [0] * found.shape[1]
    for line in found.tolist():
        row: list[int] = []
        for column, difference in enumerate(line):
            if not column:
                predicted = above[0]
            elif not rows:
                predicted = row[-1]
            else:
                left, top = row[-1], above[column]
                predicted = min(max(left + top - above[column - 1], min(left, top)), max(left, top))
            row.append(difference + predicted)
        rows.append(row)
        above = row
    return np.array(rows, np.int64)
