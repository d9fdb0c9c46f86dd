"""What the image codecs share: a group of frames becomes one tall unsigned image of as few bits as its range needs.

Format: docs/formats/classical.md.
"""

import struct
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from thinfilm_codecs.blocks import BlockLayout, PixelBlock, SampleArray
from thinfilm_codecs.codec import Codec
from thinfilm_codecs.errors import CorruptStream, UnsupportedPixels
from thinfilm_codecs.lossless.grouping import frames_in
from thinfilm_codecs.lossless.sealed import seal, unseal

_HEADER = struct.Struct("<BBBq")
_VERSION = 1


@dataclass(frozen=True)
class SampleRange:
    """Where the samples of a group lie: sample = minimum + (image value << shift), image values below 2**bits."""

    minimum: int
    shift: int
    bits: int

    def fits(self, dtype: str) -> bool:
        """Tell whether every sample of this range is a value of the type."""
        limits = np.iinfo(dtype)
        return (
            limits.min <= self.minimum <= limits.max
            and self.bits + self.shift <= limits.bits
            and (self.bits > 0 or self.shift == 0)
        )


class TallImageCodec(Codec):
    """A lossless codec for groups of frames, stacked along the rows and coded as one two-dimensional image.

    A subclass codes images of shape (rows, columns) or (rows, columns, 3): uint8 for ranges of up to 8 bits, else
    uint16, else (if `max_bits` allows) uint32.
    """

    max_bits: ClassVar[int] = 16
    """Most bits of range the library keeps."""

    max_rows: ClassVar[int]
    max_columns: ClassVar[int]
    """Size of the largest image the library keeps."""

    def supports(self, layout: BlockLayout) -> bool:
        """Tell whether frames of this layout are monochrome or three-component images that fit the codec."""
        return layout.components in (1, 3) and layout.rows <= self.max_rows and layout.columns <= self.max_columns

    def frames_per_group(self, layout: BlockLayout) -> int:
        """Return as many frames as make about 256 KiB and fit the image height."""
        return frames_in(layout, self.max_rows // layout.rows)

    def encode(self, group: PixelBlock, parameters: bytes) -> bytes:
        """Code the group. Raises UnsupportedPixels for a layout or a range that the codec cannot keep."""
        del parameters
        layout = group.layout
        if not self.supports(layout) or layout.frames * layout.rows > self.max_rows:
            raise UnsupportedPixels(f"{self.codec_id} cannot code blocks of shape {layout.shape}.")
        image, sample_range = _to_image(group.samples, self.max_bits)
        if sample_range.bits > self.max_bits:
            raise UnsupportedPixels(
                f"{self.codec_id} keeps ranges of {self.max_bits} bits; these samples need {sample_range.bits}."
            )
        header = _HEADER.pack(_VERSION, sample_range.shift, sample_range.bits, sample_range.minimum)
        tall = image.reshape(_tall_shape(layout))
        return seal(header + (self._encode_image(tall, sample_range.bits) if sample_range.bits else b""))

    def decode(self, stream: bytes, layout: BlockLayout, parameters: bytes) -> SampleArray:
        """Return the samples of the group. Raises CorruptStream for bytes that are no such stream."""
        del parameters
        payload = unseal(stream)
        if len(payload) < _HEADER.size:
            raise CorruptStream(f"The {self.codec_id} stream ends within its header.")
        version, shift, bits, minimum = _HEADER.unpack_from(payload)
        sample_range = SampleRange(minimum, shift, bits)
        if version != _VERSION:
            raise CorruptStream(f"The {self.codec_id} stream is of version {version}; this decoder knows {_VERSION}.")
        if not self.supports(layout) or bits > self.max_bits or not sample_range.fits(layout.dtype):
            raise CorruptStream(f"The {self.codec_id} stream does not fit blocks of {layout.shape} {layout.dtype}.")
        body = payload[_HEADER.size :]
        if bits == 0:
            if body:
                raise CorruptStream(f"The {self.codec_id} stream of a constant group has an image.")
            return np.full(layout.shape, minimum, layout.dtype)
        image = np.empty(_tall_shape(layout), _image_dtype(bits))
        self._decode_image(body, image, bits)
        return _from_image(image, sample_range, layout)

    @abstractmethod
    def _encode_image(self, image: SampleArray, bits: int) -> bytes:
        """Code one image, C-contiguous, of values below 2**bits. Raises UnsupportedPixels if the library refuses it."""

    @abstractmethod
    def _decode_image(self, stream: bytes, image: SampleArray, bits: int) -> None:
        """Fill the image. Raises CorruptStream if the stream is not one of an image of this shape and type.

        Must look at the size that the stream declares before anything is allocated for it.
        """


def _tall_shape(layout: BlockLayout) -> tuple[int, ...]:
    shape = (layout.frames * layout.rows, layout.columns)
    return shape if layout.components == 1 else (*shape, layout.components)


def _image_dtype(bits: int) -> str:
    return "uint8" if bits <= 8 else "uint16" if bits <= 16 else "uint32"


def _to_image(samples: SampleArray, max_bits: int) -> tuple[SampleArray, SampleRange]:
    """Return the samples as a new unsigned array without offset and without low bits that are never used."""
    minimum, maximum = int(samples.min()), int(samples.max())
    bits = (maximum - minimum).bit_length()
    unsigned = samples.astype(f"uint{8 * samples.dtype.itemsize}", order="C")
    unsigned -= unsigned.dtype.type(minimum % (1 << 8 * samples.dtype.itemsize))  # wraps as two's complement does
    used = int(np.bitwise_or.reduce(unsigned, axis=None))
    shift = (used & -used).bit_length() - 1 if used else 0
    if shift:
        unsigned >>= unsigned.dtype.type(shift)
        bits -= shift
    if bits <= max_bits:
        unsigned = unsigned.astype(_image_dtype(bits), copy=False)
    return unsigned, SampleRange(minimum, shift, bits)


def _from_image(image: SampleArray, sample_range: SampleRange, layout: BlockLayout) -> SampleArray:
    bits = np.iinfo(layout.dtype).bits
    unsigned = image.astype(f"uint{bits}", copy=False)
    if sample_range.shift:
        unsigned <<= unsigned.dtype.type(sample_range.shift)
    if sample_range.minimum:
        unsigned += unsigned.dtype.type(sample_range.minimum % (1 << bits))
    return unsigned.view(layout.dtype).reshape(layout.shape)


def library_obstacle(codec_id: str, library: Any) -> str | None:
    """Return the sentence that says that imagecodecs was built without this library of its, None where it has it."""
    if library.available:
        return None
    return f"The {codec_id} codec is missing in this build of imagecodecs; install imagecodecs from its wheel."
