"""The neural lossless codec: a small integer network, fitted to the stack, predicts each sample's distribution.

Format: docs/formats/neural.md. Idea: Nagoor et al., local sampling of causal 3-D neighbours.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import compiled, fitting, references
from thinfilm_codecs.lossless.neural.backends import back_end
from thinfilm_codecs.lossless.neural.fitting import Sampler
from thinfilm_codecs.lossless.neural.model import Model, shipped
from thinfilm_codecs.lossless.neural.parameters import COEFFICIENT_STEPS, Parameters, pack, quantised_linear, unpack
from thinfilm_codecs.lossless.neural.planes import Geometry, unpadded
from thinfilm_codecs.lossless.neural.presets import Preset
from thinfilm_codecs.lossless.neural.values import ValueMap, maps_for
from thinfilm_codecs.lossless.sealed import seal, unseal

UInt16 = npt.NDArray[np.uint16]

_GROUP_FRAMES = 20
_GROUP_PIXELS = 1 << 21
_LARGEST_GROUP_PIXELS = 1 << 23
_MOST_FRAMES = 512
_CHOICE_PIXELS = 1 << 20
_FIT_PIXELS = 1 << 24


@dataclass(frozen=True)
class _Effort:
    passes: float  # how often the fit sees a pixel
    most_pixels: int
    rate: float
    thrift: float


_EFFORTS = {
    Preset.FAST: None,
    Preset.DEFAULT: _Effort(1.0, 6_000_000, 2.5e-3, 0.05),
    Preset.MAX: _Effort(8.0, 100_000_000, 3e-3, 0.03),
}


class Neural(Codec):
    """The neural lossless codec. One object serves all threads.

    device: where groups are coded (see backends.DEVICES). Raises MissingDevice where the machine has none such.
    """

    codec_id: ClassVar[str] = "neural"

    def __init__(self, preset: Preset = Preset.DEFAULT, device: str = "cpu") -> None:
        self._preset, self._effort = preset, _EFFORTS[preset]
        self._back_end = back_end(device)

    def tuned(self, preset: str, device: str) -> "Neural":
        """Return the codec of this preset, which computes on this device."""
        return Neural(Preset(preset), device)

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the margins of this layout's planes are small beside its samples."""
        samples = layout.rows * layout.columns
        return Geometry(1, layout.rows, layout.columns, 0, 0, 0).plane <= 2 * samples + 4096

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return the length of even groups: of about 20 frames, more of small ones, fewer of large ones."""
        pixels = layout.rows * layout.columns * layout.components
        most = max(_GROUP_PIXELS // pixels, min(_GROUP_FRAMES, _LARGEST_GROUP_PIXELS // pixels), 1)
        groups = -(-layout.frames // min(most, _MOST_FRAMES))
        return -(-layout.frames // groups)

    def prepare(self, stack: PixelBlock) -> bytes:
        """Fit the model to the stack.

        Raises UnsupportedPixels if its samples span more than 16 bits, or where no kernel was built: numpy alone
        decodes everything, but would take days to fit and to encode.
        """
        if not compiled.instruction_sets():
            raise UnsupportedPixels("The neural codec encodes with its compiled kernel only, which was not built here.")
        model = shipped(self._preset)
        values, (lag_a, lag_b) = _chosen(stack, self.frames_per_group(stack.layout), model)
        windows = _windows(stack, values, self.frames_per_group(stack.layout), _FIT_PIXELS)
        groups = fitting.grouped(windows, lag_a, lag_b, values.maximum)
        sampler = Sampler(groups, np.random.default_rng(0))
        share = stack.layout.samples / sampler.pixels
        plain = Parameters(model, values, lag_a, lag_b, model.linear, model.network)
        fitted = fitting.fit_linear(sampler, model.linear)
        choices = [plain]
        for step in COEFFICIENT_STEPS:
            linear = quantised_linear(fitted, model, step)
            choices.append(replace(plain, linear=linear, coefficient_step=step))
        chosen = _cheapest(choices, sampler, model, stack.layout.samples)
        if self._effort:
            fitting.predict(groups, chosen.linear)
            budget = min(int(self._effort.passes * sampler.pixels * min(share, 1.5)), self._effort.most_pixels)
            network = fitting.tune(sampler, chosen.linear, model, budget, self._effort.rate, self._effort.thrift)
            tuned = replace(chosen, network=network)
            chosen = _cheapest([chosen, tuned], sampler, model, stack.layout.samples)
        return pack(chosen)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels if it is not of the stack that was prepared."""
        p = _unpacked(bytes(parameters))
        values = p.values.values(_as_frames(group.samples))
        geometry = _geometry(group.layout, p)
        return seal(self._back_end.encode(values, geometry, p.linear, p.network, p.model))

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        if not self.supports(layout):
            raise CorruptStream(f"No neural stream is of blocks of {layout.shape}.")
        p = _unpacked(bytes(parameters))
        if not p.values.fits(layout.dtype):
            raise CorruptStream(f"The values of the neural parameters do not fit {layout.dtype}.")
        geometry = _geometry(layout, p)
        planes = self._back_end.decode(unseal(stream), geometry, p.linear, p.network, p.model)
        if planes is None:
            raise CorruptStream(f"The neural stream is not one of a group of {layout.shape} {layout.dtype}.")
        return _from_frames(p.values.samples(unpadded(planes, geometry), layout.dtype), layout)

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return the identity of the model that the parameters name, in hexadecimal digits."""
        return (_unpacked(bytes(parameters)).model.identity.hex(),)


@lru_cache(maxsize=16)
def _unpacked(parameters: bytes) -> Parameters:
    return unpack(parameters)


def _as_frames(samples: SampleArray) -> SampleArray:
    """Return (frames, rows, columns): the components of a pixel become frames that follow one another."""
    if samples.ndim == 3:
        return samples
    frames, rows, columns, components = samples.shape
    return np.moveaxis(samples, 3, 1).reshape(frames * components, rows, columns)


def _from_frames(frames: SampleArray, layout: BlockLayout) -> SampleArray:
    if layout.components == 1:
        return frames
    planes = frames.reshape(layout.frames, layout.components, layout.rows, layout.columns)
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))


def _geometry(layout: BlockLayout, p: Parameters) -> Geometry:
    frames = layout.frames * layout.components
    return Geometry(frames, layout.rows, layout.columns, p.lag_a, p.lag_b, p.values.maximum)


def _windows(stack: PixelBlock, values: ValueMap, step: int, pixels: int) -> list[UInt16]:
    """Return groups of the stack, evenly spread, of about so many pixels together."""
    layout = stack.layout
    firsts = list(range(0, layout.frames, step))
    per_group = step * layout.samples // layout.frames
    wanted = min(len(firsts), max(1, pixels // per_group))
    picked = (
        np.unique(np.linspace(0, len(firsts) - 1, wanted).round().astype(int)) if wanted > 1 else [len(firsts) // 2]
    )
    return [values.values(_as_frames(stack.frames(firsts[i], step).samples)) for i in picked]


def _chosen(stack: PixelBlock, step: int, model: Model) -> tuple[ValueMap, tuple[int, int]]:
    """Return the value map and the references that make a sample of the stack smallest."""
    components = stack.layout.components
    maps = maps_for(stack.samples)
    tries: list[tuple[float, ValueMap, tuple[int, int]]] = []
    for values in maps:
        windows = _windows(stack, values, step, _CHOICE_PIXELS)
        pairs = (
            references.candidates(windows[len(windows) // 2]) if components == 1 else [(1, components), (components, 1)]
        )
        if len(maps) == len(pairs) == 1:
            return values, pairs[0]
        for lags in pairs:
            groups = fitting.grouped(windows, *lags, values.maximum)
            sampler = Sampler(groups, np.random.default_rng(0))
            linear = fitting.fit_linear(sampler, model.linear, 40_000)
            fitting.predict(groups, linear)
            spent = fitting.estimate(sampler, linear, model.network, model) * stack.layout.samples
            carried = len(pack(Parameters(model, values, *lags, model.linear, model.network)))
            tries.append((spent + 8 * carried, values, lags))
    _, values, lags = min(tries, key=lambda found: found[0])
    return values, lags


def _cheapest(choices: list[Parameters], sampler: Sampler, model: Model, samples: int) -> Parameters:
    """Return the parameters that make the stack smallest, their own bytes counted."""
    costs = []
    for choice in choices:
        fitting.predict(sampler.groups, choice.linear)
        fresh = Sampler(sampler.groups, np.random.default_rng(1))
        per_pixel = fitting.estimate(fresh, choice.linear, choice.network, model)
        costs.append(per_pixel * samples + 8 * len(pack(choice)))
    return choices[int(np.argmin(costs))]
