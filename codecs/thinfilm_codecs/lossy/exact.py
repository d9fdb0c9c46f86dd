"""Layers of networks in exact arithmetic: floating-point arrays whose every value is an integer.

A sum of integers that stays below 2^53 (float32: 2^24) is exact in any order, so the products here give the same on
every library, device and thread count. IEEE 754 rounds quotients and square roots correctly, so their floors are exact
too, for operands below 2^52. Images are (channels, rows, columns); `one_bits` says that 2^one_bits stands for 1.
"""

from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Floats = npt.NDArray[np.floating[Any]]

LARGEST_SUM = {"float32": 2**24, "float64": 2**53}
"""All integers up to these, of either sign, are held exactly."""

_TILE_VALUES = 1 << 21
_DIGITS = 40


def largest_sum(weights: npt.NDArray[Any], bias: npt.NDArray[Any], largest: int) -> int:
    """Return the largest absolute sum that a layer can reach from inputs of at most `largest`, an upper bound.

    weights: (outputs, ...), integers; bias: (outputs,). Whole numbers of any size, so the bound itself cannot overflow.
    """
    flat = np.abs(weights.reshape(len(weights), -1).astype(np.int64)).sum(1)
    return max(abs(int(b)) + int(w) * largest for w, b in zip(flat, bias, strict=True))


def prove(name: str, sums: int, dtype: str = "float64") -> None:
    """Raise ValueError where the sums of the layer of this name could leave the integers that the type holds.

    A half is left for the rounding of `rescale`.
    """
    if 2 * sums >= LARGEST_SUM[dtype]:
        raise ValueError(f"The sums of {name} could reach {sums}, which is too much for {dtype}.")


def convolve(x: Floats, weights: Floats, bias: Floats, stride: int = 1) -> Floats:
    """Return the convolution (outputs, rows / stride, columns / stride) of an image of zeros outside its borders.

    x: (inputs, rows, columns), rows and columns multiples of the stride. weights: (outputs, inputs, kernel, kernel),
    where kernel - stride is even, so that the padding is the same on all sides. bias: (outputs,).
    """
    outputs, inputs, kernel, _ = weights.shape
    padding = _padding(kernel, stride)
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    rows, columns = windows.shape[1:3]
    matrix = weights.reshape(outputs, -1)
    found = np.empty((outputs, rows, columns), x.dtype)
    for first, last in _row_tiles(rows, inputs * kernel * kernel * columns):
        tile = windows[:, first:last].transpose(0, 3, 4, 1, 2).reshape(inputs * kernel * kernel, -1)
        found[:, first:last] = (matrix @ tile).reshape(outputs, last - first, columns)
    found += bias[:, None, None]
    return found


def convolve_transposed(x: Floats, weights: Floats, bias: Floats, stride: int) -> Floats:
    """Return the transposed convolution (outputs, rows * stride, columns * stride) of an image.

    x: (inputs, rows, columns). weights: (inputs, outputs, kernel, kernel), where kernel - stride is even and not
    negative; what falls outside the image is dropped. bias: (outputs,).
    """
    inputs, outputs, kernel, _ = weights.shape
    padding = _padding(kernel, stride)
    rows, columns = x.shape[1:]
    matrix = weights.reshape(inputs, -1).T
    full = np.zeros((outputs, rows * stride + 2 * padding, columns * stride + 2 * padding), x.dtype)
    for first, last in _row_tiles(rows, outputs * kernel * kernel * columns):
        parts = matrix @ x[:, first:last].reshape(inputs, -1)
        parts = parts.reshape(outputs, kernel, kernel, last - first, columns)
        for i in range(kernel):
            for j in range(kernel):
                bottom, right = (last - 1) * stride + i + 1, (columns - 1) * stride + j + 1
                full[:, first * stride + i : bottom : stride, j:right:stride] += parts[:, i, j]
    inside = slice(padding, -padding or None)
    found = np.ascontiguousarray(full[:, inside, inside])
    found += bias[:, None, None]
    return found


def _padding(kernel: int, stride: int) -> int:
    if kernel < stride or (kernel - stride) % 2:
        raise ValueError(f"A kernel of {kernel} does not lie evenly around a stride of {stride}.")
    return (kernel - stride) // 2


def _row_tiles(rows: int, values_a_row: int) -> list[tuple[int, int]]:
    """Return the first row, and that behind the last, of tiles of about _TILE_VALUES values."""
    step = max(1, _TILE_VALUES // values_a_row)
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


def rescale(x: Floats, shift: int, largest: int | None = None) -> Floats:
    """Return floor(x / 2^shift + 1/2), held to -largest to largest where that is given.

    Exact where |x| + 2^(shift - 1) is a sum that the type holds.
    """
    scaled = np.floor((x + x.dtype.type(2.0 ** (shift - 1))) * x.dtype.type(2.0**-shift)) if shift > 0 else x
    return scaled if largest is None else np.clip(scaled, -largest, largest)


def rectify(x: Floats) -> Floats:
    """Return the rectified values, max(x, 0)."""
    return np.maximum(x, 0)


def rectify_leakily(x: Floats, leak_bits: int) -> Floats:
    """Return x where it is positive, floor(x / 2^leak_bits) where not."""
    found: Floats = np.where(x > 0, x, np.floor(x * x.dtype.type(2.0**-leak_bits)))
    return found


def divide_by_norms(x: Floats, gamma: Floats, beta: Floats, norm_bits: int, one_bits: int) -> Floats:
    """Return the generalised divisive normalisation (GDN) of an image: x / sqrt(beta + gamma x^2).

    x: (channels, rows, columns). The arguments are those of `multiply_by_norms`. Exact where |x| * 2^(one_bits +
    norm_bits / 2 + 1) is below 2^52. Source: Ballé, Laparra, Simoncelli: Density Modeling of Images using a Generalized
    Normalization Transformation, ICLR 2016.
    """
    roots = np.maximum(_norms(x, gamma, beta), 1)
    numerators = x * x.dtype.type(2.0 ** (one_bits + norm_bits // 2 + 1)) + roots
    found: Floats = np.floor(numerators / (2 * roots))
    return found


def multiply_by_norms(x: Floats, gamma: Floats, beta: Floats, norm_bits: int, one_bits: int) -> Floats:
    """Return the inverse normalisation (IGDN) of an image: x sqrt(beta + gamma x^2).

    x: (channels, rows, columns), of one_bits. gamma: (channels, channels), not negative, of norm_bits, an even number.
    beta: (channels,), not negative, of norm_bits + 2 one_bits. The root is that of whole numbers, rounded down. Exact
    where `prove_norms` finds nothing.
    """
    return rescale(x * _norms(x, gamma, beta), norm_bits // 2 + one_bits)


def prove_norms(name: str, gamma: npt.NDArray[Any], beta: npt.NDArray[Any], largest: int) -> None:
    """Raise ValueError where the normalisation of this name, or its inverse, could be inexact in float64.

    largest: of the inputs' sizes.
    """
    if gamma.min() < 0 or beta.min() < 0:
        raise ValueError(f"The norms of {name} have negative terms.")
    norms = largest_sum(gamma, beta, largest * largest)
    prove(name, norms)
    prove(name, (int(norms**0.5) + 1) * largest)


def _norms(x: Floats, gamma: Floats, beta: Floats) -> Floats:
    """Return floor(sqrt(beta + gamma x^2)): (channels, rows, columns)."""
    squares = np.square(x).reshape(len(x), -1)
    sums = gamma @ squares
    sums += beta[:, None]
    roots: Floats = np.floor(np.sqrt(sums, out=sums), out=sums).reshape(x.shape)
    return roots


def exponential_linear(x: Floats, one_bits: int) -> Floats:
    """Return the exponential linear unit (ELU): x where positive, e^x - 1 to the nearest step where not."""
    table = _negative_exponentials(one_bits)
    below = table[np.clip(-x, 0, len(table) - 1).astype(np.intp)].astype(x.dtype)
    return np.where(x > 0, x, below)


def sigmoid(x: Floats, one_bits: int, steps_bits: int) -> Floats:
    """Return 1 / (1 + e^-x), to the nearest of steps of 2^-steps_bits; x is of one_bits."""
    table = _sigmoids(one_bits, steps_bits)
    above = table[np.clip(np.abs(x), 0, len(table) - 1).astype(np.intp)].astype(x.dtype)
    return np.where(x >= 0, above, 2**steps_bits - above)


@lru_cache(maxsize=8)
def _negative_exponentials(one_bits: int) -> npt.NDArray[np.int64]:
    """Return e^-i - 1 for steps i from 0 on, until nothing changes. Decimal rounds e^x correctly on every machine."""
    one = 2**one_bits
    found: list[int] = []
    with localcontext(prec=_DIGITS):
        while not found or found[-1] > -one:
            found.append(int((((-Decimal(len(found)) / one).exp() - 1) * one).to_integral_value()))
    return np.array(found, np.int64)


@lru_cache(maxsize=8)
def _sigmoids(one_bits: int, steps_bits: int) -> npt.NDArray[np.int64]:
    """Return the sigmoids of steps from 0 on, until they stay at the whole."""
    one, whole = 2**one_bits, 2**steps_bits
    found: list[int] = []
    with localcontext(prec=_DIGITS):
        while not found or found[-1] < whole:
            found.append(int((whole / (1 + (-Decimal(len(found)) / one).exp())).to_integral_value()))
    return np.array(found, np.int64)
