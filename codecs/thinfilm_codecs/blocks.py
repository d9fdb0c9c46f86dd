"""PixelBlock: the integer samples a codec sees, and what their axes mean."""

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SampleArray = npt.NDArray[Any]

SAMPLE_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")


class FrameAxis(enum.Enum):
    """What a step along the frame axis is."""

    SPACE = "space"  # the next slice of a volume
    TIME = "time"  # the same place, later: cine, fMRI, perfusion
    NONE = "none"  # frames that are not known to be neighbours


@dataclass(frozen=True)
class BlockLayout:
    """All a decoder must know of a block besides its stream: (frames, rows, columns, components) and the sample type.

    components: samples a pixel, colour-by-pixel; 1 for monochrome.
    dtype: one of SAMPLE_DTYPES, host byte order.
    """

    frames: int
    rows: int
    columns: int
    components: int
    dtype: str

    def __post_init__(self) -> None:
        if min(self.frames, self.rows, self.columns, self.components) < 1:
            raise ValueError(f"Each dimension of a block is at least 1; got {self.shape}.")
        if self.dtype not in SAMPLE_DTYPES:
            raise ValueError(f"Samples are one of {', '.join(SAMPLE_DTYPES)}; got {self.dtype}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, rows, columns), with a last axis of components where there is more than one."""
        shape = (self.frames, self.rows, self.columns)
        return shape if self.components == 1 else (*shape, self.components)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.frames * self.rows * self.columns * self.components

    @property
    def nbytes(self) -> int:
        """Bytes of the samples, uncompressed."""
        return self.samples * np.dtype(self.dtype).itemsize

    def with_frames(self, frames: int) -> "BlockLayout":
        """Return the same layout with another number of frames."""
        return BlockLayout(frames, self.rows, self.columns, self.components, self.dtype)


@dataclass(frozen=True, eq=False)
class PixelBlock:
    """Frames of one layout, in the order in which a predictor should see them.

    samples: (frames, rows, columns) or (frames, rows, columns, components); a SAMPLE_DTYPES dtype, host byte order.
        May lie in a memory map: a codec reads it a few frames at a time.
    bits_stored: significant bits of a sample by its header; a hint, since the bits above may carry data too.
    spacing: (between frames, between rows, between columns) in mm, where known.
    """

    samples: SampleArray
    bits_stored: int
    frame_axis: FrameAxis = FrameAxis.NONE
    spacing: tuple[float, float, float] | None = None

    @property
    def layout(self) -> BlockLayout:
        """The layout a decoder needs. Raises ValueError where the samples have none."""
        shape = self.samples.shape
        if len(shape) not in (3, 4):
            raise ValueError(f"Samples are (frames, rows, columns[, components]); got {len(shape)} axes.")
        components = shape[3] if len(shape) == 4 else 1
        return BlockLayout(shape[0], shape[1], shape[2], components, self.samples.dtype.name)

    def frames(self, first: int, count: int) -> "PixelBlock":
        """Return a view of `count` frames from `first` on."""
        return PixelBlock(self.samples[first : first + count], self.bits_stored, self.frame_axis, self.spacing)
