"""The network in floats: the bits it would spend on pixels, and their gradient. Only encoders use it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.lossless.neural import shape
from thinfilm_codecs.lossless.neural.compiled import Inputs
from thinfilm_codecs.lossless.neural.model import Int8, Model, Network

Float = npt.NDArray[np.float32]

_HALF = shape.COMPONENTS // 2
_LARGEST_ACTIVATION = np.float32(127 / 32)
_LARGEST_WEIGHT = np.float32(127 / 64)
_LEAK = np.float32(shape.BINS / 65536)
_LOG2E = np.float32(np.log2(np.e))


@dataclass(eq=False)
class FloatNetwork:
    """A network whose weights may move: three layers as (weights (out, in), biases (out))."""

    weights: list[Float]
    biases: list[Float]

    @staticmethod
    def of(network: Network) -> "FloatNetwork":
        """Return the floats that an integer network stands for."""
        return FloatNetwork(
            [(w / shape.WEIGHT_ONE).astype(np.float32) for w in network.weights],
            [(b / one).astype(np.float32) for b, one in zip(network.biases, shape.BIAS_ONE, strict=True)],
        )

    def rounded(self, shipped: Network) -> Network:
        """Return the integer network, its biases whole steps of 1/64 from those of the shipped one."""
        weights: list[Int8] = [_to_steps(w).astype(np.int8) for w in self.weights]
        biases = []
        for mine, base, one in zip(self.biases, shipped.biases, shape.BIAS_ONE, strict=True):
            step = one // 64
            biases.append((base + np.rint((mine * one - base) / step).astype(np.int32) * step).astype(np.int32))
        return Network((weights[0], weights[1], weights[2]), (biases[0], biases[1], biases[2]))

    def arrays(self) -> list[Float]:
        """Return all weights and biases."""
        return [*self.weights, *self.biases]


def _to_steps(weights: Float) -> Float:
    return np.clip(np.rint(weights * shape.WEIGHT_ONE), -127, 127)


def _logistic(x: Float) -> Float:
    return np.float32(1) / (np.float32(1) + np.exp(-np.clip(x, -40, 40)))


def bits(network: FloatNetwork, model: Model, batch: Inputs, *, gradient: bool) -> tuple[Float, list[Float]]:
    """Return the bits of each pixel, and the gradient of their mean with respect to network.arrays().

    Weights and activations count as rounded; the gradient passes the rounding unchanged. Without `gradient` the list
    is empty.
    """
    x0 = (batch.inputs.astype(np.float32) - 64) * np.float32(1 / 16)
    w1, w2, w3 = (_to_steps(w) * np.float32(1 / shape.WEIGHT_ONE) for w in network.weights)
    b1, b2, b3 = network.biases
    a1 = x0 @ w1.T + b1
    h1 = np.rint(np.clip(a1, 0, _LARGEST_ACTIVATION) * 32) * np.float32(1 / 32)
    a2 = h1 @ w2.T + b2
    h2 = np.rint(np.clip(a2, 0, _LARGEST_ACTIVATION) * 32) * np.float32(1 / 32)
    out = h2 @ w3.T + b3
    spent, out_gradient = _distribution(out, model, batch, gradient=gradient)
    if not gradient:
        return spent, []
    g3 = out_gradient * np.float32(1 / len(spent))
    g2 = (g3 @ w3) * ((a2 > 0) & (a2 < _LARGEST_ACTIVATION))
    g1 = (g2 @ w2) * ((a1 > 0) & (a1 < _LARGEST_ACTIVATION))
    return spent, [g1.T @ x0, g2.T @ h1, g3.T @ h2, g1.sum(0), g2.sum(0), g3.sum(0)]


def _distribution(out: Float, model: Model, batch: Inputs, *, gradient: bool) -> tuple[Float, Float]:
    """Return the bits of each pixel and their gradient with respect to the outputs (n, OUTPUTS)."""
    error = (batch.scales * np.float32(1 / 32)).astype(np.float32)
    width = np.exp2(np.clip(np.frexp(batch.scales)[1] - 8, 0, 12)).astype(np.float32)
    mean = batch.means * np.float32(1 / 16) + out[:, shape.COMPONENTS] * error
    held = mean < -32768
    mean = np.where(held, np.float32(-32768), mean)
    other = out[:, shape.COMPONENTS + 1] * error
    distance = batch.targets - mean
    apart = np.stack([distance, distance - other], 1).repeat(_HALF, axis=1)
    per_scale = 1 / (model.scales.astype(np.float32) * width[:, None])
    towards = np.where(apart > 0, np.float32(-1), np.float32(1))  # away from where a logistic rounds to 1
    upper = _logistic(towards * (apart + np.float32(0.5)) * per_scale)
    lower = _logistic(towards * (apart - np.float32(0.5)) * per_scale)
    each = np.abs(upper - lower)
    logits = out[:, : shape.COMPONENTS]
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    whole = (weights * each).sum(1)
    probability = whole * (1 - _LEAK) + np.float32(1 / 65536) / width
    spent = -np.log2(probability)
    if not gradient:
        return spent, out
    slope = -(_LOG2E * (1 - _LEAK) / probability)[:, None] * weights
    found = np.zeros_like(out)
    found[:, : shape.COMPONENTS] = slope * (each - whole[:, None])
    by_mean = slope * (lower * (1 - lower) - upper * (1 - upper)) * per_scale
    second = by_mean[:, _HALF:].sum(1)
    found[:, shape.COMPONENTS] = (
        np.where(held, 0, by_mean[:, :_HALF].sum(1)) * error + np.where(held, 0, second) * error
    )
    found[:, shape.COMPONENTS + 1] = second * error
    return spent, found
