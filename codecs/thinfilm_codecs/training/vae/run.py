"""A training run: steps of Adam over crops at random rates, the same however often it was stopped in between."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor, nn

from thinfilm_codecs.training.resuming import keep, resumed, share_of_rate
from thinfilm_codecs.training.vae.crops import Crops
from thinfilm_codecs.training.vae.losses import squared_error, structural_dissimilarity
from thinfilm_codecs.training.vae.network import LEVELS, VARIANTS, Autoencoder, lambdas
from thinfilm_codecs.training.vae.start import start

_log = structlog.get_logger()

_WARM_UP = 30
_CALIBRATION = 96
_SHARES = {"linear": 0.1, "hyper": 0.04}
"""By the first word of a parameter's name, how small its steps are beside the others', where training starts from what
bands tell: near where it should be. Layers of side information add up hundreds of positive inputs, so that a step of
all their weights moves scales by octaves."""


LOSSES = {"mse": squared_error, "ms-ssim": structural_dissimilarity}
"""The distortions there are."""


@dataclass(frozen=True)
class Plan:
    """What a run does; with the same data, plan and machine it ends with the same network."""

    variant: str
    steps: int
    rate: float = 2e-4  # largest learning rate; it falls to a fiftieth along a cosine
    batch: int = 3
    seed: int = 0
    loss: str = "mse"


def train(crops: Crops, plan: Plan, device: str, checkpoint: Path, every: int = 20) -> Autoencoder:
    """Return the autoencoder trained by plan. The run's state is kept in the checkpoint every so many steps.

    Raises OtherRun if the checkpoint is of another plan.
    """
    torch.manual_seed(plan.seed)
    network = Autoencoder(VARIANTS[plan.variant])
    start(network, torch.cat([crops(plan.steps + i) for i in range(_CALIBRATION // plan.batch)]))
    network.to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(_groups(network), betas=(0.9, 0.98))
    name = hashlib.sha256(repr(sorted(asdict(plan).items())).encode()).hexdigest()
    step = resumed(checkpoint, name, "another plan", network, optimiser, device)
    started, average = time.monotonic(), torch.full((3,), math.nan)
    while step < plan.steps:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * group["share"] * share_of_rate(step, plan.steps, _WARM_UP)
        torch.manual_seed(plan.seed * 1_000_003 + step)
        values = crops(step).to(device).contiguous(memory_format=torch.channels_last)
        found = _step(network, optimiser, values, LOSSES[plan.loss])
        step += 1
        average = found if average.isnan().any() else 0.99 * average + 0.01 * found
        if step % every == 0 or step == plan.steps:
            loss, bits, error = (round(value, 4) for value in average.tolist())
            _log.info(
                "trained", step=step, loss=loss, bits=bits, error=error, seconds=round(time.monotonic() - started)
            )
            keep(checkpoint, name, step, network, optimiser)
    return network


def _step(
    network: Autoencoder, optimiser: torch.optim.Optimizer, values: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Move the network by one batch; return its loss, bits a pixel and logarithm of the distortion before."""
    levels = torch.rand(len(values), device=values.device) * (LEVELS - 1)
    decoded, spent = network(values, levels)
    bits = spent / values[0].numel()
    errors = loss_of(decoded, values)
    weights = lambdas(levels)
    balanced = (bits + weights * errors) * (weights / lambdas(levels.new_tensor(LEVELS / 2))) ** -0.4
    loss = balanced.mean()
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return torch.stack([loss, bits.mean(), errors.log2().mean()]).detach().cpu()


def _groups(network: Autoencoder) -> list[dict[str, Any]]:
    """Return the parameters in groups that move by steps of the same size."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, value in network.named_parameters():
        share = _SHARES.get(name.split("_")[0], 1.0) if network.variant.residual else 1.0
        groups.setdefault(share, []).append(value)
    return [{"params": values, "share": share} for share, values in groups.items()]
