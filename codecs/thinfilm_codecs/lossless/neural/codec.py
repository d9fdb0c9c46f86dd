"""The neural lossless codec: a small integer network, fitted to the stack, predicts each sample's distribution.

Format: docs/formats/neural.md. Idea: Nagoor et al., local sampling of causal 3-D neighbours.
"""

from functools import lru_cache
from typing import ClassVar

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import compiled, kernels
from thinfilm_codecs.lossless.neural.backends import back_end
from thinfilm_codecs.lossless.neural.parameters import Parameters, model_identity, pack, unpack
from thinfilm_codecs.lossless.neural.planes import Geometry, unpadded
from thinfilm_codecs.lossless.neural.preparation import as_frames, prepared
from thinfilm_codecs.lossless.neural.presets import Preset
from thinfilm_codecs.lossless.neural.shape import FRAME_LAG, ROW_LAG
from thinfilm_codecs.lossless.sealed import seal, unseal

_GROUP_PIXELS = 5 << 19
"""A group decodes in about half a second on one core: the price of any of its frames. Twice as many gain 0.1 %."""

_FEWEST_FRAMES = 4
_LARGEST_GROUP_PIXELS = 1 << 23
"""Large frames come in groups of so many, since the first frame of a group has no reference, until memory forbids."""

_MOST_FRAMES = 512
_AGREED_PIXELS = 1 << 19


_NO_KERNEL = (
    "The neural codec encodes by its compiled kernel only, which was not built here; install the wheel of this "
    "platform, or a C compiler (Debian: gcc libc6-dev python3-dev) and Thinfilm again."
)


class Neural(Codec):
    """The neural lossless codec. One object serves all threads.

    device: where groups are coded (see devices.DEVICES). Raises MissingDevice where the machine has none such.
    """

    codec_id: ClassVar[str] = "neural"

    def __init__(self, preset: Preset = Preset.DEFAULT, device: str = "cpu") -> None:
        self._preset = preset
        self._back_end = back_end(device)

    def tuned(self, preset: str, device: str) -> "Neural":
        """Return the codec of this preset, which computes on this device."""
        return Neural(Preset(preset), device)

    def obstacle(self) -> str | None:
        """Tell of kernels that were not built or are all faulty: numpy decodes alone, but would take days to encode."""
        if kernels.usable():
            return None
        return next(iter(kernels.faults().values()), _NO_KERNEL)

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the margins of this layout's planes are small beside its samples."""
        samples = layout.rows * layout.columns
        return Geometry(1, layout.rows, layout.columns, 0, 0, 0).plane <= 2 * samples + 4096

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return the length of even groups: 10 frames of 512 x 512, more of smaller ones, fewer of larger ones."""
        pixels = layout.rows * layout.columns * layout.components
        most = max(_GROUP_PIXELS // pixels, min(_FEWEST_FRAMES, _LARGEST_GROUP_PIXELS // pixels), 1)
        groups = -(-layout.frames // min(most, _MOST_FRAMES))
        return -(-layout.frames // groups)

    def prepare(self, stack: PixelBlock) -> bytes:
        """Fit the model to the stack.

        Raises UnsupportedPixels if its samples span more than 16 bits, or where no kernel was built.
        """
        if obstacle := self.obstacle():
            raise UnsupportedPixels(obstacle)
        return pack(prepared(stack, self.frames_per_group(stack.layout), self._preset))

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels if it is not of the stack that was prepared."""
        p = _unpacked(bytes(parameters))
        values = p.values.values(as_frames(group.samples))
        geometry = _geometry(group.layout, p)
        return seal(self._back_end.encode(values, geometry, p.linear, p.network, p.model))

    def agrees(self, stream: bytes, group: PixelBlock, parameters: bytes) -> bool:
        """Tell whether the next slower kernel finds the first samples of all frames, at most half a million."""
        kernel = kernels.second()
        if kernel is None:
            return True
        p = _unpacked(bytes(parameters))
        geometry = _geometry(group.layout, p)
        last_step = _last_step(geometry)
        planes = compiled.decode_first(unseal(stream), geometry, p.linear, p.network, p.model, kernel, last_step)
        if planes is None:
            return False
        values = p.values.values(as_frames(group.samples))
        frames, rows, columns = (np.arange(count) for count in values.shape)
        step = FRAME_LAG * frames[:, None, None] + ROW_LAG * rows[:, None] + columns
        is_decoded = step <= last_step
        return bool((unpadded(planes, geometry)[is_decoded] == values[is_decoded]).all())

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
        return (model_identity(bytes(parameters)).hex(),)


@lru_cache(maxsize=16)
def _unpacked(parameters: bytes) -> Parameters:
    return unpack(parameters)


def _from_frames(frames: SampleArray, layout: BlockLayout) -> SampleArray:
    if layout.components == 1:
        return frames
    planes = frames.reshape(layout.frames, layout.components, layout.rows, layout.columns)
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))


def _last_step(g: Geometry) -> int:
    """Return the last step of the wavefront up to which about _AGREED_PIXELS are coded."""
    last = FRAME_LAG * (g.frames - 1) + ROW_LAG * (g.rows - 1) + g.columns - 1
    return last * min(_AGREED_PIXELS, g.frames * g.rows * g.columns) // (g.frames * g.rows * g.columns)


def _geometry(layout: BlockLayout, p: Parameters) -> Geometry:
    frames = layout.frames * layout.components
    return Geometry(frames, layout.rows, layout.columns, p.lag_a, p.lag_b, p.values.maximum)
