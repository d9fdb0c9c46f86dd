"""The decoder's arithmetic in torch, for many pixels of many groups at once: for GPUs, and the same integers on CPUs.

Format: docs/formats/neural.md, whose sections the functions are named after. The device finds what the network says of
all pixels of a step of the wavefront, in all groups given; the kernel codes their symbols in order, on the host.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thinfilm_codecs.errors import MissingDevice
from thinfilm_codecs.lossless.neural import reference, shape
from thinfilm_codecs.lossless.neural.compiled import Session
from thinfilm_codecs.lossless.neural.model import Linear, Model, Network
from thinfilm_codecs.lossless.neural.planes import BIAS, PAD_LEFT, PAD_TOP, Geometry, padded

UInt16 = npt.NDArray[np.uint16]
Planes = npt.NDArray[np.int16]
Int64 = npt.NDArray[np.int64]

BATCH = 1 << 15
"""Pixels whose networks run at once: about 8 kB of working memory each."""

_MEAN = 2  # its place in what is prepared of a pixel
_POWERS = 2 ** np.arange(31)
# Runs of samples, and of errors, around a pixel and around its place in the references: (row, first column).
_RUNS = [(0, -8), (-1, -4), (-2, -4), (-3, -4)]
_RUNS_A = [(row, -4) for row in (-2, -1, 0, 1, 2)]
_RUNS_B = [(row, -4) for row in (-1, 0, 1)]
_RUNS_ERRORS = [(0, -8), (-1, -4)]
_RUNS_ERRORS_A = [(row, -4) for row in (-1, 0, 1)]


@dataclass(frozen=True)
class TorchBackEnd:
    """Codes on a torch device, at most `batch` pixels at a time. Raises MissingDevice where products are inexact."""

    device: str
    batch: int = BATCH

    def __post_init__(self) -> None:
        torch.set_float32_matmul_precision("highest")
        random = np.random.default_rng(0)
        left, right = random.integers(-127, 128, (64, 192)), random.integers(-127, 128, (192, 96))
        product = torch.tensor(left, device=self.device).float() @ torch.tensor(right, device=self.device).float()
        if not np.array_equal(product.cpu().numpy(), left @ right):
            raise MissingDevice(
                f"The torch device {self.device!r} rounds products of small integers: unfit for the codec."
            )

    def encode(self, values: UInt16, g: Geometry, linear: Linear, network: Network, model: Model) -> bytes:
        """Return the entropy-coded values (frames, rows, columns) of a group."""
        return self.encode_groups([values], g, linear, network, model)[0]

    def decode(self, stream: bytes, g: Geometry, linear: Linear, network: Network, model: Model) -> Planes | None:
        """Return the padded samples of a group, or None if the stream is not one of such a group."""
        return self.decode_groups([stream], g, linear, network, model)[0]

    def encode_groups(
        self, groups: Sequence[UInt16], g: Geometry, linear: Linear, network: Network, model: Model
    ) -> list[bytes]:
        """Return the entropy-coded values (frames, rows, columns) of groups of one geometry."""
        arithmetic = _Arithmetic(g, linear, network, self.device)
        places, counts = _order(g)
        samples = arithmetic.on_device(np.stack([padded(values, g).ravel() for values in groups]))
        errors = torch.zeros_like(samples)
        room = max(1, self.batch // len(groups))
        for at in arithmetic.on_device(places).split(room):
            errors[:, at] = _error(samples[:, at], arithmetic.linear_stage(samples, at).mean)
        sessions = [Session.encoder(g, model) for _ in groups]
        for steps in _together(counts, room):
            at, places = arithmetic.on_device(places[: steps.sum()]), places[steps.sum() :]
            _code(sessions, steps, _prepared(arithmetic, samples, errors, at, room), samples[:, at].cpu().numpy())
        return [session.stream() for session in sessions]

    def decode_groups(
        self, streams: Sequence[bytes], g: Geometry, linear: Linear, network: Network, model: Model
    ) -> list[Planes | None]:
        """Return the padded samples of groups of one geometry, None for each stream that is not one of such a group."""
        opened = [Session.decoder(g, model, stream) for stream in streams]
        sessions = [session for session in opened if session]
        if not sessions:
            return [None for _ in streams]
        arithmetic = _Arithmetic(g, linear, network, self.device)
        places, counts = _order(g)
        samples = torch.full((len(sessions), g.frames * g.plane), -BIAS, dtype=torch.int16, device=self.device)
        errors = torch.zeros_like(samples)
        room = max(1, self.batch // len(sessions))
        for at in arithmetic.on_device(places).split(counts.tolist()):
            prepared = _prepared(arithmetic, samples, errors, at, room)
            decoded = np.zeros(prepared.shape[:2], np.int16)
            _code(sessions, np.array([len(at)]), prepared, decoded)
            samples[:, at] = arithmetic.on_device(decoded)
            errors[:, at] = _error(samples[:, at], prepared[..., _MEAN])
        whole = samples[:, arithmetic.sources].cpu().numpy().reshape(len(sessions), g.frames, -1, g.pitch)
        found = {session: planes for session, planes in zip(sessions, whole, strict=True) if session.decoded()}
        return [found.get(session) if session else None for session in opened]


def _code(sessions: Sequence[Session], counts: Int64, prepared: Tensor, samples: Planes) -> None:
    """Code the same steps of all groups, on the host."""
    for session, known, coded in zip(sessions, prepared.cpu().numpy(), samples, strict=True):
        session.code(counts, known, coded)


def _together(counts: Int64, most: int) -> Iterator[Int64]:
    """Split the counts of steps into runs of at most so many pixels, or of one step."""
    first = total = 0
    for i, count in enumerate(counts.tolist()):
        if total and total + count > most:
            yield counts[first:i]
            first, total = i, 0
        total += count
    yield counts[first:]


def _prepared(arithmetic: "_Arithmetic", samples: Tensor, errors: Tensor, at: Tensor, most: int) -> Tensor:
    """Return what the entropy coder must know of pixels (groups, n, PREPARED), computed at most so many at a time."""
    return torch.cat([arithmetic.prepared(samples, errors, part) for part in at.split(most)], 1)


def _order(g: Geometry) -> tuple[Int64, Int64]:
    """Return the places of all pixels in the padded planes, in the order of coding, and how many each step has."""
    z, y, x = np.ogrid[: g.frames, : g.rows, : g.columns]
    steps = (x + shape.ROW_LAG * y + shape.FRAME_LAG * z).ravel()
    places = (z * g.plane + (y + PAD_TOP) * g.pitch + PAD_LEFT + x).ravel()
    counts = np.bincount(steps)
    return places[np.argsort(steps, kind="stable")], counts[counts > 0]


def _sources(g: Geometry) -> Int64:
    """Return, for every place of the padded planes, the place of the sample that lies there; of a constant, place 0."""
    places = np.arange(g.plane).reshape(-1, g.pitch)
    bottom, right = PAD_TOP + g.rows, PAD_LEFT + g.columns
    found = np.zeros_like(places)
    found[PAD_TOP:bottom, PAD_LEFT:right] = places[PAD_TOP:bottom, PAD_LEFT:right]
    found[PAD_TOP + 1 : bottom, :PAD_LEFT] = places[PAD_TOP : bottom - 1, PAD_LEFT, None]
    found[PAD_TOP:bottom, right:] = places[PAD_TOP:bottom, right - 1, None]
    found[bottom:] = found[bottom - 1]
    return (np.arange(g.frames)[:, None] * g.plane + found.ravel()).ravel()


def _difference(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).clamp(-32767, 32767)


def _error(samples: Tensor, mean: Tensor) -> Tensor:
    return _difference(samples.int(), (mean + 8) >> 4).to(torch.int16)


def _weighed(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(-1, dtype=torch.int32)


@dataclass(frozen=True, eq=False)
class _Stage:
    """What the linear stage finds of pixels (groups, n), and the neighbours it saw (groups, n, samples)."""

    has: Tensor
    current: Tensor
    of_a: Tensor
    of_b: Tensor
    reference: Tensor
    activity: Tensor
    level: Tensor
    spread: Tensor
    mean: Tensor


class _Arithmetic:
    """The tables on the device, and the arithmetic of pixels at the same places of several groups.

    Planes are (groups, frames x plane) int16; pixels are named by their places (n) in them. All is of int32, but where
    a product needs more.
    """

    def __init__(self, g: Geometry, linear: Linear, network: Network, device: str) -> None:
        self._geometry, self._device = g, device
        self.sources = self.on_device(_sources(g))
        self._around, self._around_a, self._around_b = map(self._offsets, (_RUNS, _RUNS_A, _RUNS_B))
        self._errors_around, self._errors_around_a = map(self._offsets, (_RUNS_ERRORS, _RUNS_ERRORS_A))
        self._powers = self._table(_POWERS)
        self._activity = self._table(reference.ACTIVITY_WEIGHTS.ravel())
        self._errors = self._table(reference.ERROR_WEIGHTS.ravel())
        self._errors_a = self._table(reference.ERROR_WEIGHTS_A.ravel())
        self._activity_thresholds = self._table(linear.activity_thresholds)
        self._consistency_thresholds = self._table(linear.consistency_thresholds)
        self._coefficients = self._table(linear.coefficients)
        self._layers = [
            (self._table(w).float().T.contiguous(), self._table(b).float(), shift)
            for w, b, shift in zip(network.weights, network.biases, (5, 6, 0), strict=True)
        ]

    def on_device(self, array: npt.NDArray[Any]) -> Tensor:
        """Return the array as a tensor of its type."""
        return torch.tensor(array, device=self._device)

    def _table(self, array: npt.NDArray[Any]) -> Tensor:
        return self.on_device(array.astype(np.int32))

    def _offsets(self, runs: list[tuple[int, int]]) -> Tensor:
        pitch = self._geometry.pitch
        starts = np.array([row * pitch + first for row, first in runs])
        return self.on_device((starts[:, None] + np.arange(shape.BLOCK)).ravel())

    def _bit_length(self, values: Tensor) -> Tensor:
        return torch.bucketize(values.contiguous(), self._powers, right=True, out_int32=True)

    def _logarithm(self, values: Tensor) -> Tensor:
        whole = self._bit_length(values) - 1
        return 8 * whole + (((values << 3) >> whole) & 7)

    # ---- Context ----

    def _references(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return whether there is a reference, and the places of the pixels in A and B."""
        g = self._geometry
        z = at // g.plane
        lag_a, lag_b = (torch.where(z >= lag, lag, 0) for lag in (g.lag_a, g.lag_b))
        back_a = torch.where(lag_a > 0, lag_a, lag_b)
        back_b = torch.where(lag_b > 0, lag_b, back_a)
        return back_a > 0, at - back_a * g.plane, at - back_b * g.plane

    def _gathered(self, planes: Tensor, places: Tensor) -> Tensor:
        """Return what lies at places (n, k) of the planes, (groups, n, k)."""
        return planes.index_select(1, places.ravel()).view(len(planes), *places.shape).int()

    def linear_stage(self, samples: Tensor, at: Tensor) -> _Stage:
        """Return what the samples around these pixels tell."""
        g = self._geometry
        has, at_a, at_b = self._references(at)
        current, of_a, of_b = (
            self._gathered(samples, self.sources[places[:, None] + around])
            for places, around in ((at, self._around), (at_a, self._around_a), (at_b, self._around_b))
        )
        west, north = current[..., 7], current[..., 8:16]
        centre = (3 * west + 3 * north[..., 4] + north[..., 3] + north[..., 5] + 4) >> 3
        near = _difference(current[..., :24], centre[..., None])
        activity = _weighed(near.abs(), self._activity)
        level = self._logarithm(activity + 16)
        way = torch.cat(
            [
                _difference(current[..., 4:8], of_a[..., 16:20]),
                _difference(current[..., 10:14], of_a[..., 10:14]),
            ],
            -1,
        )
        apart = (way - ((way.sum(-1, keepdim=True, dtype=torch.int32) + 4) >> 3)).abs().sum(-1, dtype=torch.int32)
        spread = torch.where(has, (self._logarithm(4 * apart + 16) - level + 64).clamp(0, 127), 64)
        consistency = (spread[..., None] >= self._consistency_thresholds).sum(-1)
        classes = (level[..., None] >= self._activity_thresholds).sum(-1)
        classes = classes + torch.where(has, shape.ACTIVITY_CLASSES * (1 + consistency), 0)
        far = _difference(torch.cat([of_a[..., 8:32], of_b[..., 8:16]], -1), centre[..., None])
        taps = torch.cat([near, torch.where(has[:, None], far, 0)], -1)
        moved = (_weighed(taps, self._coefficients[classes]) + 128) >> 8
        mean = (16 * centre + moved).clamp(-BIAS * 16, (g.maximum - BIAS) * 16)
        return _Stage(has, current, of_a, of_b, centre, activity, level, spread, mean)

    def _quantised(self, differences: Tensor, units: int, scale: Tensor) -> Tensor:
        bits = self._bit_length(scale)
        multiplier = ((units << (bits.long() + 10)) // scale).int()[..., None]
        shift = (bits + 5)[..., None]
        return 64 + ((differences * multiplier + (1 << (shift - 1))) >> shift).clamp(-63, 63)

    def prepared(self, samples: Tensor, errors: Tensor, at: Tensor) -> Tensor:
        """Return what the entropy coder must know of these pixels, (groups, n, PREPARED)."""
        stage = self.linear_stage(samples, at)
        has, mean = stage.has, stage.mean
        _, at_a, _ = self._references(at)
        of_here = self._gathered(errors, at[:, None] + self._errors_around)
        of_a = self._gathered(errors, at_a[:, None] + self._errors_around_a)
        plain = _weighed(of_here.abs(), self._errors)
        plain = plain + torch.where(has, _weighed(of_a.abs(), self._errors_a), plain >> 2)
        scale = plain + (stage.activity >> 4) + 8
        shift = (self._bit_length(scale) - 8).clamp(0, 12)
        equal = torch.stack([stage.of_a[..., i] == stage.reference for i in (20, 21, 28)]).all(0)
        flat = torch.where((stage.activity == 0) & (plain == 0), torch.where(has, 2 + equal.int(), 1), 0)

        centre = ((mean + 8) >> 4)[..., None]
        within, noise = stage.activity + 16, self._logarithm(scale)
        current, around, errors_here, errors_a = (
            self._quantised(values, units, by)
            for values, units, by in (
                (_difference(stage.current, centre), 10, within),
                (_difference(torch.cat([stage.of_a, stage.of_b], -1), centre), 10, within),
                (of_here, 12, scale),
                (of_a, 12, scale),
            )
        )
        numbers = [
            (stage.level >> 1).clamp(max=127),
            (noise >> 1).clamp(max=127),
            (noise - stage.level + 64).clamp(0, 127),
            stage.spread,
            torch.where(has, 96, 32).expand_as(mean),
            torch.where(shift > 0, 64, (mean & 15) * 8),
            self._quantised((centre + BIAS).clamp(max=32767), 12, scale)[..., 0],
            8 * shift,
        ]
        blocks = [current, torch.where(has[:, None], around, 64), errors_here, torch.where(has[:, None], errors_a, 64)]
        out = self._outputs(torch.cat([*blocks, torch.stack(numbers, -1)], -1))
        known = torch.stack([flat, stage.reference, mean, scale], -1)
        return torch.cat([known, out[..., : shape.COMPONENTS + 2]], -1)

    # ---- Network ----

    def _outputs(self, inputs: Tensor) -> Tensor:
        x = inputs - 64
        for weights, biases, shift in self._layers:
            sums = (x.float() @ weights + biases).int()
            x = ((sums + (1 << (shift - 1))) >> shift).clamp(0, 127) if shift else sums
        return x
