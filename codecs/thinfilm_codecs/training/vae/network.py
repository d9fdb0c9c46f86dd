"""The autoencoders as torch trains them: the codec's own, and the ablations it is compared with."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 8
"""Rates that are trained by name; those between are interpolated."""

LOWEST_LAMBDA, LAMBDA_RATIO = 0.012, 2**1.5

WIDTHS = (32, 64)
LATENTS = 256
HYPER_WIDTH, HYPER_LATENTS = 64, 32
LEAK_BITS = 3
BLOCK = 16
"""A latent stands for so many rows and columns."""

INPUT_BITS = 4
"""The nonlinear branch sees values in units of 2^4."""

LOWEST_SCALE, HIGHEST_SCALE = -5.0, 10.75
"""Of the logarithms to base 2 of the scales of latents."""

_LARGEST = 127.0  # of the activations that the codec holds


@dataclass(frozen=True)
class Variant:
    """What an autoencoder has: residual blocks, and a linear path around each transform; side information."""

    residual: bool
    side_information: bool


VARIANTS = {
    "ours": Variant(residual=True, side_information=True),
    "balle2018": Variant(residual=False, side_information=True),
    "no_side_information": Variant(residual=True, side_information=False),
    "bls2017": Variant(residual=False, side_information=False),
}


def through(values: Tensor, rounded: Tensor) -> Tensor:
    """Return the rounded values, with the gradient of the values."""
    return values + (rounded - values).detach()


def lambdas(levels: Tensor) -> Tensor:
    """Return the weights of the distortion, per squared unit, at levels of 0 to LEVELS - 1, whole or between."""
    return LOWEST_LAMBDA * LAMBDA_RATIO**levels


class Norms(nn.Module):
    """Generalised divisive normalisation, or its inverse; what it divides by has no negative terms, being squares."""

    def __init__(self, channels: int, inverse: bool) -> None:
        super().__init__()
        self.inverse = inverse
        self.root_gamma = nn.Parameter(0.03 + (math.sqrt(0.1) - 0.03) * torch.eye(channels))
        self.root_beta = nn.Parameter(torch.ones(channels))

    def terms(self) -> tuple[Tensor, Tensor]:
        """Return gamma (channels, channels) and beta (channels,)."""
        return self.root_gamma.square(), self.root_beta.square() + 1e-4

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised image (n, channels, rows, columns)."""
        gamma, beta = self.terms()
        norms = functional.conv2d(x.square(), gamma[:, :, None, None], beta).sqrt()
        return (x * norms).clamp(-_LARGEST, _LARGEST) if self.inverse else x / norms


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image (n, channels, rows, columns) with what the convolutions add."""
        return x + self.second(functional.leaky_relu(self.first(x), 2**-LEAK_BITS))


def _down(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 2 * stride, stride, stride // 2)


def _up(inputs: int, outputs: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2 * stride, stride, stride // 2)


def cosines() -> Tensor:
    """Return the LATENTS lowest vectors (LATENTS, 1, BLOCK, BLOCK) of the two-dimensional cosine transform."""
    index = np.arange(BLOCK)
    basis = np.cos(np.pi * (2 * index[None] + 1) * index[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    u, v = np.divmod(np.arange(BLOCK * BLOCK), BLOCK)
    lowest = np.lexsort((v, u, u * u + v * v))[:LATENTS]
    return torch.from_numpy(np.einsum("ki,kj->kij", basis[u[lowest]], basis[v[lowest]])).float()[:, None]


class Autoencoder(nn.Module):
    """Analysis, synthesis and entropy model of a variant.

    The latents y are those of all rates; a level's gains scale them before they are rounded, and its inverse gains
    afterwards. Source: Ballé, Minnen, Singh, Hwang, Johnston: Variational image compression with a scale hyperprior,
    ICLR 2018; gains: Cui et al.: Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation, CVPR 2021.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        first, second = WIDTHS

        def maybe(channels: int) -> list[nn.Module]:
            return [Residual(channels)] if variant.residual else []

        self.analysis = nn.Sequential(
            _down(1, first, 4), Norms(first, False), *maybe(first),
            _down(first, second, 2), Norms(second, False), *maybe(second),
            _down(second, LATENTS, 2),
        )  # fmt: skip
        self.synthesis = nn.Sequential(
            _up(LATENTS, second, 2), *maybe(second), Norms(second, True),
            _up(second, first, 2), *maybe(first), Norms(first, True),
            _up(first, 1, 4),
        )  # fmt: skip
        if variant.residual:
            self.linear_analysis = nn.Parameter(cosines())
            self.linear_synthesis = nn.Parameter(cosines())
            with torch.no_grad():
                self.analysis[-1].weight.zero_()
                self.synthesis[-1].weight.zero_()
        self.register_buffer("sizes", torch.ones(LATENTS))
        steps = (6 / math.log(2) / lambdas(torch.arange(LEVELS))).sqrt()
        self.log_gains = nn.Parameter(-steps.log2()[:, None].repeat(1, LATENTS))
        self.log_inverse_gains = nn.Parameter(steps.log2()[:, None].repeat(1, LATENTS))
        if variant.side_information:
            self.hyper_analysis = nn.Sequential(
                nn.Conv2d(LATENTS, HYPER_WIDTH, 3, padding=1), nn.LeakyReLU(2**-LEAK_BITS), *maybe(HYPER_WIDTH),
                _down(HYPER_WIDTH, HYPER_LATENTS, 2),
            )  # fmt: skip
            self.hyper_synthesis = nn.Sequential(
                _up(HYPER_LATENTS, HYPER_WIDTH, 2), nn.LeakyReLU(2**-LEAK_BITS), *maybe(HYPER_WIDTH),
                nn.Conv2d(HYPER_WIDTH, LATENTS, 3, padding=1),
            )  # fmt: skip
            self.hyper_centres = nn.Parameter(torch.zeros(HYPER_LATENTS))
            self.hyper_scales = nn.Parameter(torch.zeros(HYPER_LATENTS))
        else:
            self.mixture_scales = nn.Parameter(torch.tensor([-1.0, 0.5, 2.0])[:, None].repeat(1, LATENTS))
            self.mixture_weights = nn.Parameter(torch.zeros(3, LATENTS))

    def analyse(self, values: Tensor) -> Tensor:
        """Return the latents (n, LATENTS, rows / BLOCK, columns / BLOCK) of values (n, 1, rows, columns)."""
        found = self.analysis(values * 2**-INPUT_BITS)
        if self.variant.residual:
            return found + functional.conv2d(values, self.linear_analysis, stride=BLOCK)
        return found * 2**INPUT_BITS

    def synthesise(self, latents: Tensor) -> Tensor:
        """Return the values (n, 1, rows, columns) of latents."""
        if self.variant.residual:
            linear = functional.conv_transpose2d(latents, self.linear_synthesis, stride=BLOCK)
            return linear + self.synthesis(latents / self.sizes[:, None, None])
        return self.synthesis(latents * 2**-INPUT_BITS) * 2**INPUT_BITS

    def gains(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gains and the inverse gains (n, LATENTS, 1, 1) of levels (n,), whole or between."""
        below = levels.floor().clamp(0, LEVELS - 2).long()
        share = (levels - below)[:, None]
        gains, inverse = (
            torch.exp2(logs[below] * (1 - share) + logs[below + 1] * share)[:, :, None, None]
            for logs in (self.log_gains, self.log_inverse_gains)
        )
        return gains, inverse

    def forward(self, values: Tensor, levels: Tensor, noisy: bool = True) -> tuple[Tensor, Tensor]:
        """Return the values (n, 1, rows, columns) that come back, and the bits (n,) that each image takes.

        noisy: count the bits of latents with noise in place of rounding, which has a gradient.
        """
        gain, inverse = self.gains(levels)
        scaled = self.analyse(values) * gain
        away = scaled - self._predicted_first(scaled)
        rounded = through(scaled, torch.round(scaled))
        counted = away + torch.rand_like(scaled) - 0.5 if noisy else torch.round(scaled) - self._predicted_first(scaled)
        if self.variant.side_information:
            log_scales, spent = self._hyper(scaled, noisy)
            logarithms = log_logistic(counted, log_scales)
        else:
            logarithms, spent = self._factorised(counted, gain), scaled.new_zeros(len(scaled))
        return self.synthesise(rounded * inverse), spent + _bits(logarithms)

    def _predicted_first(self, scaled: Tensor) -> Tensor:
        """Return what the first latents, which the linear path makes means, are predicted to be; the others 0."""
        found = torch.zeros_like(scaled)
        if self.variant.residual:
            found[:, 0] = predicted(torch.round(scaled[:, 0].detach()))
        return found

    def _hyper(self, scaled: Tensor, noisy: bool) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the scales, and the bits of the side information."""
        hyper = self.hyper_analysis(hyper_input(scaled))
        rounded = through(hyper, torch.round(hyper))
        counted = hyper + torch.rand_like(hyper) - 0.5 if noisy else rounded
        centres, scales = self.hyper_centres[:, None, None], self.hyper_scales[:, None, None]
        spent = _bits(log_logistic(counted - centres, scales.expand_as(hyper)))
        return self.log_scales(rounded), spent

    def log_scales(self, hyper: Tensor) -> Tensor:
        """Return the logarithms to base 2 of the latents' scales by rounded side information."""
        found = self.hyper_synthesis(hyper)
        return through(found, found.clamp(LOWEST_SCALE, HIGHEST_SCALE))

    def measure(self, scaled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the side information of scaled latents, the symbols to code, and the logarithms of their scales."""
        hyper = torch.round(self.hyper_analysis(hyper_input(scaled)))
        return hyper, torch.round(scaled) - self._predicted_first(scaled), self.log_scales(hyper)

    def _factorised(self, counted: Tensor, gain: Tensor) -> Tensor:
        """Return the logarithms of probabilities where each channel has a distribution of its own: three logistics."""
        weights = self.mixture_weights.log_softmax(0)[:, :, None, None]
        parts = [
            weight + log_logistic(counted, (scales[:, None, None] + gain.log2()).expand_as(counted))
            for weight, scales in zip(weights, self.mixture_scales, strict=True)
        ]
        return torch.logsumexp(torch.stack(parts), 0)


def predicted(first: Tensor) -> Tensor:
    """Return the median prediction of each number (n, rows, columns) by those left, above, and left above of it."""
    padded = functional.pad(first, (1, 0, 1, 0))
    left, above, corner = padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1]
    low, high = torch.minimum(left, above), torch.maximum(left, above)
    found = torch.maximum(low, torch.minimum(high, left + above - corner))
    found[:, 0] = left[:, 0]
    found[:, :, 0] = above[:, :, 0]
    return found


def hyper_input(scaled: Tensor) -> Tensor:
    """Return what the hyper-analysis sees of scaled latents: the logarithms of their sizes."""
    return torch.log1p(scaled.abs())


def log_logistic(values: Tensor, log_scales: Tensor) -> Tensor:
    """Return the natural logarithm of the probability of the unit interval around each value, by a logistic around 0.

    As a difference of two sigmoids it would have no gradient far out, and scales that fell too low would stay there.
    """
    inverse = torch.exp2(-log_scales)
    above, below = (0.5 - values) * inverse, (0.5 + values) * inverse
    return functional.logsigmoid(above) + functional.logsigmoid(below) + torch.log(-torch.expm1(-inverse))


def _bits(logarithms: Tensor) -> Tensor:
    return -logarithms.sum((1, 2, 3)) / math.log(2)
