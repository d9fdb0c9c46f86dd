"""The nagoor lossless codec: a large perceptron predicts each pixel from its causal 3-D neighbours.

Format: docs/formats/nagoor.md. Source: Nagoor, Whittle, Deng, Mora, Jones: Lossless Compression for Volumetric Medical
Images Using Deep Neural Network with Local Sampling, ICIP 2020.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.devices import check_device
from thinfilm_codecs.lossless.nagoor import wavefront
from thinfilm_codecs.lossless.nagoor.model import CURRENT, Model, named
from thinfilm_codecs.lossless.nagoor.network import running
from thinfilm_codecs.lossless.nagoor.sampling import LARGEST_RADIUS
from thinfilm_codecs.lossless.sealed import seal, unseal

VERSION = 1

_HEADER = struct.Struct("<B16siH")
_GROUP_FRAMES = 20
_GROUP_PIXELS = 1 << 23
_MARGINS = 2 * LARGEST_RADIUS
_STRIP = 4096
_WIDEST = 65535


@dataclass(frozen=True)
class _Parameters:
    """What all groups of a stack share: a sample is minimum + value, values are 0 to maximum."""

    identity: bytes
    minimum: int
    maximum: int

    def packed(self) -> bytes:
        return _HEADER.pack(VERSION, self.identity, self.minimum, self.maximum)

    @staticmethod
    def of(data: bytes) -> "_Parameters":
        if len(data) != _HEADER.size:
            raise CorruptStream(f"The nagoor parameters are of {len(data)} bytes; {_HEADER.size} are right.")
        version, identity, minimum, maximum = _HEADER.unpack(data)
        if version != VERSION:
            raise CorruptStream(f"The nagoor parameters are of version {version}: unknown.")
        return _Parameters(identity, minimum, maximum)

    def model(self) -> Model:
        return named(self.identity)


class Nagoor(Codec):
    """The nagoor codec. One object serves all threads.

    model: identity of a shipped model, for encoding. device: where the network runs (see devices.DEVICES). Raises
    MissingDevice where the machine has none such.
    """

    codec_id: ClassVar[str] = "nagoor"

    def __init__(self, model: str = CURRENT, device: str = "cpu") -> None:
        check_device(device, self.codec_id)
        self._model, self._device = bytes.fromhex(model), device

    def tuned(self, preset: str, device: str) -> "Nagoor":
        """Return the codec on a device; it has no presets."""
        del preset
        return self if device == self._device else Nagoor(self._model.hex(), device)

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the layout is what the paper codes: one component of at most 16 bits, no thin strip."""
        padded = (layout.rows + _MARGINS) * (layout.columns + _MARGINS)
        return (
            layout.components == 1
            and np.dtype(layout.dtype).itemsize <= 2
            and padded <= 2 * layout.rows * layout.columns + _STRIP
        )

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return the length of even groups: of at most 20 frames, fewer of large ones."""
        most = max(1, min(_GROUP_FRAMES, _GROUP_PIXELS // (layout.rows * layout.columns)))
        groups = -(-layout.frames // most)
        return -(-layout.frames // groups)

    def prepare(self, stack: PixelBlock) -> bytes:
        """Return the model's name and the range of the samples. Raises UnsupportedPixels for more than 16 bits."""
        minimum, maximum = int(stack.samples.min()), int(stack.samples.max())
        if maximum - minimum > _WIDEST:
            raise UnsupportedPixels(
                f"The nagoor codec keeps 16 bits; these samples span {maximum - minimum + 1} values."
            )
        return _Parameters(self._model, minimum, maximum - minimum).packed()

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return the identity of the model that the parameters name."""
        return (_Parameters.of(parameters).identity.hex(),)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels if it is not of the stack that was prepared."""
        p = _Parameters.of(parameters)
        low, high = int(group.samples.min()), int(group.samples.max())
        if low < p.minimum or high > p.minimum + p.maximum:
            raise UnsupportedPixels("The group has samples outside the range that the stack was prepared for.")
        values = (group.samples.astype(np.int32) - p.minimum).astype(np.uint16)
        model = p.model()
        stream, _ = wavefront.encode(values, p.maximum, model, running(model, self._device))
        return seal(stream)

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        if not self.supports(layout):
            raise CorruptStream(f"No nagoor stream is of blocks of {layout.shape} {layout.dtype}.")
        p = _Parameters.of(parameters)
        limits = np.iinfo(layout.dtype)
        if p.minimum < limits.min or p.minimum + p.maximum > limits.max:
            raise CorruptStream(f"The values of the nagoor parameters do not fit {layout.dtype}.")
        model = p.model()
        values = wavefront.decode(unseal(stream), layout.shape, p.maximum, model, running(model, self._device))
        return (values.astype(np.int32) + p.minimum).astype(layout.dtype)
