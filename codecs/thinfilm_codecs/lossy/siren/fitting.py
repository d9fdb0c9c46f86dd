"""Fitting of networks to the slices of a group, many at a time; needs torch.

Source: Mancini, Jones, Palombo: Lossy compression of multidimensional medical images using sinusoidal activation
networks, 2022; Sitzmann et al.: Implicit neural representations with periodic activation functions, 2020.
"""

import itertools
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thinfilm_codecs.lossy.siren.network import (
    BIAS_BITS,
    LARGEST_BIAS,
    MANTISSAS,
    ONE_BITS,
    SAMPLE_BITS,
    SHIFTS,
    Float64,
    Layer,
)
from thinfilm_codecs.lossy.siren.plans import Effort, Plan, Variant

W0 = 30.0
"""How fast a sine turns with the sums of its layer, by the paper."""

QUANTISED_SHARE = 0.3
"""The last share of a fit, in which weights count as rounded."""

_OPEN_BITS = 0.5 * math.log2(2 * math.pi * math.e)
"""A normal variable rounded to steps of its deviation has an entropy of so many bits."""

_CHECK_EVERY = 25
_MOST_BYTES = {"cpu": 1 << 26, "cuda": 1 << 32}


@dataclass(frozen=True, eq=False)
class Slices:
    """What networks are fitted to.

    inputs: (points, coordinates), integers of network.coordinates. samples: (networks, points, volumes), above the
    group's minimum; NaN where a network has no such volume.
    """

    inputs: Float64
    samples: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Floats:
    """Fitted networks: for each layer weights (networks, out, in) and biases (networks, out)."""

    weights: list[Tensor]
    biases: list[Tensor]


def fit(slices: Slices, plan: Plan, effort: Effort, device: str) -> list[list[Layer]]:
    """Return a network of integers for each slice. Raises ValueError unless it is of sines."""
    if plan.bits is None or plan.variant not in (Variant.SIREN, Variant.SIREN_RELU):
        raise ValueError(f"Only networks of sines have a form in integers, not {plan.variant.value}.")
    found: list[list[Layer]] = []
    for part, rest in _parts(slices, plan, effort, device):
        fitted = _Fit(part, plan, device)
        fitted.run(rest)
        found += fitted.integers()
    return found


def fit_floats(slices: Slices, plan: Plan, effort: Effort, device: str) -> tuple[list[Floats], npt.NDArray[np.float32]]:
    """Return the networks as the paper keeps them, in floats, and what they say (networks, points, volumes)."""
    networks, said = [], []
    for part, rest in _parts(slices, plan, effort, device):
        fitted = _Fit(part, plan, device)
        fitted.run(rest)
        networks.append(Floats([w.detach() for w in fitted.weights], [b.detach() for b in fitted.biases]))
        said.append(fitted.outputs())
    return networks, np.concatenate(said)


def _parts(slices: Slices, plan: Plan, effort: Effort, device: str) -> list[tuple[Slices, Effort]]:
    """Return as many slices at a time as the memory for their activations allows, each with its share of the time."""
    points = min(len(slices.inputs), effort.points)
    each = 16 * points * (plan.width * plan.hidden + slices.samples.shape[2])
    count = max(1, _MOST_BYTES.get(device, 1 << 26) // each)
    starts = range(0, len(slices.samples), count)
    share = replace(effort, seconds=effort.seconds / len(starts))
    return [(Slices(slices.inputs, slices.samples[first : first + count]), share) for first in starts]


class _Fit:
    """Networks that are fitted together."""

    def __init__(self, slices: Slices, plan: Plan, device: str) -> None:
        self._plan, self._device = plan, device
        self._inputs = torch.from_numpy((slices.inputs / (1 << ONE_BITS)).astype(np.float32)).to(device)
        known = ~np.isnan(slices.samples)
        self._mean = float(np.mean(slices.samples[known]))
        self._deviation = max(float(np.std(slices.samples[known])), 1e-3)
        wanted = np.where(known, (slices.samples - self._mean) / self._deviation, 0)
        self._wanted = torch.from_numpy(wanted.astype(np.float32)).to(device)
        self._known = None if known.all() else torch.from_numpy(known.astype(np.float32)).to(device)
        self._share = float(known.mean())
        self._scales: list[list[tuple[int, int]]] | None = None
        self._steps: list[Tensor] = []
        self.weights, self.biases = self._drawn(len(wanted), wanted.shape[2])
        self._units = [2 * math.pi / W0] * plan.hidden + [2**ONE_BITS / (2**SAMPLE_BITS * self._deviation)]

    def _drawn(self, networks: int, outputs: int) -> tuple[list[Tensor], list[Tensor]]:
        """Draw the weights: after Sitzmann et al. below sines, after He et al. or Glorot below others."""
        generator = torch.Generator(device=self._device).manual_seed(0)
        widths = [self._inputs.shape[1], *[self._plan.width] * self._plan.hidden, outputs]
        weights, biases = [], []
        for place, (ins, outs) in enumerate(itertools.pairwise(widths)):
            limit = 1 / ins if place == 0 else math.sqrt(6 / ins) / (W0 if self._sines(place) else 1)
            drawn = torch.rand((networks, outs, ins), generator=generator, device=self._device) * 2 - 1
            shift = torch.rand((networks, outs), generator=generator, device=self._device) * 2 - 1
            if place == self._plan.hidden:
                limit = math.sqrt(6 / ins) / W0
                shift = self._wanted.mean(1) * math.sqrt(ins)
            weights.append((drawn * limit).requires_grad_())
            biases.append((shift / math.sqrt(ins)).requires_grad_())
        return weights, biases

    def _sines(self, place: int) -> bool:
        siren = (Variant.SIREN, Variant.SIREN_RELU)
        return self._plan.variant in siren or (self._plan.variant is Variant.MLP_SIREN and place == 0)

    def run(self, effort: Effort) -> None:
        """Fit until the epochs or the seconds are over, or the target is met; the last share with rounded weights."""
        optimiser = torch.optim.Adam(self.weights + self.biases, lr=effort.rate)
        generator = torch.Generator(device=self._device).manual_seed(1)
        before = time.monotonic()
        done, epoch = 0.0, 0
        while done < 1:
            if self._plan.bits is not None and done >= 1 - QUANTISED_SHARE and self._scales is None:
                self._choose_steps(self._plan.bits)
            for each in optimiser.param_groups:
                each["lr"] = effort.rate * (0.01 + 0.495 * (1 + math.cos(math.pi * done)))
            chosen = None
            if effort.points < len(self._inputs):
                chosen = torch.randint(len(self._inputs), (effort.points,), generator=generator, device=self._device)
            error = self._error(chosen)
            optimiser.zero_grad(set_to_none=True)
            error.backward()
            optimiser.step()
            now = time.monotonic()
            done += max(1 / effort.epochs, (now - before) / effort.seconds)
            before, epoch = now, epoch + 1
            if epoch % _CHECK_EVERY == 0:
                rmse = self._deviation * math.sqrt(error.item() / self._share)
                if rmse <= effort.target_rmse:
                    done = max(done, 1 - QUANTISED_SHARE) if self._scales is None and self._plan.bits else 1.0
                if effort.progress:
                    effort.progress(min(done, 1.0), rmse)

    def _error(self, chosen: Tensor | None) -> Tensor:
        """Return the mean square error over all networks, of chosen points or all."""
        inputs, wanted, known = self._inputs, self._wanted, self._known
        if chosen is not None:
            inputs, wanted = inputs[chosen], wanted[:, chosen]
            known = None if known is None else known[:, chosen]
        apart = self._forward(inputs) - wanted
        return (apart if known is None else apart * known).pow(2).mean()

    def _forward(self, inputs: Tensor) -> Tensor:
        x = inputs.expand(len(self.weights[0]), -1, -1)
        for place, (weight, bias) in enumerate(zip(*self._counted(), strict=True)):
            sums = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            if place == self._plan.hidden:
                return self._rectified(sums)
            if self._sines(place):
                x = torch.sin(W0 * sums)
            else:
                x = torch.tanh(sums) if self._plan.variant is Variant.MLP_TANH else torch.relu(sums)
        raise AssertionError("unreachable")

    def _rectified(self, outputs: Tensor) -> Tensor:
        floor = -self._mean / self._deviation
        return outputs.clamp_min(floor) if self._plan.variant is Variant.SIREN_RELU else outputs

    def _choose_steps(self, bits: float) -> None:
        """Choose the steps to which weights are rounded, such that the weights of a layer take so many bits each."""
        self._scales, self._steps = [], []
        for weight, unit in zip(self.weights, self._units, strict=True):
            deviations = weight.detach().flatten(1).std(1, unbiased=False).cpu().numpy()
            scales = [_scale(float(each) * 2 ** (_OPEN_BITS - bits) / unit) for each in deviations]
            steps = [unit * mantissa * 2.0**-shift for mantissa, shift in scales]
            self._scales.append(scales)
            self._steps.append(torch.tensor(steps, device=self._device)[:, None])

    def _counted(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights and biases as they count: as they are, or rounded with the gradients of what they are."""
        if self._scales is None:
            return self.weights, self.biases
        weights = [_rounded(w, step[:, None]) for w, step in zip(self.weights, self._steps, strict=True)]
        biases = [_rounded(b, step) for b, step in zip(self.biases, self._bias_steps(), strict=True)]
        return weights, biases

    def _bias_steps(self) -> list[float]:
        """Return the steps of biases, in floats: parts of a turn, and of a sample."""
        phase = 2 * math.pi / W0 / 2**BIAS_BITS
        return [phase] * self._plan.hidden + [1 / (2**SAMPLE_BITS * self._deviation)]

    def integers(self) -> list[list[Layer]]:
        """Return the rounded networks in integers."""
        assert self._scales is not None
        networks: list[list[Layer]] = [[] for _ in self.weights[0]]
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            last = place == self._plan.hidden
            whole = torch.round(weight.detach() / self._steps[place][:, None]).cpu().numpy()
            phases = torch.round(bias.detach() / self._bias_steps()[place]).cpu().numpy().astype(np.int64)
            phases += round(self._mean * 2**SAMPLE_BITS) if last else 0
            for number, layers in enumerate(networks):
                biases = phases[number].clip(-LARGEST_BIAS, LARGEST_BIAS) if last else phases[number] % 2**BIAS_BITS
                weights = whole[number].clip(-32767, 32767).astype(np.int16)
                layers.append(Layer(weights, biases.astype(np.int32), *self._scales[place][number]))
        return networks

    def outputs(self) -> npt.NDArray[np.float32]:
        """Return what the networks say (networks, points, volumes), above the group's minimum."""
        with torch.no_grad():
            parts = [self._forward(part) for part in self._inputs.split(1 << 14)]
            said: npt.NDArray[np.float32] = torch.cat(parts, 1).cpu().numpy()
        return said * np.float32(self._deviation) + np.float32(self._mean)


def _rounded(values: Tensor, step: Tensor | float) -> Tensor:
    return values + (torch.round(values / step) * step - values).detach()


def _scale(step: float) -> tuple[int, int]:
    """Return mantissa and shift: the step is about mantissa 2^-shift."""
    most = MANTISSAS[-1]
    octave = math.floor(math.log2(max(step, 2.0 ** -SHIFTS[-1])))
    shift = min(max(7 - octave, SHIFTS[0]), SHIFTS[-1])
    return min(max(round(step * 2.0**shift), MANTISSAS[0]), most), shift
