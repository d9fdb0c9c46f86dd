"""What the trainers of autoencoders share: crops of series, a resumable run, and the export to integers."""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor, nn

from thinfilm_codecs.blocks import PixelBlock
from thinfilm_codecs.lossless import model_files
from thinfilm_codecs.lossy.autoencoders.codec import Range
from thinfilm_codecs.lossy.autoencoders.layers import ONE_BITS, WEIGHT_BITS, Shape
from thinfilm_codecs.training.resuming import OtherRun, keep, resumed, share_of_rate
from thinfilm_codecs.training.stacks import NoTrainingData, Series, read_all

_log = structlog.get_logger()

_WARM_UP = 100
_SAVE_SECONDS = 60


class Crops:
    """Draws square crops of series, normalised as the codec does, from each in proportion to the root of its size."""

    def __init__(self, series: Sequence[Series], seed: int, batch: int, side: int) -> None:
        self._series = [one for one in series if min(one.samples.shape[1:]) >= side]
        if not self._series:
            raise NoTrainingData(f"No series has images of {side} x {side} and more; name folders with larger ones.")
        self._ranges = [Range.around(b"", PixelBlock(one.samples, 16)) for one in self._series]
        roots = np.sqrt([one.samples.size for one in self._series])
        self._shares, self._seed, self._batch, self._side = roots / roots.sum(), seed, batch, side

    def __call__(self, step: int) -> Tensor:
        """Return the crops (batch, 1, side, side) of a step, of 0 to about 1, turned and mirrored."""
        random = np.random.default_rng((self._seed, step))
        found = []
        for which in random.choice(len(self._series), self._batch, p=self._shares):
            samples = self._series[which].samples
            frame, top, left = random.integers(
                0, np.array(samples.shape) - np.array([0, self._side - 1, self._side - 1])
            )
            crop = self._ranges[which].normalised(samples[frame, top : top + self._side, left : left + self._side])
            crop = np.rot90(crop, int(random.integers(4)))
            found.append(crop[:, ::-1] if random.random() < 0.5 else crop)
        return torch.from_numpy(np.stack(found).astype(np.float32) / 2**ONE_BITS)[:, None]


def layers_of(shapes: Sequence[Shape]) -> nn.ModuleDict:
    """Return the layers of a network to be trained, by name."""
    layers = nn.ModuleDict()
    for shape in shapes:
        kind = nn.ConvTranspose2d if shape.transposed else nn.Conv2d
        padding = (shape.side - shape.stride) // 2
        layers[shape.name] = kind(shape.inputs, shape.outputs, shape.side, shape.stride, padding)
        nn.init.zeros_(layers[shape.name].bias)
    return layers


def exported(shapes: Sequence[Shape], layers: nn.ModuleDict) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a model file: weights and biases of trained layers, rounded to integers."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for shape in shapes:
        weights = layers[shape.name].weight.detach().cpu().numpy().astype(np.float64)
        biases = layers[shape.name].bias.detach().cpu().numpy().astype(np.float64)
        arrays[f"{shape.name}_weights"] = np.rint(weights * 2**WEIGHT_BITS).clip(-32767, 32767).astype(np.int16)
        arrays[f"{shape.name}_biases"] = np.rint(biases * 2 ** (WEIGHT_BITS + ONE_BITS)).astype(np.int32)
    return arrays


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every trainer of an autoencoder takes."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("data", nargs="+", type=Path, help="folders of DICOM, a folder a series below them")
    found.add_argument("--models", type=Path, required=True, help="the folder to write the model to, by its identity")
    found.add_argument("--checkpoint", type=Path, required=True)
    found.add_argument("--leave-out", nargs="*", default=[], help="words; folders with one in their path are left out")
    found.add_argument("--steps", type=int, default=20_000)
    found.add_argument("--seconds", type=float, default=math.inf, help="of this run; the next goes on from there")
    found.add_argument("--rate", type=float, default=1e-3)
    found.add_argument("--batch", type=int, default=8)
    found.add_argument("--side", type=int, default=64, help="of the crops")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--device", default="cpu")
    return found


def read_series(given: argparse.Namespace) -> list[Series]:
    """Return the series to train on. Raises NoTrainingData where there are none."""
    return read_all(given.data, given.leave_out)


Loss = Callable[[Tensor, np.random.Generator], tuple[Tensor, dict[str, float]]]
"""Takes crops and the step's own randomness; returns what is to fall, and what to log."""


def make_model(
    network: nn.Module,
    layers: nn.ModuleDict,
    shapes: Sequence[Shape],
    loss: Loss,
    prove: Callable[[dict[str, npt.NDArray[Any]]], object],
    given: argparse.Namespace,
) -> None:
    """Read the data, train the network of these layers, and write their model file.

    prove: raises ValueError where the integers of the model would not be exact. Ends the program with a sentence where
    there is nothing to train on, or the checkpoint is of another run.
    """
    try:
        train(network, loss, Crops(read_series(given), given.seed, given.batch, given.side), given)
    except (NoTrainingData, OtherRun) as error:
        sys.exit(str(error))
    arrays = exported(shapes, layers)
    prove(arrays)
    write_model(arrays, given.models)


def train(network: nn.Module, loss: Loss, draw: Crops, given: argparse.Namespace) -> None:
    """Train the network for so many steps in all, or so many seconds of this run, from its checkpoint if there is one.

    The same steps in one run or in several end with the same network. Raises OtherRun for a checkpoint of other
    arguments.
    """
    optimiser = torch.optim.Adam(network.parameters(), given.rate)
    plan = _plan(given)
    step = resumed(given.checkpoint, plan, "other arguments", network, optimiser, given.device)
    started = saved = time.monotonic()
    averages: dict[str, float] = {}

    while step < given.steps:
        for group in optimiser.param_groups:
            group["lr"] = given.rate * share_of_rate(step, given.steps, _WARM_UP)
        torch.manual_seed(given.seed * 1_000_003 + step)
        falling, noted = loss(draw(step).to(given.device), np.random.default_rng((given.seed, step, 1)))
        optimiser.zero_grad()
        falling.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        averages = {name: 0.98 * averages.get(name, value) + 0.02 * value for name, value in noted.items()}
        if step % 100 == 0:
            rounded = {name: float(f"{value:.3g}") for name, value in averages.items()}
            _log.info("trained", step=step, seconds=round(time.monotonic() - started), **rounded)
        if time.monotonic() - started >= given.seconds:
            break
        if time.monotonic() - saved > _SAVE_SECONDS:
            keep(given.checkpoint, plan, step, network, optimiser)
            saved = time.monotonic()
    keep(given.checkpoint, plan, step, network, optimiser)


def _plan(given: argparse.Namespace) -> str:
    """Return what tells this run from others: all arguments but where it runs, how long, and where it writes."""
    free = ("models", "checkpoint", "seconds", "device", "data")
    plan = {name: value for name, value in vars(given).items() if name not in free}
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()


def write_model(arrays: dict[str, npt.NDArray[Any]], models: Path) -> Path:
    """Write a model file, named by its content, and return its path."""
    models.mkdir(parents=True, exist_ok=True)
    path = models / f"{model_files.identity_of(arrays).hex()}.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    _log.info("wrote", path=str(path), bytes=path.stat().st_size)
    return path
