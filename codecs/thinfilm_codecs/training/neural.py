"""Train the neural codec's shipped model.

python -m thinfilm_codecs.training.neural DATA... --models FOLDER --checkpoint FILE --prior MODEL. Seeded,
quantisation-aware, resumable: a run that is stopped goes on from its checkpoint. Needs torch and pydicom.
"""

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinfilm_codecs.lossless.neural import fitting, references, shape
from thinfilm_codecs.lossless.neural.compiled import Inputs
from thinfilm_codecs.lossless.neural.fitting import Sampler
from thinfilm_codecs.lossless.neural.model import Linear, from_arrays
from thinfilm_codecs.lossless.neural.values import UInt16, maps_for
from thinfilm_codecs.training.stacks import read_stack, series_folders

_log = structlog.get_logger()

_HALF = shape.COMPONENTS // 2
_FIRST_SCALES = (0.0006, 1.0, 2.3, 4.7, 0.46, 1.8, 4.35, 9.4)
_GROUP_FRAMES = 20
_FIELDS = ("inputs", "means", "scales", "targets")


def _through(values: Tensor, rounded: Tensor) -> Tensor:
    """Return the rounded values, with the gradient of the values."""
    return values + (rounded - values).detach()


def _weights(values: Tensor) -> Tensor:
    return _through(values, torch.clamp(torch.round(values * shape.WEIGHT_ONE), -127, 127) / shape.WEIGHT_ONE)


def _activations(values: Tensor) -> Tensor:
    held = torch.clamp(values, 0, 127 / 32)
    return _through(held, torch.floor(held * 32 + 0.5) / 32)


class TrainedNetwork(nn.Module):
    """The network of docs/formats/neural.md in floats that count as rounded; its curves' scales are learned too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(shape.INPUTS, shape.HIDDEN_1)
        self.second = nn.Linear(shape.HIDDEN_1, shape.HIDDEN_2)
        self.third = nn.Linear(shape.HIDDEN_2, shape.COMPONENTS + 2)
        with torch.no_grad():
            self.first.bias.uniform_(0, 0.5)
            self.second.bias.uniform_(0, 0.5)
            self.third.weight.mul_(0.3)
            self.third.bias.zero_()
        self.log_scales = nn.Parameter(torch.tensor(_FIRST_SCALES).log())

    def bits(self, inputs: Tensor, means: Tensor, scales: Tensor, targets: Tensor) -> Tensor:
        """Return the bits of each pixel; arguments are the fields of compiled.Inputs."""
        first, second, third = self.first, self.second, self.third
        hidden = (inputs.float() - 64) / 16
        hidden = _activations(functional.linear(hidden, _weights(first.weight), first.bias))
        hidden = _activations(functional.linear(hidden, _weights(second.weight), second.bias))
        out = functional.linear(hidden, _weights(third.weight), third.bias)
        error = scales.float() / 32
        width = torch.exp2(torch.clamp(torch.floor(torch.log2(scales.float())) - 7, 0, 12))
        mean = torch.clamp(means.float() / 16 + out[:, shape.COMPONENTS] * error, min=-32768.0)
        other = mean + out[:, shape.COMPONENTS + 1] * error
        apart = targets.float()[:, None] - torch.stack([mean, other], 1).repeat_interleave(_HALF, 1)
        spread = torch.exp(self.log_scales)[None] * width[:, None]
        towards = torch.where(apart > 0, -1.0, 1.0)
        each = torch.sigmoid(towards * (apart + 0.5) / spread) - torch.sigmoid(towards * (apart - 0.5) / spread)
        probability = (functional.softmax(out[:, : shape.COMPONENTS], 1) * each.abs()).sum(1)
        return -torch.log2(probability * (1 - shape.BINS / 65536) + 1 / 65536 / width)

    def hold(self) -> None:
        """Hold the weights to what int8 can say."""
        with torch.no_grad():
            for layer in (self.first, self.second, self.third):
                layer.weight.clamp_(-127 / shape.WEIGHT_ONE, 127 / shape.WEIGHT_ONE)

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
        sizes = (shape.HIDDEN_1, shape.HIDDEN_2, shape.OUTPUTS)
        for number, (layer, outs, one) in enumerate(zip(layers, sizes, shape.BIAS_ONE, strict=True), 1):
            weights, biases = layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()
            whole = np.zeros((outs, weights.shape[1]), np.int8)
            whole[: len(weights)] = np.clip(np.rint(weights * shape.WEIGHT_ONE), -127, 127)
            offsets = np.zeros(outs, np.int32)
            offsets[: len(biases)] = np.rint(biases * one)
            arrays |= {f"weights_{number}": whole, f"biases_{number}": offsets}
        return arrays


def _windows(values: UInt16, limit: int) -> list[UInt16]:
    """Return groups of frames as the codec makes them, evenly spread, of at most `limit` pixels together."""
    frame = values.shape[1] * values.shape[2]
    step = min(len(values), max(_GROUP_FRAMES, (1 << 21) // frame))
    firsts = np.arange(0, len(values), step)
    count = max(1, min(len(firsts), limit // (step * frame)))
    return [values[first : first + step] for first in firsts[np.linspace(0, len(firsts) - 1, count).astype(int)]]


def gather_series(samples: UInt16, linear: Linear, random: np.random.Generator, pixels: int) -> list[Inputs]:
    """Return what the network shall learn of one series: most with fitted linear stages, some with the prior.

    One view with the references that lie nearest, one with the frame before, one with none.
    """
    found = []
    values = maps_for(samples)[0]
    windows = _windows(values.values(samples), 20_000_000)
    pairs = references.candidates(windows[0])
    views = [((0, 0), 0.2)] if (1, 2) in pairs else [(pairs[0], 1.0)]
    if (1, 2) in pairs:
        views += [((1, 2), 0.8)] if len(pairs) < 3 else [((1, 2), 0.4), (pairs[2], 0.4)]
    for (lags, share), (fit, part) in itertools.product(views, ((0, 0.2), (60_000, 0.3), (300_000, 0.5))):
        groups = fitting.grouped(windows, *lags, values.maximum)
        sampler = Sampler(groups, random)
        stage = fitting.fit_linear(sampler, linear, fit) if fit else linear
        fitting.predict(groups, stage)
        found.append(sampler.inputs(stage, int(pixels * share * part) + 500)[0])
    return found


def gather(folders: Sequence[Path], linear: Linear, seed: int, most: int) -> list[Tensor]:
    """Return the tensors to train on, from all series; a series of n pixels gives about 150 sqrt(n), `most` at most."""
    random = np.random.default_rng(seed)
    parts: list[Inputs] = []
    for folder in folders:
        samples = read_stack(folder)
        if samples is None or int(samples.max()) - int(samples.min()) > 65535:
            continue
        parts += gather_series(samples, linear, random, min(int(150 * math.sqrt(samples.size)), most))
        _log.info("gathered", folder=folder.name, shape=samples.shape)
    return [torch.from_numpy(np.concatenate([getattr(part, name) for part in parts])) for name in _FIELDS]


def train(
    data: Sequence[Tensor], checkpoint: Path, seconds: float, steps: int, rate: float, batch: int, device: str
) -> TrainedNetwork:
    """Train for `steps` steps in all, `seconds` in this run; goes on from the checkpoint if it is there."""
    network = TrainedNetwork().to(device)
    optimiser = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.98))
    step = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device)
        network.load_state_dict(kept["network"])
        step = kept["step"]
        if "optimiser" in kept:
            optimiser.load_state_dict(kept["optimiser"])
    started, average = time.monotonic(), math.nan
    while step < steps and time.monotonic() - started < seconds:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
        picked = torch.randint(0, len(data[1]), (batch,), generator=torch.Generator().manual_seed(step))
        spent = network.bits(*(field[picked].to(device) for field in data)).mean()
        optimiser.zero_grad()
        spent.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        network.hold()
        step += 1
        average = spent.item() if math.isnan(average) else 0.99 * average + 0.01 * spent.item()
        if step % 1000 == 0 or step == steps:
            _log.info("trained", step=step, bits=round(average, 4), seconds=round(time.monotonic() - started))
            torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, checkpoint)
    return network


def main() -> None:
    """Read the data, train, write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders of DICOM, a folder a series below them")
    parser.add_argument("--models", type=Path, required=True, help="the folder to write the model to, by its identity")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--prior", type=Path, required=True, help="a model file whose linear stage is taken over")
    parser.add_argument("--leave-out", nargs="*", default=[], help="words; folders with one in their path are left out")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--most", type=int, default=500_000, help="pixels of a series, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    with np.load(given.prior, allow_pickle=False) as prior:
        linear = Linear(prior["activity_thresholds"], prior["consistency_thresholds"], prior["coefficients"])
    data = gather(list(series_folders(given.data, given.leave_out)), linear, given.seed, given.most)
    _log.info("gathered all", pixels=len(data[1]))
    network = train(data, given.checkpoint, given.seconds, given.steps, given.rate, given.batch, given.device)
    arrays = network.export(linear)
    target = given.models / f"{from_arrays(arrays).identity.hex()}.npz"
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    _log.info("written", model=str(target))


if __name__ == "__main__":
    main()
