"""Encapsulated frames to native samples: one decoder a family of transfer syntaxes (PS3.5 8.2, Annexes A.4 and G)."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from thinfilm_gateway.dicom.element_tree import Fragments

Samples = npt.NDArray[Any]


class UndecodableFrame(Exception):
    """A frame cannot be decoded; the message is one sentence."""


@dataclass(frozen=True)
class PixelDescription:
    """The Image Pixel attributes (PS3.3 C.7.6.3) that native Pixel Data is laid out by."""

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    frames: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a decoded sample; 1-bit samples are decoded to bytes."""
        size = max(8, self.bits_allocated)
        return np.dtype(f"<{'i' if self.signed and size > 1 else 'u'}{size // 8}")

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return self.rows * self.columns * self.samples_per_pixel

    @property
    def nbytes(self) -> int:
        """Bytes of the native Pixel Data without padding."""
        return (self.frames * self.frame_samples * self.bits_allocated + 7) // 8


@dataclass(frozen=True)
class Decoder:
    """How frames of a transfer syntax become samples.

    decode: one frame to (rows, columns[, samples]) or an array of as many samples, colour-by-pixel.
    photometric: the Photometric Interpretation of the decoded samples, by the one of the stream.
    """

    decode: Callable[[bytes, PixelDescription], Samples]
    photometric: Callable[[PixelDescription], str]


def frames(encapsulated: Fragments, count: int) -> list[bytes]:
    """Gather the fragments of each frame (PS3.5 A.4).

    Follows the Basic Offset Table where there is one; without, one fragment a frame, or a new frame wherever a fragment
    begins a stream. Raises UndecodableFrame if that does not give `count` frames.
    """
    parts = encapsulated.fragments
    if count == 1:
        return [b"".join(parts)]
    if len(parts) == count:
        return [bytes(part) for part in parts]
    starts = _table_starts(encapsulated) or [
        i
        for i, part in enumerate(parts)
        if bytes(part[:3]) == b"\xff\xd8\xff" or bytes(part[:4]) == b"\xff\x4f\xff\x51"
    ]
    if len(starts) != count or starts[0] != 0:
        raise UndecodableFrame(f"The {len(parts)} fragments cannot be divided into {count} frames.")
    return [b"".join(parts[start:end]) for start, end in zip(starts, [*starts[1:], len(parts)], strict=True)]


def _table_starts(encapsulated: Fragments) -> list[int]:
    """Return the index of each frame's first fragment by the Basic Offset Table; empty where it is absent or wrong."""
    table = encapsulated.offset_table
    offsets = struct.unpack(f"<{len(table) // 4}L", bytes(table[: len(table) // 4 * 4]))
    places: dict[int, int] = {}
    position = 0
    for index, part in enumerate(encapsulated.fragments):
        places[position] = index
        position += 8 + len(part)
    if any(offset not in places for offset in offsets):
        return []
    return [places[offset] for offset in offsets]


def decoder_of(transfer_syntax_uid: str) -> Decoder | None:
    """Return the decoder of an encapsulated transfer syntax; None where there is none (video, JPIP, private)."""
    return _DECODERS.get(transfer_syntax_uid)


def decode_frame(decoder: Decoder, stream: bytes, pixels: PixelDescription) -> Samples:
    """Return one frame: an array of pixels.frame_samples samples of pixels.dtype.

    Raises UndecodableFrame if the stream is damaged or does not have the shape that the data set says.
    """
    try:
        decoded = np.asarray(decoder.decode(stream, pixels))
    except UndecodableFrame:
        raise
    except Exception as error:  # each library has its own errors, and all mean the same here
        raise UndecodableFrame(f"The frame cannot be decoded: {error}".rstrip(".") + ".") from error
    shape = (pixels.rows, pixels.columns, pixels.samples_per_pixel)
    if decoded.size != pixels.frame_samples or (decoded.ndim > 1 and decoded.shape[:2] != shape[:2]):
        raise UndecodableFrame(f"The frame decodes to {decoded.shape} samples, but the data set says {shape}.")
    return _fit(decoded.reshape(-1), pixels)


def _fit(decoded: Samples, pixels: PixelDescription) -> Samples:
    """Give the samples their native type; sign-extend what the stream kept as unsigned."""
    if decoded.dtype.itemsize > pixels.dtype.itemsize:
        limits = np.iinfo(pixels.dtype)
        unsigned_high = 2**pixels.bits_allocated - 1
        high = limits.max if decoded.dtype.kind == "i" else unsigned_high
        if decoded.size and (int(decoded.max()) > high or int(decoded.min()) < limits.min):
            raise UndecodableFrame(f"The frame has samples that do not fit {pixels.bits_allocated} bits.")
    if pixels.signed and decoded.dtype.kind == "u" and pixels.bits_stored < pixels.dtype.itemsize * 8:
        shift = pixels.dtype.itemsize * 8 - pixels.bits_stored
        return (decoded.astype(pixels.dtype) << shift) >> shift
    return decoded.astype(pixels.dtype, copy=False)


def pack_bits(samples: Samples) -> bytes:
    """Pack samples of 0 and 1 as 1-bit Pixel Data: the first in the lowest bit (PS3.5 8.1.1)."""
    return np.packbits(samples.astype(np.uint8), bitorder="little").tobytes()


def _lossy_jpeg(stream: bytes, pixels: PixelDescription) -> Samples:
    """JPEG processes 1, 2 and 4, 8 and 12 bits; colour comes out as RGB."""
    if pixels.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode(stream)
    coded = "RGB" if _coded_as_rgb(stream, pixels) else "YCBCR"
    return imagecodecs.jpeg8_decode(stream, colorspace=coded, outcolorspace="RGB")


def _coded_as_rgb(stream: bytes, pixels: PixelDescription) -> bool:
    """Tell the colour space of a JPEG: by its Adobe marker, else by what the data set says."""
    position = 2
    while position + 4 <= len(stream) and stream[position] == 0xFF and stream[position + 1] != 0xDA:
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[position + 1] == 0xEE and length >= 14 and stream[position + 4 : position + 9] == b"Adobe":
            return stream[position + 15] == 0
        position += 2 + length
    return pixels.photometric_interpretation == "RGB"


def _lossless_jpeg(stream: bytes, pixels: PixelDescription) -> Samples:
    """JPEG process 14: components as they are, without any colour transform."""
    if pixels.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode(stream)
    return imagecodecs.jpeg8_decode(stream, colorspace="RGB", outcolorspace="RGB")


def _rle(stream: bytes, pixels: PixelDescription) -> Samples:
    """RLE Lossless (PS3.5 Annex G): one PackBits segment for each byte of each sample, most significant first."""
    count, *offsets = struct.unpack_from("<16L", stream)
    sample_bytes = max(1, pixels.bits_allocated // 8)
    if count != sample_bytes * pixels.samples_per_pixel or count > 15:
        raise UndecodableFrame(f"The RLE frame has {count} segments where the data set asks for another number.")
    size = pixels.rows * pixels.columns
    planes = np.empty((size, pixels.samples_per_pixel, sample_bytes), np.uint8)
    for segment, (start, end) in enumerate(zip(offsets[:count], [*offsets[1:count], len(stream)], strict=True)):
        plane = np.empty(size, np.uint8)
        if len(imagecodecs.packbits_decode(stream[start:end], out=plane)) != size:  # type: ignore[arg-type]
            raise UndecodableFrame("An RLE segment is too short.")
        sample, significance = divmod(segment, sample_bytes)
        planes[:, sample, sample_bytes - 1 - significance] = plane
    return planes.reshape(-1).view(pixels.dtype)


def _raw(stream: bytes, pixels: PixelDescription) -> Samples:
    """Native frames in fragments (Encapsulated Uncompressed, PS3.5 A.4.11)."""
    if pixels.bits_allocated == 1:
        return np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")[: pixels.frame_samples]
    return np.frombuffer(stream, pixels.dtype, pixels.frame_samples)


def _deflated(stream: bytes, pixels: PixelDescription) -> Samples:
    """Deflated Image Frame Compression (PS3.5 A.4.13), no more than a frame's bytes."""
    return _raw(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, pixels.frame_samples * 8 + 8), pixels)


def _as_coded(pixels: PixelDescription) -> str:
    """Name what samples mean that the decoder only freed of the stream's own subsampling or reversible transform."""
    return {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "XYB": "RGB", "YBR_FULL_422": "YBR_FULL"}.get(
        pixels.photometric_interpretation, pixels.photometric_interpretation
    )


def _as_rgb(pixels: PixelDescription) -> str:
    """Name what samples mean where colour comes out of the decoder as RGB."""
    return "RGB" if pixels.samples_per_pixel == 3 else pixels.photometric_interpretation


def _jpegls(stream: bytes, pixels: PixelDescription) -> Samples:
    del pixels
    return imagecodecs.jpegls_decode(stream)


def _jpeg2000(stream: bytes, pixels: PixelDescription) -> Samples:
    del pixels
    return imagecodecs.jpeg2k_decode(stream)


def _jpegxl(stream: bytes, pixels: PixelDescription) -> Samples:
    del pixels
    return imagecodecs.jpegxl_decode(stream, keeporientation=True)


_4 = "1.2.840.10008.1.2.4."
_DECODERS: dict[str, Decoder] = {
    "1.2.840.10008.1.2.1.98": Decoder(_raw, _as_coded),
    "1.2.840.10008.1.2.5": Decoder(_rle, _as_coded),
    "1.2.840.10008.1.2.8.1": Decoder(_deflated, _as_coded),
    **dict.fromkeys((_4 + "50", _4 + "51"), Decoder(_lossy_jpeg, _as_rgb)),
    **dict.fromkeys((_4 + "57", _4 + "70"), Decoder(_lossless_jpeg, _as_coded)),
    **dict.fromkeys((_4 + "80", _4 + "81"), Decoder(_jpegls, _as_coded)),
    **dict.fromkeys(
        (_4 + "90", _4 + "91", _4 + "92", _4 + "93", _4 + "201", _4 + "202", _4 + "203"), Decoder(_jpeg2000, _as_coded)
    ),
    _4 + "110": Decoder(_jpegxl, _as_coded),
    **dict.fromkeys((_4 + "111", _4 + "112"), Decoder(_jpegxl, _as_rgb)),
}
