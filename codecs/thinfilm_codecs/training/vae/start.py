"""Where training starts: at a block transform whose side information tells the energies of bands of frequencies.

Steps of gradient descent are dear, so what can be found without them is.
"""

import itertools

import torch
from torch import Tensor

from thinfilm_codecs.training.vae.network import LATENTS, LEVELS, Autoencoder, hyper_input, log_logistic

_BANDS = (1, 3, 6, 10, 16, 25, 40, 64, 100, 160, LATENTS)
_STEPS_PER_LOGARITHM = 2.0
_FIT_STEPS = 2000
_FIT_RATE = 0.03


def start(network: Autoencoder, values: Tensor) -> None:
    """Set a new network by values (n, 1, rows, columns): the sizes it expects, and the scales that bands tell."""
    with torch.no_grad():
        latents = network.analyse(values)
        if network.variant.residual:
            network.sizes.copy_(latents.square().mean((0, 2, 3)).sqrt() + 0.5)
    if network.variant.residual and network.variant.side_information:
        scaled = (latents[None] * network.gains(torch.arange(LEVELS) * 1.0)[0][:, None]).flatten(0, 1).detach()
        _tell_bands(network, scaled)
        _fit_scales(network, scaled)


@torch.no_grad()  # type: ignore[untyped-decorator]
def _tell_bands(network: Autoencoder, scaled: Tensor) -> None:
    """Let side information be mean logarithms of bands over 2 x 2 latents, and pass it on as it is, interpolated."""
    first, _, block, down = network.hyper_analysis
    up, _, up_block, _ = network.hyper_synthesis
    first.weight.mul_(0.1)
    down.weight.mul_(0.1)
    up.weight.mul_(0.1)
    for layer in (first, block.second, down, up, up_block.second):
        layer.bias.zero_()
    block.second.weight.zero_()
    up_block.second.weight.zero_()
    between = torch.tensor([0.25, 0.75, 0.75, 0.25])
    for band, (low, high) in enumerate(itertools.pairwise(_BANDS)):
        first.weight[band].zero_()
        first.weight[band, low:high, 1, 1] = 1 / (high - low)
        down.weight[band].zero_()
        down.weight[band, band, 1:3, 1:3] = _STEPS_PER_LOGARITHM / 4
        up.weight[:, band].zero_()
        up.weight[band].zero_()
        up.weight[band, band] = between[:, None] * between / _STEPS_PER_LOGARITHM
    hyper = network.hyper_analysis(hyper_input(scaled))
    network.hyper_centres.copy_(hyper.mean((0, 2, 3)))
    network.hyper_scales.copy_((hyper.std((0, 2, 3)) + 0.1).log2() - 1)


def _fit_scales(network: Autoencoder, scaled: Tensor) -> None:
    """Fit the last layer of the hyper-synthesis to the latents' sizes."""
    *before, last = network.hyper_synthesis
    with torch.no_grad():
        hyper, symbols, _ = network.measure(scaled)
        features = torch.nn.Sequential(*before)(hyper)
        last.weight.zero_()
        last.bias.copy_(symbols.abs().mean((0, 2, 3)).add(0.05).log2())
    optimiser = torch.optim.Adam(last.parameters(), _FIT_RATE)
    random = torch.Generator().manual_seed(0)
    for step in range(_FIT_STEPS):
        optimiser.param_groups[0]["lr"] = _FIT_RATE * (1 - step / _FIT_STEPS)
        picked = torch.randint(len(scaled), (16,), generator=random)
        spent = -log_logistic(symbols[picked], last(features[picked]).clamp(-5, 10)).mean()
        optimiser.zero_grad()
        spent.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
