"""The siren lossy codec: all volumes of a slice are what one sine network says of (row, column).

Format: docs/formats/siren.md. Source: Mancini, Jones, Palombo: Lossy compression of multidimensional medical images
using sinusoidal activation networks, 2022; figures: docs/decisions/0016-siren.md.
"""

from bisect import bisect_left
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.devices import check_device
from thinfilm_codecs.lossy.arrangement import Arrangement, arrangement_of, frames_per_group
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.siren.network import BIAS_BITS, WIDEST, coordinates, evaluate
from thinfilm_codecs.lossy.siren.plans import EFFORTS, Effort, Plan
from thinfilm_codecs.lossy.siren.stream import Group, Shape, pack, unpack

HIDDEN = 3
"""Layers of sines, by the paper."""

WEIGHT_BITS = 7.0
"""What a weight takes: fewer, and its error shows; more, and a wider network would have made a smaller one."""

_OUTPUT_BIAS_BITS = 20

_DEVIATIONS = 5.0  # one of millions of normally distributed errors is further off


_NO_TORCH = "The siren codec fits its networks with torch, which is not installed; the extra thinfilm[gpu] brings it."


class Siren(LossyCodec):
    """The siren codec. One object serves all threads.

    setting: bits a sample. effort: how long to fit. device: where networks are fitted (see devices.DEVICES); they are
    decoded by numpy alone. Raises MissingDevice where there is none such. volumetric: one network of (place, row,
    column) in place of a network of (row, column) for each place.
    """

    codec_id: ClassVar[str] = "siren"
    setting_name: ClassVar[str] = "bits_per_sample"
    ladder: ClassVar[tuple[float, ...]] = (5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.75, 0.5, 0.35, 0.25, 0.15)

    def __init__(
        self,
        setting: float = ladder[0],
        effort: Effort = EFFORTS["default"],
        device: str = "cpu",
        *,
        volumetric: bool = False,
    ) -> None:
        if setting not in self.ladder:
            raise ValueError(f"The siren codec takes {', '.join(map(str, self.ladder))} bits a sample, not {setting}.")
        check_device(device, self.codec_id)
        self._setting, self._effort, self._device, self._volumetric = setting, effort, device, volumetric

    @property
    def setting(self) -> float:
        """Bits a sample."""
        return self._setting

    def at(self, setting: float) -> "Siren":
        """Return the codec of so many bits a sample. Raises ValueError for what is not on the ladder."""
        return Siren(setting, self._effort, self._device, volumetric=self._volumetric)

    def tuned(self, preset: str, device: str) -> "Siren":
        """Return the codec that fits as long as the preset says, on this device."""
        return Siren(self._setting, EFFORTS[preset], device, volumetric=self._volumetric)

    def aiming_at(self, max_error: int) -> "Siren":
        """Return the codec whose fit ends once its errors, taken for normally distributed, are within max_error."""
        effort = replace(self._effort, target_rmse=max_error / _DEVIATIONS)
        return Siren(self._setting, effort, self._device, volumetric=self._volumetric)

    def obstacle(self) -> str | None:
        """Tell of torch that is not installed."""
        return None if find_spec("torch") else _NO_TORCH

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the layout is of one component of at most 16 bits."""
        return layout.components == 1 and np.dtype(layout.dtype).itemsize <= 2

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return the length of even groups: of as many volumes as 8 million samples are."""
        return frames_per_group(layout)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Fit networks to the group; takes as long as the effort says.

        Raises UnsupportedPixels for a layout that is not supported, or where torch is not installed.
        """
        del parameters
        if not self.supports(group.layout):
            raise UnsupportedPixels(f"The siren codec keeps one component of at most 16 bits, not {group.layout}.")
        fitting = _fitting()
        arrangement = arrangement_of(group)
        plan = Plan(self._width(group.layout, arrangement), HIDDEN, bits=WEIGHT_BITS)
        minimum, maximum = int(group.samples.min()), int(group.samples.max())
        shape = self._shape(group.layout, arrangement, plan.width)
        slices = fitting.Slices(
            coordinates(_sides(shape, arrangement, group.layout)), _wanted(group, shape, arrangement)
        )
        device = "cuda" if self._device == "cuda" else "cpu"
        networks = fitting.fit(slices, plan, self._effort, device)
        return pack(Group(arrangement, shape, minimum, maximum - minimum, networks))

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples that the networks say. Raises CorruptStream for bytes that are no such stream."""
        del parameters
        if not self.supports(layout):
            raise CorruptStream(f"No siren stream is of blocks of {layout.shape} {layout.dtype}.")
        group = unpack(stream, layout)
        sides, points = _sides(group.shape, group.arrangement, layout), layout.rows * layout.columns
        samples = np.empty((layout.frames, points), layout.dtype)
        for place, frames in enumerate(group.arrangement.frames_of(layout.frames)):
            number, first = (place, 0) if len(sides) == 2 else (0, place * points)
            for done, outputs in evaluate(group.networks[number], sides, first, points):
                values = outputs[:, : len(frames)].clip(0, group.span) + group.minimum
                samples[frames, done : done + len(values)] = values.T
        return samples.reshape(layout.shape)

    def _width(self, layout: BlockLayout, arrangement: Arrangement) -> int:
        """Return the largest width of which the networks take as many bits as the setting says, 1 at least."""
        widths = range(1, WIDEST + 1)
        count = self._shape(layout, arrangement, 1).networks(arrangement)
        budget = self._setting * layout.samples / count

        def fits(width: int) -> bool:
            shape = self._shape(layout, arrangement, width)
            biases = BIAS_BITS * (shape.biases - shape.outputs) + _OUTPUT_BIAS_BITS * shape.outputs
            return WEIGHT_BITS * shape.weights + biases <= budget and shape.allowed(layout, arrangement)

        return max(1, bisect_left(widths, True, key=lambda width: not fits(width)))

    def _shape(self, layout: BlockLayout, arrangement: Arrangement, width: int) -> Shape:
        return Shape(3 if self._volumetric else 2, HIDDEN, width, arrangement.volumes(layout.frames))


def _sides(shape: Shape, arrangement: Arrangement, layout: BlockLayout) -> tuple[int, ...]:
    """Return the grid whose places the networks know."""
    plane = layout.rows, layout.columns
    return plane if shape.inputs == 2 else (arrangement.places, *plane)


def _wanted(group: PixelBlock, shape: Shape, arrangement: Arrangement) -> npt.NDArray[np.float32]:
    """Return the samples that the networks shall learn, as fitting.Slices has them."""
    layout, minimum = group.layout, int(group.samples.min())
    wanted = np.full((arrangement.places, layout.rows * layout.columns, shape.outputs), np.nan, np.float32)
    for place, frames in enumerate(arrangement.frames_of(layout.frames)):
        wanted[place, :, : len(frames)] = group.samples[frames].reshape(len(frames), -1).T.astype(np.float32) - minimum
    return wanted.reshape(shape.networks(arrangement), -1, shape.outputs)


def _fitting() -> ModuleType:
    """Return what fits networks. Raises UnsupportedPixels where torch is not installed."""
    try:
        from thinfilm_codecs.lossy.siren import fitting
    except ImportError as error:
        raise UnsupportedPixels(_NO_TORCH) from error
    return fitting
