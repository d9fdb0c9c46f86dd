"""The transforms at work. What decodes is exact, in tiles that give what the whole image would; what encodes is floats.

Format: docs/formats/vae.md, "Side information" and "Synthesis".
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossy import exact
from thinfilm_codecs.lossy.exact import Floats
from thinfilm_codecs.lossy.vae.model import (
    ACTIVATION_BITS,
    BLOCK,
    FIRST_WEIGHT_BITS,
    INPUT_BITS,
    INVERSE_GAIN_BITS,
    LARGEST_ACTIVATION,
    LARGEST_LATENT,
    LARGEST_SYMBOL,
    LATENT_BITS,
    LEAK_BITS,
    LINEAR_WEIGHT_BITS,
    LOWEST_LOG_SCALE,
    NORM_BITS,
    SCALE_STEPS_BITS,
    SCALES,
    WEIGHT_BITS,
    Model,
)
from thinfilm_codecs.lossy.vae.scaling import OUTPUT_ONE_BITS

TILE = 32
"""Latents on a side of a tile; it bounds memory and changes no bit of what decodes."""

MARGIN = 4
"""Latents around a tile that its samples depend on, or its latents on samples."""

Int64 = npt.NDArray[np.int64]


def scale_indices(model: Model, hyper: Int64) -> Int64:
    """Return the indices of the latents' scales (latents, rows, columns) by side information.

    hyper: (hyper_latents, rows / 2, columns / 2), of at most LARGEST_SYMBOL.
    """
    up, out = model.layers["hyper_up"], model.layers["hyper_out"]
    x = exact.convolve_transposed(hyper.astype(np.float64), up.weights, up.biases, 2)
    x = exact.rectify_leakily(exact.rescale(x, WEIGHT_BITS - ACTIVATION_BITS, LARGEST_ACTIVATION), LEAK_BITS)
    x = _add_residual(model, "hyper_first", "hyper_second", x)
    bits = ACTIVATION_BITS + WEIGHT_BITS
    logarithms = exact.convolve(x, out.weights, out.biases) - LOWEST_LOG_SCALE * 2.0**bits
    return np.clip(exact.rescale(logarithms, bits - SCALE_STEPS_BITS), 0, SCALES - 1).astype(np.int64)


def dequantise(model: Model, symbols: Int64, quality: int) -> Floats:
    """Return the latents that symbols stand for, in steps of 2^-LATENT_BITS: (latents, rows, columns)."""
    steps = symbols.astype(np.float64) * model.inverse_gains[quality][:, None, None]
    return exact.rescale(steps, INVERSE_GAIN_BITS - LATENT_BITS, LARGEST_LATENT)


def synthesise(model: Model, symbols: Int64, quality: int) -> Floats:
    """Return the outputs (rows, columns), in steps of 2^-OUTPUT_ONE_BITS, of symbols, a sixteenth as many each way."""
    found: Floats = _in_tiles(lambda tile: _synthesised(model, dequantise(model, tile, quality)), symbols, 1, BLOCK)[0]
    return found


def _synthesised(model: Model, latents: Floats) -> Floats:
    x = _up(model, "up_1", latents, 2, LATENT_BITS + FIRST_WEIGHT_BITS - ACTIVATION_BITS)
    for stage in (1, 2):
        x = _add_residual(model, f"first_{stage}", f"second_{stage}", x)
        norms = model.norms[f"norms_{stage}"]
        x = exact.multiply_by_norms(x, norms.gamma, norms.beta, NORM_BITS, ACTIVATION_BITS)
        x = np.clip(x, -LARGEST_ACTIVATION, LARGEST_ACTIVATION)
        if stage == 1:
            x = _up(model, "up_2", x, 2, WEIGHT_BITS)
    last, linear = model.layers["up_3"], model.layers["linear"]
    sums = exact.convolve_transposed(x, last.weights, last.biases, 4)
    sums += exact.convolve_transposed(latents, linear.weights, linear.biases, BLOCK)
    return exact.rescale(sums, LATENT_BITS + LINEAR_WEIGHT_BITS - OUTPUT_ONE_BITS)


def _up(model: Model, name: str, x: Floats, stride: int, shift: int) -> Floats:
    layer = model.layers[name]
    return exact.rescale(exact.convolve_transposed(x, layer.weights, layer.biases, stride), shift, LARGEST_ACTIVATION)


def _add_residual(model: Model, first: str, second: str, x: Floats) -> Floats:
    """Return the activations with what two convolutions add to them."""
    a, b = model.layers[first], model.layers[second]
    inner = exact.rescale(exact.convolve(x, a.weights, a.biases), WEIGHT_BITS, LARGEST_ACTIVATION)
    added = exact.convolve(exact.rectify_leakily(inner, LEAK_BITS), b.weights, b.biases)
    found: Floats = np.clip(x + exact.rescale(added, WEIGHT_BITS), -LARGEST_ACTIVATION, LARGEST_ACTIVATION)
    return found


def analyse(model: Model, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the latents (latents, rows / 16, columns / 16) of values (rows, columns), multiples of 16 each."""
    found: npt.NDArray[np.float32] = _in_tiles(lambda tile: _analysed(model, tile), values[None], BLOCK, 1)
    return found


def _analysed(model: Model, values: npt.NDArray[np.float32]) -> Floats:
    x = values * np.float32(2**-INPUT_BITS)
    for stage, stride in ((1, 4), (2, 2)):
        layer, norms = model.layers[f"down_{stage}"], model.norms[f"down_norms_{stage}"]
        x = exact.convolve(x, layer.weights, layer.biases, stride)
        sums = norms.gamma @ np.square(x).reshape(len(x), -1) + norms.beta[:, None]
        x = x / np.sqrt(sums).reshape(x.shape)
        x = _with_residual(model, f"down_first_{stage}", f"down_second_{stage}", x)
    last, linear = model.layers["down_3"], model.layers["linear_down"]
    found: Floats = exact.convolve(x, last.weights, last.biases, 2)
    found += exact.convolve(values, linear.weights, linear.biases, BLOCK)
    return found


def analyse_latents(model: Model, scaled: npt.NDArray[np.float32]) -> Int64:
    """Return the side information (hyper_latents, rows / 2, columns / 2) of latents times their gains."""
    layer, last = model.layers["hyper_in"], model.layers["hyper_down"]
    x = exact.convolve(np.log1p(np.abs(scaled)), layer.weights, layer.biases)
    x = _with_residual(model, "hyper_in_first", "hyper_in_second", _leaky(x))
    found = np.rint(exact.convolve(x, last.weights, last.biases, 2))
    return np.clip(found, -LARGEST_SYMBOL, LARGEST_SYMBOL).astype(np.int64)


def _with_residual(model: Model, first: str, second: str, x: Floats) -> Floats:
    a, b = model.layers[first], model.layers[second]
    found: Floats = x + exact.convolve(_leaky(exact.convolve(x, a.weights, a.biases)), b.weights, b.biases)
    return found


def _leaky(x: Floats) -> Floats:
    return np.maximum(x, x * x.dtype.type(2**-LEAK_BITS))


def _in_tiles(transform: Callable[[Any], Floats], x: npt.NDArray[Any], step: int, found_step: int) -> Floats:
    """Return what a transform gives for the whole image, by tiles: each with margins, of which nothing is kept.

    step, found_step: rows and columns that a latent stands for in x and in what is found. Beyond the image's borders
    there is nothing, in a tile as in the whole.
    """
    rows, columns = x.shape[1] // step, x.shape[2] // step
    if max(rows, columns) <= TILE:
        return transform(x)
    found: Floats | None = None
    for row in _spans(rows):
        for column in _spans(columns):
            part = transform(x[:, row.wide(step), column.wide(step)])
            if found is None:
                found = np.empty((len(part), rows * found_step, columns * found_step), part.dtype)
            kept = part[:, row.inside(found_step), column.inside(found_step)]
            found[:, row.own(found_step), column.own(found_step)] = kept
    assert found is not None
    return found


class _Span:
    """A tile's latents along an axis, and those with its margins."""

    def __init__(self, first: int, last: int, size: int) -> None:
        self._first, self._last = first, last
        self._outer_first, self._outer_last = max(0, first - MARGIN), min(size, last + MARGIN)

    def own(self, step: int) -> slice:
        return slice(self._first * step, self._last * step)

    def wide(self, step: int) -> slice:
        return slice(self._outer_first * step, self._outer_last * step)

    def inside(self, step: int) -> slice:
        return slice((self._first - self._outer_first) * step, (self._last - self._outer_first) * step)


def _spans(size: int) -> Iterator[_Span]:
    for first in range(0, size, TILE):
        yield _Span(first, min(first + TILE, size), size)
