"""What every run of training shares: its checkpoint, and how its learning rate falls."""

import math
from pathlib import Path

import torch
from torch import nn


class OtherRun(Exception):
    """A checkpoint is of a run of another kind; the message says which file."""


def resumed(
    checkpoint: Path, run: str, differs: str, network: nn.Module, optimiser: torch.optim.Optimizer, device: str
) -> int:
    """Bring network and optimiser to where the run stopped, if it began before; return its steps so far.

    run: what tells this run from others. differs: how others differ, for the sentence of OtherRun, which is raised for
    the checkpoint of another run.
    """
    if not checkpoint.exists():
        return 0
    kept = torch.load(checkpoint, map_location=device, weights_only=True)
    if kept["run"] != run:
        raise OtherRun(f"The checkpoint {checkpoint} is of {differs}; name another, or delete it.")
    network.load_state_dict(kept["network"])
    optimiser.load_state_dict(kept["optimiser"])
    return int(kept["step"])


def keep(checkpoint: Path, run: str, step: int, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write the run's state beside the checkpoint, then in its place, so that a kill leaves the old one or the new."""
    beside = checkpoint.with_name(checkpoint.name + ".new")
    state = {"run": run, "step": step, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, beside)
    beside.replace(checkpoint)


def share_of_rate(step: int, steps: int, warm_up: int) -> float:
    """Return the share of the largest learning rate: risen after `warm_up` steps, a fiftieth at the end of a cosine."""
    return min(1.0, (step + 1) / warm_up) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
