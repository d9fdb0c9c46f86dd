"""Native pixel data as sample arrays, and exactly back (PS3.5 section 8.1.1 and Annex D).

Samples are whole Bits Allocated words, so that unused high bits (old overlays, padding, garbage) are kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import FrameAxis, PixelBlock, SampleArray
from thinfilm_gateway.dicom.dataset import DataSetOutline, Span
from thinfilm_gateway.dicom.elements import Octets
from thinfilm_gateway.dicom.values import integer, numbers, text

_MAX_COPIED_BYTES = 256 * 1024 * 1024
"""Samples that cannot be a view of the data set (single bits, big endian) are made up to this size."""

_PROOF_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Packing:
    """How samples lie as bytes: what pixel_bytes needs besides the samples.

    bits_allocated: 1, 8, 16 or 32; single bits fill each byte from the lowest on, across rows and frames.
    big_endian: of samples of more than 8 bits. planar: all of one component in a frame before the next.
    """

    bits_allocated: int
    big_endian: bool
    planar: bool

    def __post_init__(self) -> None:
        if self.bits_allocated not in (1, 8, 16, 32):
            raise ValueError(f"Bits allocated are 1, 8, 16 or 32; got {self.bits_allocated}.")

    def to_json(self) -> dict[str, Any]:
        """Return the packing as JSON values."""
        return {"bits_allocated": self.bits_allocated, "big_endian": self.big_endian, "planar": self.planar}

    @classmethod
    def from_json(cls, value: Any) -> "Packing":
        """Return the packing of these JSON values. Raises ValueError if they are not one."""
        match value:
            case {"bits_allocated": int(bits), "big_endian": bool(big_endian), "planar": bool(planar), **rest} if (
                not rest and not isinstance(bits, bool)
            ):
                return cls(bits, big_endian, planar)
        raise ValueError(f"Not a packing: {value!r}.")


@dataclass(frozen=True, eq=False)
class NativePixels:
    """The frames of one data set, and the span of its bytes that they stand for.

    as_displayed: whether the samples are those that a viewer shows. Else they are the bytes as they lie, of which the
    order is another one or not known: as good to keep exactly, but not to be changed.
    """

    block: PixelBlock
    packing: Packing
    span: Span
    as_displayed: bool


def native_pixels(outline: DataSetOutline, dataset: Octets) -> NativePixels | None:
    """Return the samples of the native pixel data; None if there is none, or its bytes are better kept as they are.

    The samples are a view of `dataset` wherever their layout allows. pixel_bytes was proved to give the bytes of the
    span. Frames that are declared but missing are left out; bytes behind the last whole frame are outside the span.
    """
    if outline.pixel_data is None:
        return None
    attributes = outline.attributes
    rows, columns = integer(attributes, "Rows"), integer(attributes, "Columns")
    components = integer(attributes, "SamplesPerPixel") or 1
    declared_frames = integer(attributes, "NumberOfFrames") or 1
    bits_allocated = integer(attributes, "BitsAllocated")
    if rows is None or columns is None or bits_allocated not in (1, 8, 16, 32):
        return None
    if min(rows, columns, components, declared_frames) < 1 or (bits_allocated == 1 and components > 1):
        return None
    frame_samples = rows * columns * components
    frames = min(declared_frames, outline.pixel_data.length * 8 // (frame_samples * bits_allocated))
    if frames == 0 or _is_subsampled(outline):
        return None
    packing = Packing(
        bits_allocated,
        big_endian=not outline.little_endian and bits_allocated > 8,
        planar=components > 1 and integer(attributes, "PlanarConfiguration") == 1,
    )
    span = Span(outline.pixel_data.offset, (frames * frame_samples * bits_allocated + 7) // 8)
    if (bits_allocated == 1 or packing.big_endian) and frames * frame_samples * bits_allocated > _MAX_COPIED_BYTES:
        return None
    octets = np.frombuffer(dataset, np.uint8, span.length, span.offset)
    signed = integer(attributes, "PixelRepresentation") == 1 and bits_allocated > 1
    samples = _samples(octets, packing, signed, (frames, rows, columns, components))
    if not _gives_back(samples, packing, octets):
        return None
    bits_stored = min(max(integer(attributes, "BitsStored") or bits_allocated, 1), bits_allocated)
    block = PixelBlock(samples, bits_stored, frame_axis(outline, frames), spacing(outline))
    return NativePixels(block, packing, span, _is_order_plain(outline, bits_allocated))


def _is_order_plain(outline: DataSetOutline, bits_allocated: int) -> bool:
    """Tell whether samples lie in the order of bytes that `Packing` can say.

    In Big Endian, OW is a string of 16-bit words, each with its bytes swapped, whatever the samples within (PS3.5 7.3,
    8.1.2): two samples of 8 bits change places, one of 32 bits is two words. OB is never swapped.
    """
    if outline.little_endian:
        return True
    return bits_allocated == 16 if outline.pixel_data_vr == "OW" else bits_allocated <= 8


def pixel_bytes(samples: SampleArray, packing: Packing) -> bytes:
    """Return the encoded bytes of samples of shape (frames, rows, columns[, components]).

    The frames of a 1-bit image must come all at once, because a frame may end within a byte.
    """
    if packing.bits_allocated == 1:
        return np.packbits(samples.reshape(-1), bitorder="little").tobytes()
    if packing.planar:
        samples = np.moveaxis(samples, -1, 1)
    encoded = samples.dtype.newbyteorder(">" if packing.big_endian else "<")
    return samples.astype(encoded, copy=False).tobytes()


def _samples(
    octets: npt.NDArray[np.uint8], packing: Packing, signed: bool, shape: tuple[int, int, int, int]
) -> SampleArray:
    frames, rows, columns, components = shape
    samples: SampleArray
    if packing.bits_allocated == 1:
        return np.unpackbits(octets, count=frames * rows * columns, bitorder="little").reshape(frames, rows, columns)
    host = np.dtype(f"{'int' if signed else 'uint'}{packing.bits_allocated}")
    samples = octets.view(host.newbyteorder(">" if packing.big_endian else "<")).astype(host, copy=False)
    if components == 1:
        return samples.reshape(frames, rows, columns)
    if packing.planar:
        return np.moveaxis(samples.reshape(frames, components, rows, columns), 1, -1)
    return samples.reshape(frames, rows, columns, components)


def _gives_back(samples: SampleArray, packing: Packing, octets: npt.NDArray[np.uint8]) -> bool:
    """Tell whether pixel_bytes gives the bytes: the last byte of a 1-bit image may hold bits beyond the frames."""
    if packing.bits_allocated == 1:
        return pixel_bytes(samples, packing) == octets.tobytes()
    units = samples if packing.planar else samples.reshape(-1)
    unit_bytes = octets.size // len(units)
    step = max(1, _PROOF_BYTES // unit_bytes)
    return all(
        pixel_bytes(units[first : first + step], packing)
        == octets[first * unit_bytes : (first + step) * unit_bytes].tobytes()
        for first in range(0, len(units), step)
    )


def _is_subsampled(outline: DataSetOutline) -> bool:
    """Tell whether chrominance is halved, so that a pixel has two samples where three are declared."""
    return text(outline.attributes, "PhotometricInterpretation") in ("YBR_FULL_422", "YBR_PARTIAL_422")


def frame_axis(outline: DataSetOutline, frames: int) -> FrameAxis:
    """Return what the frames of an object follow one another in."""
    attributes = outline.attributes
    if frames == 1:
        return FrameAxis.NONE
    if numbers(attributes, "FrameTime") or numbers(attributes, "FrameTimeVector") or numbers(attributes, "CineRate"):
        return FrameAxis.TIME
    if numbers(attributes, "GridFrameOffsetVector") or numbers(attributes, "SpacingBetweenSlices"):
        return FrameAxis.SPACE
    return FrameAxis.NONE


def spacing(outline: DataSetOutline) -> tuple[float, float, float] | None:
    """Return the distances between slices, rows and columns, in mm, where the object tells them."""
    attributes = outline.attributes
    in_plane = numbers(attributes, "PixelSpacing")
    between = numbers(attributes, "SpacingBetweenSlices") or numbers(attributes, "SliceThickness")
    if len(in_plane) != 2 or len(between) != 1:
        return None
    return between[0], in_plane[0], in_plane[1]
