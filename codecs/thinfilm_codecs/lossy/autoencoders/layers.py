"""Convolutions of integers with the bounds that make them exact, and images larger than a tile.

Format: docs/formats/autoencoders.md, "Layers".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossy import exact
from thinfilm_codecs.lossy.exact import Floats

ONE_BITS = 10
"""Activations of 2^10 stand for 1."""

WEIGHT_BITS = 12
"""Weights of 2^12 stand for 1."""

LARGEST = 1 << 20
"""A layer's activations are held to this size; the sum of two is what another may be given."""

SCALE = 8
"""A code has one place for each square of 8 x 8 samples."""

TILE = 32
HALO = 5
"""Codes of a tile's side, and around it: more than any output sees."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """One layer, in float64 arrays of integers, proven to be exact.

    weights: (outputs, inputs, side, side); where `transposed` (inputs, outputs, side, side). biases: (outputs,).
    """

    weights: Floats
    biases: Floats
    stride: int
    transposed: bool

    def __call__(self, x: Floats) -> Floats:
        """Return the activations (outputs, rows, columns) of an image (inputs, rows, columns), before any rectifier."""
        convolve = exact.convolve_transposed if self.transposed else exact.convolve
        return exact.rescale(convolve(x, self.weights, self.biases, self.stride), WEIGHT_BITS, LARGEST)


@dataclass(frozen=True)
class Shape:
    """What a layer of a network is: sizes, and whether it widens or narrows the image."""

    name: str
    inputs: int
    outputs: int
    side: int
    stride: int = 1
    transposed: bool = False

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """The shape of the weights, as torch has them."""
        first, second = (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)
        return first, second, self.side, self.side

    def taken_from(self, arrays: dict[str, npt.NDArray[Any]]) -> Convolution:
        """Return the layer of a model file. Raises ValueError where its arrays are not of this shape, or not exact."""
        weights, biases = arrays[f"{self.name}_weights"], arrays[f"{self.name}_biases"]
        if weights.shape != self.weights or weights.dtype != np.int16:
            raise ValueError(f"The weights of {self.name} are {weights.dtype} of {weights.shape}.")
        if biases.shape != (self.outputs,) or biases.dtype != np.int32:
            raise ValueError(f"The biases of {self.name} are {biases.dtype} of {biases.shape}.")
        outputs_first = weights.swapaxes(0, 1) if self.transposed else weights
        exact.prove(self.name, exact.largest_sum(outputs_first, biases, 2 * LARGEST))
        return Convolution(weights.astype(np.float64), biases.astype(np.float64), self.stride, self.transposed)


def layers_of(shapes: tuple[Shape, ...], arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Convolution]:
    """Return the layers of a model file by name. Raises ValueError if one is missing or not as it should be."""
    missing = [shape.name for shape in shapes if not {f"{shape.name}_weights", f"{shape.name}_biases"} <= arrays.keys()]
    if missing:
        raise ValueError(f"The model lacks the layers {', '.join(missing)}.")
    return {shape.name: shape.taken_from(arrays) for shape in shapes}


@dataclass(frozen=True, eq=False)
class Network:
    """A shipped model: an encoder and a decoder of integers, exact on every machine. run: how layers follow."""

    encoder: tuple[Convolution, ...]
    decoder: tuple[Convolution, ...]
    run: Callable[[tuple[Convolution, ...], Floats], Floats]

    def analyse(self, plane: Floats) -> Floats:
        """Return what codes are made of (codes, rows / SCALE, columns / SCALE) for an image (1, rows, columns)."""
        return self.run(self.encoder, plane)

    def synthesise(self, codes: Floats) -> Floats:
        """Return the image (1, rows, columns) of codes (codes, rows / SCALE, columns / SCALE)."""
        return self.run(self.decoder, codes)


def network_of(
    encoder: tuple[Shape, ...],
    decoder: tuple[Shape, ...],
    run: Callable[[tuple[Convolution, ...], Floats], Floats],
    arrays: dict[str, npt.NDArray[Any]],
) -> Network:
    """Return the network of a model file. Raises ValueError if its arrays make none, or none that is exact."""
    layers = layers_of(encoder + decoder, arrays)
    return Network(tuple(layers[shape.name] for shape in encoder), tuple(layers[shape.name] for shape in decoder), run)


Run = Callable[[Floats], Floats]


def analysed_in_tiles(plane: Floats, network: Run) -> Floats:
    """Return the outputs (channels, rows / SCALE, columns / SCALE) of a network for a plane (rows, columns)."""
    return _in_tiles(plane[None], network, SCALE, 1)


def synthesised_in_tiles(codes: Floats, network: Run) -> Floats:
    """Return the plane (rows, columns) of codes (channels, rows / SCALE, columns / SCALE)."""
    plane: Floats = _in_tiles(codes, network, 1, SCALE)[0]
    return plane


def _in_tiles(x: Floats, network: Run, given: int, made: int) -> Floats:
    """Run a network on tiles and what lies around them: the same as at once, but in bounded memory.

    given, made: samples of the input and the output along a side for each code.
    """
    rows, columns = x.shape[1] // given, x.shape[2] // given
    found: Floats | None = None
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            above, before = max(top - HALO, 0), max(left - HALO, 0)
            bottom, right = min(top + TILE, rows), min(left + TILE, columns)
            seen = x[:, above * given : (bottom + HALO) * given, before * given : (right + HALO) * given]
            tile = network(np.ascontiguousarray(seen))
            if found is None:
                found = np.empty((len(tile), rows * made, columns * made))
            inside = tile[:, (top - above) * made : (bottom - above) * made, (left - before) * made :]
            found[:, top * made : bottom * made, left * made : right * made] = inside[:, :, : (right - left) * made]
    assert found is not None
    return found
