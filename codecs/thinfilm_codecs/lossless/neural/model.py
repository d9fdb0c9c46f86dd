"""The shipped model: the network, the linear stage's prior and the tables, all integers, named by their content."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossless.neural import shape

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]

CURRENT = "4fce77a71bbb3ca7bdc3bf08153ae317"
"""Identity of the model that encoders use; older ones stay in `models`, since streams name them."""

_LARGEST_SUM = 2**24
"""Every sum of the network stays below this, so that float32 arithmetic of integers is exact too."""


@dataclass(frozen=True, eq=False)
class Network:
    """Three layers of int8 weights (out, in) and int32 biases (out); the first layer's inputs are centred on 64.

    The first hidden layer is as wide as its weights say, one of shape.WIDTHS; all other sizes are fixed.
    """

    weights: tuple[Int8, Int8, Int8]
    biases: tuple[Int32, Int32, Int32]

    @property
    def width(self) -> int:
        """Outputs of the first hidden layer."""
        return len(self.weights[0])

    @property
    def size(self) -> int:
        """Number of weights and biases."""
        return sum(w.size for w in self.weights) + sum(b.size for b in self.biases)

    def __post_init__(self) -> None:
        if self.width not in shape.WIDTHS:
            raise ValueError(f"The network's first hidden layer is {self.width} wide; {shape.WIDTHS} are known.")
        shapes = (self.width, shape.INPUTS), (shape.HIDDEN_2, self.width), (shape.OUTPUTS, shape.HIDDEN_2)
        for weights, biases, layer_shape in zip(self.weights, self.biases, shapes, strict=True):
            if weights.shape != layer_shape or biases.shape != layer_shape[:1]:
                raise ValueError(f"A layer of the network has the shape {weights.shape}; {layer_shape} is right.")
            if weights.min() < -127:
                raise ValueError("A weight of the network is -128; -127 to 127 are kept.")
            reach = np.abs(weights.astype(np.int64)).sum(1) * (127 + 64) + np.abs(biases.astype(np.int64))
            if reach.max() >= _LARGEST_SUM:
                raise ValueError("The network's sums could pass 2^24.")


@dataclass(frozen=True, eq=False)
class Linear:
    """The linear stage: what parts pixels into classes, and the coefficients (CLASSES, TAPS) in units of 2^-12."""

    activity_thresholds: UInt8
    consistency_thresholds: UInt8
    coefficients: Int16

    def __post_init__(self) -> None:
        if (
            self.activity_thresholds.shape != (shape.ACTIVITY_CLASSES - 1,)
            or self.consistency_thresholds.shape != (shape.CONSISTENCY_CLASSES - 1,)
            or self.coefficients.shape != (shape.CLASSES, shape.TAPS)
        ):
            raise ValueError("The linear stage has arrays of wrong shapes.")
        if np.abs(self.coefficients.astype(np.int64)).sum(1).max() > 32767:
            raise ValueError("The linear stage's sums could pass 2^30.")


@dataclass(frozen=True, eq=False)
class Model:
    """A shipped model.

    identity: first 16 bytes of the SHA-256 of all its arrays.
    exponential: (256,) round(2^14 exp(-i / 16)).
    curves: (COMPONENTS, CURVE) distribution functions in units of 1 / 65535, at eighths of a bin.
    scales: (COMPONENTS,) the scale of each curve in bins; only fitting needs it.
    """

    identity: bytes
    network: Network
    linear: Linear
    exponential: UInt16
    curves: UInt16
    scales: npt.NDArray[np.float64]


def from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> Model:
    """Return the model of these arrays. Raises ValueError if they make none."""
    curves = arrays["curves"]
    if curves.shape != (shape.COMPONENTS, shape.CURVE) or (np.diff(curves.astype(np.int64)) < 0).any():
        raise ValueError("A curve of the model falls, or there are too few.")
    return Model(
        model_files.identity_of(arrays),
        Network(
            (arrays["weights_1"], arrays["weights_2"], arrays["weights_3"]),
            (arrays["biases_1"], arrays["biases_2"], arrays["biases_3"]),
        ),
        Linear(arrays["activity_thresholds"], arrays["consistency_thresholds"], arrays["coefficients"]),
        arrays["exponential"],
        curves,
        arrays["scales"],
    )


@lru_cache(maxsize=4)
def named(identity: bytes) -> Model:
    """Return the shipped model of this identity. Raises MissingModel."""
    assert __package__ is not None
    return from_arrays(model_files.read(__package__, identity))


def shipped() -> Model:
    """Return the model that encoders use today."""
    return named(bytes.fromhex(CURRENT))
