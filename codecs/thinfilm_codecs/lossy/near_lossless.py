"""The near-lossless codec: samples are held to a uniform grid, whose indices the neural lossless codec keeps.

Format: docs/formats/near_lossless.md. Why a fixed grid: docs/decisions/0014-near-lossless.md.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.neural.values import ValueMap
from thinfilm_codecs.lossy.codec import LossyCodec

VERSION = 1

_HEADER = struct.Struct("<BHqH")
_WIDEST = 65535
_LARGEST_ERROR = 32767


@dataclass(frozen=True)
class _Grid:
    """What samples are held to: minimum, minimum + 2 max_error + 1 and so on, the last no more than minimum + span."""

    max_error: int
    minimum: int
    span: int

    @property
    def step(self) -> int:
        return 2 * self.max_error + 1

    @property
    def last(self) -> int:
        """The largest index."""
        return (self.span + self.max_error) // self.step

    def indices(self, block: PixelBlock) -> PixelBlock:
        """Return the indices of the samples. Raises UnsupportedPixels if one is not of minimum to minimum + span."""
        offsets = ValueMap(self.minimum, self.span).values(block.samples).astype(np.uint32)
        indices = ((offsets + np.uint32(self.max_error)) // np.uint32(self.step)).astype(np.uint16)
        return PixelBlock(indices, max(1, self.last.bit_length()), block.frame_axis, block.spacing)

    def samples(self) -> ValueMap:
        """Return the map from indices to samples."""
        offsets = np.minimum(np.arange(self.last + 1) * self.step, self.span)
        return ValueMap(self.minimum, self.last, offsets.astype(np.uint16))


class NearLossless(LossyCodec):
    """The near-lossless codec: no sample is further than max_error from what was coded.

    What was coded is coded without any loss the next time, whatever stacks and groups it is then in. One object serves
    all threads. max_error: one of the ladder. engine: keeps the indices.
    """

    codec_id: ClassVar[str] = "near_lossless"
    setting_name: ClassVar[str] = "max_error"
    ladder: ClassVar[tuple[float, ...]] = (
        *range(1, 64),
        *(mantissa << exponent for exponent in range(1, 10) for mantissa in range(32, 64)),
    )

    def __init__(self, max_error: int = 1, engine: Neural | None = None) -> None:
        self._max_error = max_error
        self._engine = engine or Neural()

    @property
    def setting(self) -> float:
        """The largest error."""
        return self._max_error

    @property
    def promised_error(self) -> int:
        """The largest error."""
        return self._max_error

    def at(self, setting: float) -> Self:
        """Return the codec of this largest error. Raises ValueError if it is not on the ladder."""
        if setting not in self.ladder:
            raise ValueError(
                f"near_lossless has a max_error of 1 to {self.ladder[-1]}, in wider steps above 64; got {setting}."
            )
        return type(self)(int(setting), self._engine)

    def tuned(self, preset: str, device: str) -> Self:
        """Return the codec whose engine tries as hard as `preset` says, on `device`."""
        return type(self)(self._max_error, self._engine.tuned(preset, device))

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether the engine supports the layout of the indices."""
        return self._engine.supports(_of_indices(layout))

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return the engine's."""
        return self._engine.frames_per_group(_of_indices(layout))

    def prepare(self, stack: PixelBlock) -> bytes:
        """Lay the grid and fit the engine to the indices.

        Raises UnsupportedPixels if the samples span more than 16 bits, or where the engine cannot encode.
        """
        minimum = int(stack.samples.min())
        span = int(stack.samples.max()) - minimum
        if span > _WIDEST:
            raise UnsupportedPixels(
                f"The near_lossless codec keeps ranges of 16 bits; these samples span {span + 1} values."
            )
        grid = _Grid(self._max_error, minimum, span)
        return _packed(grid) + self._engine.prepare(grid.indices(stack))

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return those of the engine's parameters."""
        return self._engine.model_hashes(_unpacked(parameters)[1])

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group on the grid of the parameters. Raises UnsupportedPixels if it is not of the prepared stack."""
        grid, engine_parameters = _unpacked(parameters)
        return self._engine.encode(grid.indices(group), engine_parameters)

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        grid, engine_parameters = _unpacked(parameters)
        samples = grid.samples()
        if not samples.fits(layout.dtype):
            raise CorruptStream(f"The grid of the near_lossless parameters does not fit {layout.dtype}.")
        indices = self._engine.decode(stream, _of_indices(layout), engine_parameters)
        if indices.max() > grid.last:
            raise CorruptStream(f"The near_lossless stream has indices beyond {grid.last}, the last of its grid.")
        return samples.samples(indices, layout.dtype)


def _of_indices(layout: BlockLayout) -> BlockLayout:
    return BlockLayout(layout.frames, layout.rows, layout.columns, layout.components, "uint16")


def _packed(grid: _Grid) -> bytes:
    return _HEADER.pack(VERSION, grid.max_error, grid.minimum, grid.span)


def _unpacked(parameters: bytes) -> tuple[_Grid, bytes]:
    """Return the grid and the engine's parameters. Raises CorruptStream if the bytes do not begin with a grid."""
    if len(parameters) < _HEADER.size:
        raise CorruptStream("The near_lossless parameters end within their header.")
    version, max_error, minimum, span = _HEADER.unpack_from(parameters)
    if version != VERSION or not 1 <= max_error <= _LARGEST_ERROR:
        raise CorruptStream(f"The near_lossless parameters are of version {version}, max_error {max_error}: unknown.")
    return _Grid(max_error, minimum, span), bytes(parameters[_HEADER.size :])
