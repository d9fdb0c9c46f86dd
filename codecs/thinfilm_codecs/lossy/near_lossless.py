"""The near-lossless codec: samples are held to a uniform grid, whose indices the neural lossless codec keeps.

Format: docs/formats/near_lossless.md. Why a fixed grid: docs/decisions/0014-near-lossless.md.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.neural import Neural
from thinfilm_codecs.lossless.neural.values import ValueMap
from thinfilm_codecs.lossy.codec import LossyCodec

VERSION = 2

_HEADER = struct.Struct("<BHqH")
_WIDEST = 65535
_VERSION_OF_ODD_STEPS = 1


@dataclass(frozen=True)
class _Grid:
    """What samples are held to: first the minimum, then from minimum + first on each step, none above minimum + span.

    first: 1, so that only the minimum becomes the minimum, which padding often is; in version 1 a whole step.
    """

    step: int
    first: int
    minimum: int
    span: int

    @property
    def last(self) -> int:
        """The largest index."""
        return int(self._of_offsets()[-1])

    def indices(self, block: PixelBlock) -> PixelBlock:
        """Return the indices of the samples. Raises UnsupportedPixels if one is not of minimum to minimum + span."""
        offsets = ValueMap(self.minimum, self.span).values(block.samples)
        return PixelBlock(self._of_offsets()[offsets], max(1, self.last.bit_length()), block.frame_axis, block.spacing)

    def _of_offsets(self) -> npt.NDArray[np.uint16]:
        """Return the index of each sample from minimum to minimum + span."""
        indices = 1 + (np.arange(self.span + 1) - self.first + (self.step - 1) // 2) // self.step
        indices[0] = 0
        return indices.astype(np.uint16)

    def samples(self) -> ValueMap:
        """Return the map from indices to samples."""
        last = self.last
        offsets = np.minimum(np.arange(-1, last) * self.step + self.first, self.span)
        offsets[0] = 0
        return ValueMap(self.minimum, last, offsets.astype(np.uint16))


class NearLossless(LossyCodec):
    """The near-lossless codec: no sample is further than half a step from what was coded.

    What was decoded, or any part of it, is coded without any loss at the same step; beside other samples only where
    they leave the ends of its range as they are. One object serves all threads. step: of the grid, one of the ladder.
    engine: keeps the indices.
    """

    codec_id: ClassVar[str] = "near_lossless"
    setting_name: ClassVar[str] = "step"
    ladder: ClassVar[tuple[float, ...]] = (
        *range(2, 128),
        *(mantissa << exponent for exponent in range(1, 10) for mantissa in range(64, 128)),
    )

    def __init__(self, step: int = 2, engine: Neural | None = None) -> None:
        self._step = step
        self._engine = engine or Neural()

    @property
    def setting(self) -> float:
        """The step of the grid."""
        return self._step

    @property
    def promised_error(self) -> int:
        """Half the step, rounded down."""
        return self._step // 2

    def at(self, setting: float) -> Self:
        """Return the codec of this step. Raises ValueError if it is not on the ladder."""
        if setting not in self.ladder:
            raise ValueError(
                f"near_lossless has steps of 2 to {self.ladder[-1]}, fewer of them above 128; got {setting}."
            )
        return type(self)(int(setting), self._engine)

    def tuned(self, preset: str, device: str) -> Self:
        """Return the codec whose engine tries as hard as `preset` says, on `device`."""
        return type(self)(self._step, self._engine.tuned(preset, device))

    def obstacle(self) -> str | None:
        """Return the engine's."""
        return self._engine.obstacle()

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
        grid = _Grid(self._step, 1, minimum, span)
        return _packed(grid) + self._engine.prepare(grid.indices(stack))

    def model_hashes(self, parameters: bytes) -> tuple[str, ...]:
        """Return those of the engine's parameters."""
        return self._engine.model_hashes(_unpacked(parameters)[1])

    def agrees(self, stream: bytes, group: PixelBlock, parameters: bytes) -> bool:
        """Tell whether the engine's other back end finds the indices of the group, whose samples lie on the grid."""
        grid, engine_parameters = _unpacked(parameters)
        return self._engine.agrees(stream, grid.indices(group), engine_parameters)

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
        if indices.max() > samples.maximum:
            raise CorruptStream(f"The near_lossless stream has indices beyond {samples.maximum}, the last of its grid.")
        return samples.samples(indices, layout.dtype)


def _of_indices(layout: BlockLayout) -> BlockLayout:
    return BlockLayout(layout.frames, layout.rows, layout.columns, layout.components, "uint16")


def _packed(grid: _Grid) -> bytes:
    return _HEADER.pack(VERSION, grid.step, grid.minimum, grid.span)


def _unpacked(parameters: bytes) -> tuple[_Grid, bytes]:
    """Return the grid and the engine's parameters. Raises CorruptStream if the bytes do not begin with a grid."""
    if len(parameters) < _HEADER.size:
        raise CorruptStream("The near_lossless parameters end within their header.")
    version, step, minimum, span = _HEADER.unpack_from(parameters)
    first = 1
    if version == _VERSION_OF_ODD_STEPS:
        first = step = 2 * step + 1
    elif version != VERSION:
        raise CorruptStream(f"The near_lossless parameters are of version {version}: unknown.")
    if not 2 <= step <= _WIDEST:
        raise CorruptStream(f"The near_lossless parameters have a step of {step}: no encoder writes it.")
    return _Grid(step, first, minimum, span), bytes(parameters[_HEADER.size :])
