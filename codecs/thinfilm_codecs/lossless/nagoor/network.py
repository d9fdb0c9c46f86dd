"""The network at work: float32 products of integers, exact in any order, so equal on every library and device."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from thinfilm_codecs.lossless.nagoor.model import LEAK_BITS, Model
from thinfilm_codecs.lossless.nagoor.sampling import LARGEST_INPUT, Float32

Run = Callable[[Float32], Float32]
"""Takes inputs (n, hood.inputs), returns the sums of the output (n,): integers in float32."""

_LEAK = np.float32(2.0**-LEAK_BITS)


@lru_cache(maxsize=2)
def running(model: Model, device: str) -> Run:
    """Return the model's network on a device: "cpu" by numpy, "torch-cpu" and "cuda" by torch."""
    return _on_numpy(model) if device == "cpu" else _on_torch(model, "cpu" if device == "torch-cpu" else device)


def _on_numpy(model: Model) -> Run:
    layers = [
        (np.ascontiguousarray(weights.T, np.float32), biases.astype(np.float32))
        for weights, biases in zip(model.network.weights, model.network.biases, strict=True)
    ]

    def run(inputs: Float32) -> Float32:
        x = inputs
        for (weights, biases), shift in zip(layers, model.network.shifts, strict=False):
            x = x @ weights
            x += biases
            np.maximum(x, x * _LEAK, out=x)
            x *= np.float32(2.0**-shift)
            x += np.float32(0.5)
            np.floor(x, out=x)
            np.clip(x, -LARGEST_INPUT, LARGEST_INPUT, out=x)
        weights, biases = layers[-1]
        found: Float32 = (x @ weights)[:, 0] + biases[0]
        return found

    return run


def _on_torch(model: Model, device: str) -> Run:
    """TF32 does no harm: it keeps eleven bits of an operand, and the operands here have eight."""
    import torch

    def tensor(values: Any) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    layers = [
        (tensor(weights).T.contiguous(), tensor(biases))
        for weights, biases in zip(model.network.weights, model.network.biases, strict=True)
    ]

    def run(inputs: Float32) -> Float32:
        with torch.inference_mode():
            x = torch.from_numpy(inputs).to(device)
            for (weights, biases), shift in zip(layers, model.network.shifts, strict=False):
                sums = x @ weights + biases
                leaked = torch.maximum(sums, sums * 2.0**-LEAK_BITS)
                x = torch.clamp(torch.floor(leaked * 2.0**-shift + 0.5), -LARGEST_INPUT, LARGEST_INPUT)
            weights, biases = layers[-1]
            found: Float32 = ((x @ weights)[:, 0] + biases[0]).cpu().numpy()
            return found

    return run
