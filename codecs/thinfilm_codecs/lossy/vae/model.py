"""The shipped models, named by their content: transforms of integers that decode, transforms of floats that encode."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossy.exact import Floats, largest_sum, prove, prove_norms

CURRENT = "eb42047b8163c734fea4879a4b221c86"
"""Identity of the model that encoders use; older ones stay in `models`, since streams name them."""

QUALITIES = 64
"""There are so many rates; the highest is the last."""

BLOCK, HYPER_BLOCK = 16, 32
"""A latent, and a number of the side information, stand for so many rows and columns."""

INPUT_BITS = 4
"""The nonlinear part of the analysis sees values in units of 2^4."""

LEAK_BITS = 3
"""The slope of the leaky rectifier below 0 is 2^-3."""

WEIGHT_BITS, FIRST_WEIGHT_BITS, LINEAR_WEIGHT_BITS = 12, 18, 14
"""A weight of the decoder of 2^12 stands for 1; of the synthesis' first layer 2^18, of its linear path 2^14."""

ACTIVATION_BITS, LATENT_BITS, INVERSE_GAIN_BITS, NORM_BITS = 10, 8, 10, 14
"""What stands for 1 in activations, scaled latents, inverse gains, norms: 2 to this."""

LARGEST_ACTIVATION, LARGEST_LATENT, LARGEST_SYMBOL = 2**17 - 1, 2**25 - 1, 2**15 - 1

SCALES, SCALE_STEPS_BITS, LOWEST_LOG_SCALE = 64, 2, -5
"""Index i of the scales stands for 2^(i / 4 - 5)."""

BINS = 96
"""A table has at most so many bins on either side of that around 0."""

HYPER_BINS = 32

_SUMS_BITS = ACTIVATION_BITS + WEIGHT_BITS


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution, transposed or not: weights with two axes of channels and two of the kernel; biases (outputs,)."""

    weights: Floats
    biases: Floats


@dataclass(frozen=True, eq=False)
class Norms:
    """What a divisive normalisation divides by: gamma (channels, channels) and beta (channels,)."""

    gamma: Floats
    beta: Floats


@dataclass(frozen=True, eq=False)
class Tables:
    """Cumulative frequencies of bins: `bounds[i]` rises from 0 to 2^16 over 2 sides[i] + 1 bins and an escape.

    Bin b of table i, -sides[i] to sides[i], has the values v with v >> shifts[i] = b.
    """

    bounds: tuple[npt.NDArray[np.int64], ...]
    shifts: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, ...]:
        """Bins on either side of that around 0."""
        return tuple((len(bounds) - 3) // 2 for bounds in self.bounds)


@dataclass(frozen=True, eq=False)
class Model:
    """A shipped model.

    identity: first 16 bytes of the SHA-256 of all its arrays. layers, norms: by their names in docs/formats/vae.md;
    those that decode hold integers in float64, proven to be exact; those that encode float32. gains, inverse_gains:
    (QUALITIES, latents), the latter integers.
    """

    identity: bytes
    layers: dict[str, Layer]
    norms: dict[str, Norms]
    gains: npt.NDArray[np.float32]
    inverse_gains: Floats
    tables: Tables
    hyper_tables: Tables

    @property
    def latents(self) -> int:
        """Channels of the latents."""
        return int(self.inverse_gains.shape[1])

    @property
    def hyper_latents(self) -> int:
        """Channels of the side information."""
        return len(self.hyper_tables.bounds)


DECODING_LAYERS = {
    "hyper_up": (LARGEST_SYMBOL, True),
    "hyper_first": (LARGEST_ACTIVATION, False),
    "hyper_second": (LARGEST_ACTIVATION, False),
    "hyper_out": (LARGEST_ACTIVATION, False),
    "up_1": (LARGEST_LATENT, True),
    "first_1": (LARGEST_ACTIVATION, False),
    "second_1": (LARGEST_ACTIVATION, False),
    "up_2": (LARGEST_ACTIVATION, True),
    "first_2": (LARGEST_ACTIVATION, False),
    "second_2": (LARGEST_ACTIVATION, False),
    "up_3": (LARGEST_ACTIVATION, True),
    "linear": (LARGEST_LATENT, True),
}
"""The layers of the decoder: the largest size of their inputs, and whether they are transposed."""

ENCODING_LAYERS = (
    "down_1", "down_first_1", "down_second_1", "down_2", "down_first_2", "down_second_2", "down_3", "linear_down",
    "hyper_in", "hyper_in_first", "hyper_in_second", "hyper_down",
)  # fmt: skip
"""The layers of the encoder."""

DECODING_NORMS, ENCODING_NORMS = ("norms_1", "norms_2"), ("down_norms_1", "down_norms_2")


def from_arrays(arrays: model_files.Arrays) -> Model:
    """Return the model of these arrays. Raises ValueError if they make none, or one whose decoder could be inexact."""
    layers, norms, sums = {}, {}, {}
    for name, (largest, transposed) in DECODING_LAYERS.items():
        weights, biases = _integers(arrays, f"{name}_weights"), _integers(arrays, f"{name}_biases")
        sums[name] = largest_sum(weights.swapaxes(0, 1) if transposed else weights, biases, largest)
        prove(name, sums[name])
        layers[name] = Layer(weights.astype(np.float64), biases.astype(np.float64))
    prove("the outputs", sums["up_3"] + sums["linear"])
    for name in DECODING_NORMS:
        gamma, beta = _integers(arrays, f"{name}_gamma"), _integers(arrays, f"{name}_beta")
        prove_norms(name, gamma, beta, LARGEST_ACTIVATION)
        norms[name] = Norms(gamma.astype(np.float64), beta.astype(np.float64))
    for name in ENCODING_LAYERS:
        weights, biases = arrays[f"{name}_weights"].astype(np.float32), arrays[f"{name}_biases"].astype(np.float32)
        layers[name] = Layer(weights, biases)
    for name in ENCODING_NORMS:
        gamma, beta = arrays[f"{name}_gamma"].astype(np.float32), arrays[f"{name}_beta"].astype(np.float32)
        norms[name] = Norms(gamma, beta)
    inverse_gains = _integers(arrays, "inverse_gains")
    prove("the latents", int(np.abs(inverse_gains).max()) * LARGEST_SYMBOL)
    if arrays["gains"].shape != inverse_gains.shape or len(inverse_gains) != QUALITIES:
        raise ValueError(f"The gains of the model have the shape {arrays['gains'].shape}.")
    tables = _tables(arrays["frequencies"], scale_shifts())
    hyper_tables = _tables(arrays["hyper_frequencies"], (0,) * len(arrays["hyper_frequencies"]))
    return Model(
        model_files.identity_of(arrays),
        layers,
        norms,
        arrays["gains"].astype(np.float32),
        inverse_gains.astype(np.float64),
        tables,
        hyper_tables,
    )


def scale_shifts() -> tuple[int, ...]:
    """Return how many low bits of a latent are told apart by none of the tables of the scales: those far below them."""
    return tuple(max(0, (i >> SCALE_STEPS_BITS) + LOWEST_LOG_SCALE - 2) for i in range(SCALES))


def _integers(arrays: model_files.Arrays, name: str) -> npt.NDArray[Any]:
    array = arrays[name]
    if array.dtype.kind not in "iu":
        raise ValueError(f"The array {name} of the model is not of integers.")
    return array.astype(np.int64)


def _tables(frequencies: npt.NDArray[Any], shifts: tuple[int, ...]) -> Tables:
    """Return the tables of frequencies (tables, bins and escape, then zeros). Raises ValueError if they are none."""
    if len(frequencies) != len(shifts):
        raise ValueError(f"The model has {len(frequencies)} tables; {len(shifts)} are right.")
    bounds = []
    for table in frequencies.astype(np.int64):
        used = np.flatnonzero(table)
        if table.min() < 0 or table.sum() != 1 << 16 or len(used) % 2 or used[-1] != len(used) - 1:
            raise ValueError("A table of the model has no frequencies of bins and an escape that sum to 65536.")
        bounds.append(np.concatenate([[0], np.cumsum(table[: len(used)])]))
    return Tables(tuple(bounds), shifts)


@lru_cache(maxsize=2)
def named(identity: bytes) -> Model:
    """Return the shipped model of this identity. Raises MissingModel."""
    assert __package__ is not None
    return from_arrays(model_files.read(__package__, identity))
