"""A sine network in integers: what a stream holds, and the samples that follow from it, the same on every machine.

Format: docs/formats/siren.md, "Network".
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

ONE_BITS = 14
"""2^14 stands for 1 in coordinates and sines, and for a whole turn in phases."""

BIAS_BITS = 8
"""A hidden bias is a phase of so many bits."""

SAMPLE_BITS = 4
"""An output bias counts sixteenths of a sample above the minimum."""

LARGEST_BIAS = (1 << 20) - 1
"""The largest magnitude of an output bias."""

MANTISSAS = range(128, 256)
SHIFTS = range(1, 41)

WIDEST = 512
"""The most outputs of a hidden layer. With them sums stay below 2^15 2^8 2^14 2^9 = 2^46, which float64 holds."""

_SINE_SHA256 = "c580515a4281de4c23f3cd579c307e8dd1b6e016daf2adeddb8ebec77c1a3959"
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Layer:
    """weights: int16 (out, in), in units of mantissa 2^-shift. biases: (out,), see BIAS_BITS and SAMPLE_BITS."""

    weights: npt.NDArray[np.int16]
    biases: npt.NDArray[np.int32]
    mantissa: int
    shift: int


def sine_table() -> Float64:
    """Return round(2^14 sin(2 pi k / 2^14)) for k from 0 to 2^14 - 1. No entry lies near a tie of the rounding."""
    turn = 1 << ONE_BITS
    quarter = [round(turn * math.sin(2 * math.pi * k / turn)) for k in range(turn // 4 + 1)]
    half = quarter + quarter[-2:0:-1]
    table = np.array(half + [-value for value in half], np.int16)
    if hashlib.sha256(table.astype("<i2").tobytes()).hexdigest() != _SINE_SHA256:
        raise RuntimeError("The sines of this machine are wrong: siren streams cannot be decoded on it.")
    return table.astype(np.float64)


_SINE = sine_table()


def coordinates(sides: Sequence[int], first: int = 0, count: int | None = None) -> Float64:
    """Return (count, sides) integers of -2^14 to 2^14: places of a grid in raster order, its centre at 0.

    first, count: which places; all by default.
    """
    axes = [((2 * np.arange(side) - (side - 1)) << ONE_BITS) // max(side - 1, 1) for side in sides]
    places = np.arange(first, math.prod(sides) if count is None else first + count)
    steps = np.unravel_index(places, sides)
    return np.stack([axis[step] for axis, step in zip(axes, steps, strict=True)], 1).astype(np.float64)


def evaluate(layers: Sequence[Layer], sides: Sequence[int], first: int, count: int) -> Iterator[tuple[int, Int64]]:
    """Yield the outputs at so many places of a grid, some after others: (number from `first` on, (places, outputs)).

    Every sum is a whole number below 2^46 in magnitude, so float64 holds it in whatever order it is added.
    """
    matrices = [(layer.weights.astype(np.float64) * layer.mantissa).T.copy() for layer in layers]
    step = max(1, _CHUNK // max(matrix.shape[1] for matrix in matrices))
    for done in range(0, count, step):
        x = coordinates(sides, first + done, min(step, count - done))
        for layer, matrix in zip(layers[:-1], matrices, strict=False):
            phases = (x @ matrix).astype(np.int64)
            phases += 1 << (layer.shift - 1)
            phases >>= layer.shift
            phases += layer.biases << (ONE_BITS - BIAS_BITS)
            phases &= (1 << ONE_BITS) - 1
            x = _SINE[phases]
        last = layers[-1]
        sums = (x @ matrices[-1]).astype(np.int64)
        sums += (last.biases.astype(np.int64) + (1 << (SAMPLE_BITS - 1))) << last.shift
        yield done, sums >> (last.shift + SAMPLE_BITS)
