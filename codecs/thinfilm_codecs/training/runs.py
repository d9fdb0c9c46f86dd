"""A training run: so many steps of Adam over gathered pixels, the same however often it was stopped in between."""

import hashlib
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from thinfilm_codecs.lossless.neural.compiled import Inputs
from thinfilm_codecs.training.network import TrainedNetwork
from thinfilm_codecs.training.resuming import keep, resumed, share_of_rate

_log = structlog.get_logger()

_WARM_UP = 200


@dataclass(frozen=True)
class Plan:
    """What a run does; with the same data, plan and machine it ends with the same network."""

    width: int  # outputs of the first hidden layer
    steps: int
    rate: float = 4e-3  # largest learning rate; it falls to a fiftieth along a cosine
    batch: int = 8192  # pixels a step
    seed: int = 0


def train(
    data: Inputs,
    plan: Plan,
    device: str = "cpu",
    checkpoint: Path | None = None,
    every: int = 1000,
    start: TrainedNetwork | None = None,
) -> TrainedNetwork:
    """Return the network trained by plan, from random weights or those of `start`.

    Where a checkpoint is named the run's state is kept there every so many steps, and a run that finds one goes on from
    it. Raises OtherRun if it is of other data or another plan.
    """
    torch.manual_seed(plan.seed)
    network = (start or TrainedNetwork(plan.width)).to(device)
    optimiser = torch.optim.Adam(network.parameters(), plan.rate, betas=(0.9, 0.98))
    name = _name(data, plan)
    step = resumed(checkpoint, name, "other data or another plan", network, optimiser, device) if checkpoint else 0
    fields = [torch.from_numpy(getattr(data, each)).to(device) for each in ("inputs", "means", "scales", "targets")]
    started, average = time.monotonic(), math.nan
    while step < plan.steps:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * share_of_rate(step, plan.steps, _WARM_UP)
        picked = torch.from_numpy(np.random.default_rng((plan.seed, step)).integers(0, len(data.means), plan.batch))
        spent = _step(network, optimiser, [field[picked.to(device)] for field in fields])
        step += 1
        average = spent if math.isnan(average) else 0.99 * average + 0.01 * spent
        if step % every == 0 or step == plan.steps:
            _log.info("trained", step=step, bits=round(average, 4), seconds=round(time.monotonic() - started))
            if checkpoint:
                keep(checkpoint, name, step, network, optimiser)
    return network


def _step(network: TrainedNetwork, optimiser: torch.optim.Optimizer, batch: list[Tensor]) -> float:
    """Move the network by one batch, and return the bits that a pixel of it took before."""
    spent = network.bits(*batch).mean()
    optimiser.zero_grad()
    spent.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    network.hold()
    return spent.item()


def _name(data: Inputs, plan: Plan) -> str:
    """Return what tells this run from others."""
    digest = hashlib.sha256(repr(sorted(asdict(plan).items())).encode())
    for field in (data.inputs, data.means, data.scales, data.targets):
        digest.update(np.ascontiguousarray(field).tobytes())
    return digest.hexdigest()
