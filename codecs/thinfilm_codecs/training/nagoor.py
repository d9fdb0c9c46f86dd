"""Train a model of the nagoor codec.

python -m thinfilm_codecs.training.nagoor DATA... --predictor pyramid --models FOLDER --checkpoint FILE. Seeded,
quantisation-aware, resumable: a run that is stopped goes on from its checkpoint. Needs torch and pydicom.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinfilm_codecs.blocks import SampleArray
from thinfilm_codecs.lossless.nagoor import wavefront
from thinfilm_codecs.lossless.nagoor.model import HIDDEN, LEAK_BITS, OUTPUT_ONE_BITS, Network, from_arrays
from thinfilm_codecs.lossless.nagoor.network import running
from thinfilm_codecs.lossless.nagoor.residuals import BINS, CONTEXTS, DIRECT, FINE_BITS
from thinfilm_codecs.lossless.nagoor.sampling import (
    INPUT_ONE_BITS,
    LARGEST_INPUT,
    MISSING,
    Neighbourhood,
    Planes,
    sample,
    targets,
)
from thinfilm_codecs.training.stacks import NoTrainingData, read_all

_log = structlog.get_logger()

PREDICTORS = {"cube": Neighbourhood((5, 5, 5, 5, 5, 5)), "pyramid": Neighbourhood((6, 4, 2, 0))}
"""The two local samplings of the paper."""

_ACTIVATION_ONE_BITS = 4
_WEIGHT_ONE_BITS = (9, 9, 8, 8, 8)
_MOST_PIXELS = 1 << 23
_SHALLOW_SHARE = 0.25
_CALIBRATION = (4, 96, 96)
_PRIOR_RESIDUALS = 200
_PRIOR_TOTAL = 1 << 14


def _through(values: Tensor, rounded: Tensor) -> Tensor:
    """Return the rounded values, with the gradient of the values."""
    return values + (rounded - values).detach()


class TrainedNetwork(nn.Module):
    """The network of docs/formats/nagoor.md in floats that count as rounded."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        widths = (inputs, *HIDDEN, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        with torch.no_grad():
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight, a=2**-LEAK_BITS, nonlinearity="leaky_relu")
                layer.bias.zero_()
            self.layers[-1].weight.mul_(0.1)
        self.hold()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the predictions (n,) for inputs (n, inputs) of -127 to 127.

        Rounded operands have at most eight significant bits, so bfloat16 holds them.
        """
        x = inputs / 2**INPUT_ONE_BITS
        for layer, bits in zip(self.layers, _WEIGHT_ONE_BITS, strict=True):
            weights = _through(layer.weight, torch.round(layer.weight * 2**bits) / 2**bits)
            if layer is self.layers[-1]:
                return functional.linear(x, weights, layer.bias)[:, 0]
            sums = functional.linear(x.bfloat16(), weights.bfloat16()).float() + layer.bias
            held = functional.leaky_relu(sums, 2**-LEAK_BITS)
            one = 2**_ACTIVATION_ONE_BITS
            held = torch.clamp(held, -LARGEST_INPUT / one, LARGEST_INPUT / one)
            x = _through(held, torch.floor(held * one + 0.5) / one)
        raise AssertionError("unreachable")

    def hold(self) -> None:
        """Hold the weights to what int8 can say."""
        with torch.no_grad():
            for layer, bits in zip(self.layers, _WEIGHT_ONE_BITS, strict=True):
                layer.weight.clamp_(-127 / 2**bits, 127 / 2**bits)

    def export(self) -> Network:
        """Return the network in integers."""
        weights, biases, shifts = [], [], []
        before = INPUT_ONE_BITS
        for layer, bits in zip(self.layers, _WEIGHT_ONE_BITS, strict=True):
            weights.append(torch.round(layer.weight.detach().cpu() * 2**bits).to(torch.int8).numpy())
            biases.append(torch.round(layer.bias.detach().cpu() * 2 ** (bits + before)).to(torch.int32).numpy())
            shifts.append(bits + before - _ACTIVATION_ONE_BITS)
            before = _ACTIVATION_ONE_BITS
        assert before + _WEIGHT_ONE_BITS[-1] == OUTPUT_ONE_BITS
        return Network(tuple(weights), tuple(biases), tuple(shifts[:-1]))


def joint_loss(predicted: Tensor, wanted: Tensor, weight: float) -> Tensor:
    """Return the paper's loss: mean absolute error + weight (1 - |correlation|)."""
    apart, other = predicted - predicted.mean(), wanted - wanted.mean()
    correlation = (apart * other).mean() / (apart.pow(2).mean().sqrt() * other.pow(2).mean().sqrt() + 1e-6)
    return (predicted - wanted).abs().mean() + weight * (1 - correlation.abs())


class Draw:
    """Draws pixels from stacks, from each in proportion to the root of its size; a part of them as in first slices."""

    def __init__(self, stacks: Sequence[SampleArray], hood: Neighbourhood, seed: int, batch: int) -> None:
        self._hood, self._seed, self._batch = hood, seed, batch
        self._planes = []
        for samples in stacks:
            frames = max(1, min(len(samples), _MOST_PIXELS // samples[0].size))
            first = (len(samples) - frames) // 2
            values = samples[first : first + frames].astype(np.int64)
            self._planes.append(Planes.of((values - values.min()).astype(np.uint16), hood.margin))
        roots = np.sqrt([planes.inside.size for planes in self._planes])
        self._shares = roots / roots.sum()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (n, hood.inputs) and the wanted outputs (n,) of a step: its batch without flat places."""
        random = np.random.default_rng((self._seed, step))
        neighbours, values = [], []
        for planes, count in zip(self._planes, random.multinomial(self._batch, self._shares), strict=True):
            if count:
                pixels = random.integers(0, planes.inside.shape, (count, 3))
                neighbours.append(planes.gather(pixels, self._hood))
                values.append(planes.inside[tuple(pixels.T)])
        found = np.concatenate(neighbours)
        known = np.where(random.random(len(found)) < _SHALLOW_SHARE, random.integers(0, len(self._hood.radii)), 99)
        for back, part in enumerate(self._hood.slices):
            found[known < back, part] = MISSING
        sampled = sample(found, self._hood)
        lively = sampled.activities > 0
        wanted = targets(np.concatenate(values), sampled)[lively]
        return torch.from_numpy(sampled.inputs[lively]), torch.from_numpy(wanted)


def train(
    draw: Draw, inputs: int, checkpoint: Path, steps: int, seconds: float, rate: float, weight: float, device: str
) -> TrainedNetwork:
    """Return the network after so many steps in all, or so many seconds of this run, one step at the least."""
    network = TrainedNetwork(inputs).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    step = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        step = kept["step"]
    started, average, saved = time.monotonic(), math.nan, time.monotonic()

    def save() -> None:
        fresh = checkpoint.with_suffix(".new")
        torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, fresh)
        fresh.replace(checkpoint)

    while step < steps:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))
        given, wanted = (tensor.to(device) for tensor in draw(step))
        loss = joint_loss(network(given), wanted, weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        network.hold()
        step += 1
        average = loss.item() if math.isnan(average) else 0.99 * average + 0.01 * loss.item()
        if step % 100 == 0:
            _log.info("trained", step=step, loss=round(average, 4), seconds=round(time.monotonic() - started))
        if time.monotonic() - started >= seconds:
            break
        if time.monotonic() - saved > 60:
            save()
            saved = time.monotonic()
    save()
    return network


def expected_residuals() -> npt.NDArray[np.float64]:
    """Return (CONTEXTS, BINS) shares of the bins, were residuals Laplacian with the mean that the context says."""
    octave, quarter = np.arange(CONTEXTS) // 4, np.arange(CONTEXTS) % 4
    size = ((4.5 + quarter) * 2.0**octave - 4) / 16 + 0.02
    size /= 2.0 ** np.maximum(octave + 3 - FINE_BITS, 0)
    first = np.concatenate([np.arange(DIRECT), DIRECT << np.arange(BINS - DIRECT + 1)])  # of the folded residuals
    below = 1 - np.exp(-first / 2 / size[:, None])
    shares = np.diff(below, axis=1)
    shares /= shares.sum(1, keepdims=True)
    return shares


def _middle(side: int, most: int) -> slice:
    first = max(0, side - most) // 2
    return slice(first, first + most)


def calibrate(arrays: dict[str, npt.NDArray[Any]], stacks: Sequence[SampleArray]) -> npt.NDArray[np.uint16]:
    """Return (CONTEXTS, BINS) residuals to expect: what the network leaves of the middle of each stack."""
    model = from_arrays(arrays)
    met = np.zeros((CONTEXTS, BINS))
    for samples in stacks:
        part = samples[tuple(_middle(side, most) for side, most in zip(samples.shape, _CALIBRATION, strict=True))]
        values = (part.astype(np.int64) - int(part.min())).astype(np.uint16)
        _, counts = wavefront.encode(values, int(values.max()), model, running(model, "cpu"))
        met += counts.met
    shares = _PRIOR_RESIDUALS * expected_residuals() + met
    shares *= _PRIOR_TOTAL / shares.sum(1, keepdims=True)
    return np.rint(shares).astype(np.uint16)


def model_arrays(network: Network, hood: Neighbourhood) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a model file that expects Laplacian residuals."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "radii": np.array(hood.radii, np.uint8),
        "shifts": np.array(network.shifts, np.uint8),
        "residuals": np.rint(_PRIOR_TOTAL * expected_residuals()).astype(np.uint16),
    }
    for number, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True), 1):
        arrays |= {f"weights_{number}": weights, f"biases_{number}": biases}
    return arrays


def main() -> None:
    """Read the data, train, write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders of DICOM, a folder a series below them")
    parser.add_argument("--predictor", choices=sorted(PREDICTORS), required=True)
    parser.add_argument("--models", type=Path, required=True, help="the folder to write the model to, by its identity")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--leave-out", nargs="*", default=[], help="words; folders with one in their path are left out")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="of this run; the next goes on from there")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--correlation", type=float, default=0.1, help="weight of 1 - |correlation| in the loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    hood = PREDICTORS[given.predictor]
    try:
        stacks = [series.samples for series in read_all(given.data, given.leave_out)]
    except NoTrainingData as error:
        sys.exit(str(error))
    draw = Draw(stacks, hood, given.seed, given.batch)
    network = train(
        draw, hood.inputs, given.checkpoint, given.steps, given.seconds, given.rate, given.correlation, given.device
    )
    arrays = model_arrays(network.export(), hood)
    arrays["residuals"] = calibrate(arrays, stacks)
    target = given.models / f"{from_arrays(arrays).identity.hex()}.npz"
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    _log.info("written", model=str(target))


if __name__ == "__main__":
    main()
