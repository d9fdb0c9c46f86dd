"""The shipped models, named by their content: a perceptron of integers for a neighbourhood, and residuals to expect."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossless.nagoor.residuals import BINS, CONTEXTS
from thinfilm_codecs.lossless.nagoor.sampling import LARGEST_INPUT, Neighbourhood

CURRENT = "d6f2b505c02814e7d7a812af25698e33"
"""Identity of the model that encoders use; older ones stay in `models`, since streams name them."""

HIDDEN = (1024, 512, 256, 128)
"""Widths of the hidden layers, by the paper; one output follows."""

LEAK_BITS = 2
"""The slope of the leaky rectifier below 0 is 2^-2."""

OUTPUT_ONE_BITS = 12
"""A sum of the last layer of 2^12 stands for 1."""

_LARGEST_SUM = 2**24
_LAYERS = len(HIDDEN) + 1


@dataclass(frozen=True, eq=False)
class Network:
    """Layers of int8 weights (out, in) and int32 biases (out); `shifts` scale the sums of all layers but the last.

    Raises ValueError where a sum could leave the integers that float32 holds, whatever the inputs.
    """

    weights: tuple[npt.NDArray[np.int8], ...]
    biases: tuple[npt.NDArray[np.int32], ...]
    shifts: tuple[int, ...]

    def __post_init__(self) -> None:
        widths = (self.weights[0].shape[1], *HIDDEN, 1)
        for layer, (weights, biases) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weights.shape != (widths[layer + 1], widths[layer]) or biases.shape != weights.shape[:1]:
                raise ValueError(f"Layer {layer + 1} of the network has the shape {weights.shape}.")
            if weights.dtype != np.int8 or biases.dtype != np.int32:
                raise ValueError(f"Layer {layer + 1} of the network is not of int8 weights and int32 biases.")
            shift = self.shifts[layer] if layer < len(self.shifts) else 0
            reach = np.abs(weights.astype(np.int64)).sum(1) * LARGEST_INPUT + np.abs(biases.astype(np.int64))
            if reach.max() + (1 << (shift + LEAK_BITS)) > _LARGEST_SUM:
                raise ValueError(f"The sums of layer {layer + 1} could pass 2^24.")


@dataclass(frozen=True, eq=False)
class Model:
    """A shipped model.

    identity: first 16 bytes of the SHA-256 of all its arrays. residuals: (CONTEXTS, BINS), how often training met each.
    """

    identity: bytes
    hood: Neighbourhood
    network: Network
    residuals: npt.NDArray[np.uint16]


def from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> Model:
    """Return the model of these arrays. Raises ValueError if they make none."""
    hood = Neighbourhood(tuple(arrays["radii"].tolist()))
    network = Network(
        tuple(arrays[f"weights_{layer}"] for layer in range(1, _LAYERS + 1)),
        tuple(arrays[f"biases_{layer}"] for layer in range(1, _LAYERS + 1)),
        tuple(arrays["shifts"].tolist()),
    )
    if network.weights[0].shape[1] != hood.inputs:
        raise ValueError(f"The network has {network.weights[0].shape[1]} inputs; its neighbourhood {hood.inputs}.")
    if arrays["residuals"].shape != (CONTEXTS, BINS):
        raise ValueError(f"The table of residuals has the shape {arrays['residuals'].shape}.")
    return Model(model_files.identity_of(arrays), hood, network, arrays["residuals"])


@lru_cache(maxsize=2)
def named(identity: bytes) -> Model:
    """Return the shipped model of this identity. Raises MissingModel."""
    assert __package__ is not None
    return from_arrays(model_files.read(__package__, identity))
