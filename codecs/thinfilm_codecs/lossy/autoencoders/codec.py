"""The frame of a codec around an autoencoder: range, padding, tiles and groups; what a code is, is the network's.

Format: docs/formats/autoencoders.md.
"""

import struct
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.grouping import frames_in
from thinfilm_codecs.lossless.neural.values import ValueMap
from thinfilm_codecs.lossless.sealed import seal, unseal
from thinfilm_codecs.lossy.autoencoders.layers import (
    LARGEST,
    ONE_BITS,
    SCALE,
    Network,
    analysed_in_tiles,
    synthesised_in_tiles,
)
from thinfilm_codecs.lossy.codec import LossyCodec
from thinfilm_codecs.lossy.exact import Floats

VERSION = 1

Codes = npt.NDArray[np.int32]

_HEADER = struct.Struct("<B16siHH")
_STRIP = 4096
_BRIGHT = 99.9
_LOOKED_AT = 16


@dataclass(frozen=True)
class Range:
    """What all groups of a stack share.

    identity: of the model. Samples are minimum + value, values 0 to maximum; `scale` of them are 1 to the network.
    """

    identity: bytes
    minimum: int
    maximum: int
    scale: int

    @staticmethod
    def around(identity: bytes, stack: PixelBlock) -> "Range":
        """Return the range of a stack; what 99.9 % of its samples do not pass is bright, and 1 to the network."""
        minimum, maximum = int(stack.samples.min()), int(stack.samples.max())
        some = stack.samples[:: max(1, len(stack.samples) // _LOOKED_AT)]
        bright = int(np.percentile(some, _BRIGHT)) - minimum
        return Range(identity, minimum, maximum - minimum, max(bright, 1))

    def packed(self) -> bytes:
        """Return the parameters of a stack."""
        return _HEADER.pack(VERSION, self.identity, self.minimum, self.maximum, self.scale)

    @staticmethod
    def of(data: bytes) -> "Range":
        """Return what the parameters of a stack say. Raises CorruptStream for bytes that are none."""
        if len(data) != _HEADER.size:
            raise CorruptStream(f"The parameters of the autoencoder are of {len(data)} bytes, not {_HEADER.size}.")
        version, identity, minimum, maximum, scale = _HEADER.unpack(data)
        if version != VERSION or not scale:
            raise CorruptStream(f"The parameters of the autoencoder are of version {version}, scale {scale}: unknown.")
        return Range(identity, minimum, maximum, scale)

    def normalised(self, samples: SampleArray) -> Floats:
        """Return samples as the network sees them, 1 being 2^ONE_BITS, rounded down."""
        values = (samples.astype(np.int64) - self.minimum) << ONE_BITS
        found: Floats = np.minimum(values // self.scale, LARGEST).astype(np.float64)
        return found

    def samples(self, plane: Floats, dtype: str) -> SampleArray:
        """Return the samples that the network's numbers stand for, within the range of the stack."""
        values = (plane.astype(np.int64) * self.scale + (1 << ONE_BITS >> 1)) >> ONE_BITS
        found: SampleArray = (values.clip(0, self.maximum) + self.minimum).astype(dtype)
        return found


class AutoencoderCodec(LossyCodec):
    """A lossy codec of two networks; each component of each frame is coded alone.

    kept: how many planes of the code are kept, one of `ladder`; the decoder takes the others for 0. model: identity of
    a shipped model, for encoding.
    """

    current: ClassVar[str]
    """Identity of the model that encoders use."""

    def __init__(self, kept: float | None = None, model: str | None = None) -> None:
        kept = self.ladder[0] if kept is None else kept
        if kept not in self.ladder:
            raise ValueError(f"{self.codec_id} keeps one of {self.ladder} planes of its code; got {kept}.")
        self._kept, self._model = int(kept), bytes.fromhex(model or self.current)

    @property
    def setting(self) -> float:
        """How many planes of the code are kept."""
        return self._kept

    def at(self, setting: float) -> Self:
        """Return the codec that keeps so many. Raises ValueError if that is not on the ladder."""
        return type(self)(setting, self._model.hex())

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether samples are of 8 or 16 bits, and no thin strip that padding would make much larger."""
        rows, columns = _padded_size(layout)
        return np.dtype(layout.dtype).itemsize <= 2 and rows * columns <= 2 * layout.rows * layout.columns + _STRIP

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB."""
        return frames_in(layout)

    def prepare(self, stack: PixelBlock) -> bytes:
        """Return the model's name, the range of the samples and what counts as bright. Raises UnsupportedPixels."""
        if not self.supports(stack.layout):
            raise UnsupportedPixels(f"{self.codec_id} cannot code blocks of {stack.layout.shape} {stack.layout.dtype}.")
        return Range.around(self._model, stack).packed()

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return the identity of the model that the parameters name."""
        return (Range.of(parameters).identity.hex(),)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels if it is not of the stack that was prepared."""
        given, layout = Range.of(parameters), group.layout
        if not self.supports(layout):
            raise UnsupportedPixels(f"{self.codec_id} cannot code blocks of {layout.shape} {layout.dtype}.")
        if group.samples.min() < given.minimum or group.samples.max() > given.minimum + given.maximum:
            raise UnsupportedPixels("The group has samples outside the range that the stack was prepared for.")
        network = self._network(given.identity)
        each = group.samples.reshape(layout.frames, layout.rows, layout.columns, layout.components)
        planes = np.moveaxis(each, 3, 1).reshape(-1, layout.rows, layout.columns)
        codes = []
        for plane in planes:
            padded = np.pad(given.normalised(plane), _padding(layout), "edge")
            codes.append(self._quantised(analysed_in_tiles(padded, network.analyse)[: self._kept]))
        return seal(bytes([VERSION, self._kept]) + self._put(np.stack(codes)))

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        if not self.supports(layout):
            raise CorruptStream(f"No {self.codec_id} stream is of blocks of {layout.shape} {layout.dtype}.")
        given = Range.of(parameters)
        if not ValueMap(given.minimum, given.maximum).fits(layout.dtype):
            raise CorruptStream(f"The values of the parameters do not fit {layout.dtype}.")
        payload = unseal(stream)
        if len(payload) < 2 or payload[0] != VERSION or payload[1] not in self.ladder:
            raise CorruptStream(f"The {self.codec_id} stream is not of version {VERSION}, or keeps no such code.")
        network = self._network(given.identity)
        rows, columns = _padded_size(layout)
        planes = layout.frames * layout.components
        codes = self._take(payload[2:], (planes, payload[1], rows // SCALE, columns // SCALE))
        found = np.empty((planes, layout.rows, layout.columns), layout.dtype)
        for target, code in zip(found, codes, strict=True):
            whole = np.zeros((int(self.ladder[0]), *code.shape[1:]))
            whole[: len(code)] = self._activations(code)
            plane = synthesised_in_tiles(whole, network.synthesise)
            target[...] = given.samples(plane[: layout.rows, : layout.columns], layout.dtype)
        components = found.reshape(layout.frames, layout.components, layout.rows, layout.columns)
        return np.ascontiguousarray(np.moveaxis(components, 1, 3)).reshape(layout.shape)

    @abstractmethod
    def _network(self, identity: bytes) -> Network:
        """Return a shipped model. Raises MissingModel."""

    @abstractmethod
    def _quantised(self, found: Floats) -> Codes:
        """Return the code (kept, rows, columns) of what the network found."""

    @abstractmethod
    def _activations(self, code: Codes) -> Floats:
        """Return a code as the network sees it."""

    @abstractmethod
    def _put(self, codes: Codes) -> bytes:
        """Return the stream of codes (planes, kept, rows, columns)."""

    @abstractmethod
    def _take(self, stream: bytes, shape: tuple[int, int, int, int]) -> Codes:
        """Return the codes of a stream, of this shape. Raises CorruptStream if it is none."""


def _padded_size(layout: BlockLayout) -> tuple[int, int]:
    return -(-layout.rows // SCALE) * SCALE, -(-layout.columns // SCALE) * SCALE


def _padding(layout: BlockLayout) -> Any:
    rows, columns = _padded_size(layout)
    return ((0, rows - layout.rows), (0, columns - layout.columns))
