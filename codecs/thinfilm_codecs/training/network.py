"""The network while it is trained: in floats that count as rounded, so that what is learned survives as integers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinfilm_codecs.lossless.neural import shape
from thinfilm_codecs.lossless.neural.model import Linear, Model

_HALF = shape.COMPONENTS // 2
_USED_OUTPUTS = shape.COMPONENTS + 2
_FIRST_SCALES = (0.0006, 1.0, 2.3, 4.7, 0.46, 1.8, 4.35, 9.4)
_ACTIVATION_ONE = 32
_LARGEST_WEIGHT = 127 / shape.WEIGHT_ONE


def _weights(values: Tensor) -> Tensor:
    """Return the weights as int8 will hold them, with the gradient of the floats."""
    rounded = torch.clamp(torch.round(values * shape.WEIGHT_ONE), -127, 127) / shape.WEIGHT_ONE
    return values + (rounded - values).detach()


class _Activation(torch.autograd.Function):
    """Clamp to 0 to 127 steps of 1/32 and round; the gradient passes the rounding unchanged."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:  # type: ignore[override]
        """Return the rounded values, and note for the gradient what was held at a bound."""
        steps = values * _ACTIVATION_ONE
        context.save_for_backward((steps <= 0) | (steps >= 127))
        return steps.add_(0.5).floor_().clamp_(0, 127).mul_(1 / _ACTIVATION_ONE)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Return the gradient, zero where a value was held."""
        (held,) = context.saved_tensors
        return gradient.masked_fill(held, 0)


class TrainedNetwork(nn.Module):
    """The network of docs/formats/neural.md, `width` outputs in its first layer; its curves' scales are learned too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(shape.INPUTS, width)
        self.second = nn.Linear(width, shape.HIDDEN_2)
        self.third = nn.Linear(shape.HIDDEN_2, _USED_OUTPUTS)
        with torch.no_grad():
            self.first.bias.uniform_(0, 0.5)
            self.second.bias.uniform_(0, 0.5)
            self.third.weight.mul_(0.3)
            self.third.bias.zero_()
        self.log_scales = nn.Parameter(torch.tensor(_FIRST_SCALES).log())

    @staticmethod
    def of(model: Model) -> "TrainedNetwork":
        """Return a model's network, to be trained further."""
        network = TrainedNetwork(model.network.width)
        layers = (network.first, network.second, network.third)
        with torch.no_grad():
            for layer, weights, biases, one in zip(
                layers, model.network.weights, model.network.biases, shape.BIAS_ONE, strict=True
            ):
                outs = layer.out_features
                layer.weight.copy_(torch.from_numpy(weights[:outs].astype(np.float32)) / shape.WEIGHT_ONE)
                layer.bias.copy_(torch.from_numpy(biases[:outs].astype(np.float32)) / one)
            network.log_scales.copy_(torch.from_numpy(model.scales).log())
        return network

    def bits(self, inputs: Tensor, means: Tensor, scales: Tensor, targets: Tensor) -> Tensor:
        """Return the bits of each pixel; arguments are the fields of compiled.Inputs."""
        hidden = (inputs.float() - 64) / 16
        for layer in (self.first, self.second):
            hidden = _Activation.apply(functional.linear(hidden, _weights(layer.weight), layer.bias))
        out = functional.linear(hidden, _weights(self.third.weight), self.third.bias)
        error = scales.float() / 32
        width = torch.exp2(torch.clamp(torch.floor(torch.log2(scales.float())) - 7, 0, 12))
        mean = torch.clamp(means.float() / 16 + out[:, shape.COMPONENTS] * error, min=-32768.0)
        other = mean + out[:, shape.COMPONENTS + 1] * error
        apart = targets.float()[:, None] - torch.stack([mean, other], 1).repeat_interleave(_HALF, 1)
        spread = torch.exp(self.log_scales)[None] * width[:, None]
        towards = torch.where(apart > 0, -1.0, 1.0)  # away from where a logistic rounds to 1
        each = torch.sigmoid(towards * (apart + 0.5) / spread) - torch.sigmoid(towards * (apart - 0.5) / spread)
        probability = (functional.softmax(out[:, : shape.COMPONENTS], 1) * each.abs()).sum(1)
        return -torch.log2(probability * (1 - shape.BINS / 65536) + 1 / 65536 / width)

    def hold(self) -> None:
        """Hold the weights to what int8 can say."""
        with torch.no_grad():
            for layer in (self.first, self.second, self.third):
                layer.weight.clamp_(-_LARGEST_WEIGHT, _LARGEST_WEIGHT)

    def export(self, linear: Linear) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays of a model file: integers, and the scales that fitting needs."""
        scales = np.exp(self.log_scales.detach().cpu().numpy().astype(np.float64))
        places = (np.arange(shape.CURVE) - shape.CURVE // 2) / 8 - 1 / 16
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "activity_thresholds": linear.activity_thresholds,
            "consistency_thresholds": linear.consistency_thresholds,
            "coefficients": linear.coefficients,
            "exponential": np.rint(2**14 * np.exp(-np.arange(256) / 16)).astype(np.uint16),
            "curves": np.floor(65535 / (1 + np.exp(-np.clip(places / scales[:, None], -60, 60)))).astype(np.uint16),
            "scales": scales,
        }
        layers = (self.first, self.second, self.third)
        sizes = (self.first.out_features, shape.HIDDEN_2, shape.OUTPUTS)
        for number, (layer, outs, one) in enumerate(zip(layers, sizes, shape.BIAS_ONE, strict=True), 1):
            weights, biases = layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()
            whole = np.zeros((outs, weights.shape[1]), np.int8)
            whole[: len(weights)] = np.clip(np.rint(weights * shape.WEIGHT_ONE), -127, 127)
            offsets = np.zeros(outs, np.int32)
            offsets[: len(biases)] = np.rint(biases * one)
            arrays |= {f"weights_{number}": whole, f"biases_{number}": offsets}
        return arrays
