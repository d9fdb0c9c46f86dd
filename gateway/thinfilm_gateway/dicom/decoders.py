"""Encapsulated frames to native samples: one decoder a family of transfer syntaxes (PS3.5 8.2, Annexes A.4 and G)."""

import itertools
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from thinfilm_gateway.dicom import coded_images
from thinfilm_gateway.dicom.budget import decode_budget
from thinfilm_gateway.dicom.coded_images import (
    CodedImage,
    UnreadableHeader,
    begins_jpeg,
    begins_jpeg2000,
    begins_jpegxl,
)
from thinfilm_gateway.dicom.element_tree import Fragments

Samples = npt.NDArray[Any]
Stream = Sequence[memoryview]
"""The fragments of a frame."""

_NEXT_STREAM = re.compile(rb"\xff\xd9\0*(?=\xff\xd8\xff|\xff\x4f\xff\x51)")
"""The end of a JPEG or JPEG 2000 stream and padding, where another follows; no coded data look like that."""

_RLE_HEADER_BYTES = 64
_MOST_RUN = 128  # bytes that two bytes of PackBits become at most
_MOST_DEFLATED = 1032  # bytes that one byte of a deflated stream becomes at most


class UndecodableFrame(Exception):
    """A frame cannot be decoded; the message is one sentence."""


@dataclass(frozen=True)
class PixelDescription:
    """The Image Pixel attributes (PS3.3 C.7.6.3) that native Pixel Data is laid out by.

    is_lossy: whether the data set says of itself that it was compressed lossily.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    frames: int
    is_lossy: bool = False

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
    look: what the header of a frame says; may raise UnreadableHeader or UndecodableFrame.
    begins: whether a frame begins with this fragment; None where that cannot be seen.
    may_lose: whether the transfer syntax allows lossy coding.
    """

    decode: Callable[[bytes, PixelDescription], Samples]
    photometric: Callable[[PixelDescription], str]
    look: Callable[[bytes, PixelDescription], CodedImage]
    begins: Callable[[memoryview], bool] | None = None
    may_lose: bool = False


def frames(encapsulated: Fragments, declared: int, begins: Callable[[memoryview], bool] | None) -> list[Stream]:
    """Return the fragments of each frame (PS3.5 A.4); there may be more or fewer frames than declared.

    begins: tells the first fragment of a frame from the others, where a frame may have several; None where its first
    bytes tell nothing. Raises UndecodableFrame where the fragments cannot be divided into frames, or there are none.
    """
    parts = encapsulated.fragments
    filled = [index for index, part in enumerate(parts) if len(part)]
    if not filled:
        raise UndecodableFrame("The Pixel Data has no frames.")
    begun = [index for index in filled if begins(parts[index])] if begins else []
    starts = _table_starts(encapsulated)
    if begun and not (declared == len(starts) > 1 and set(starts) <= set(begun)):  # a table of one frame tells nothing
        starts = begun
    elif len(starts) != declared:
        starts = filled[:1] if declared == 1 else filled
    if starts[0] > filled[0]:
        raise UndecodableFrame("The first fragment does not begin a frame.")
    found: list[Stream] = [parts[start:end] for start, end in zip(starts, [*starts[1:], len(parts)], strict=True)]
    return found if len(found) >= declared else [one for stream in found for one in _apart(stream)]


def _apart(stream: Stream) -> list[Stream]:
    """Divide fragments that hold several JPEG or JPEG 2000 streams, one behind the other."""
    joined = memoryview(b"".join(stream))
    cuts = [match.end() for match in _NEXT_STREAM.finditer(joined)]
    if not cuts:
        return [stream]
    return [[joined[start:end]] for start, end in itertools.pairwise([0, *cuts, len(joined)])]


def _table_starts(encapsulated: Fragments) -> list[int]:
    """Return the index of each frame's first fragment by the Basic Offset Table; empty where it is absent or wrong."""
    table = encapsulated.offset_table
    offsets = struct.unpack(f"<{len(table) // 4}L", bytes(table[: len(table) // 4 * 4]))
    places: dict[int, int] = {}
    position = 0
    for index, part in enumerate(encapsulated.fragments):
        places[position] = index
        position += 8 + len(part)
    starts = [places.get(offset, -1) for offset in offsets]
    return starts if starts == sorted(set(starts)) and -1 not in starts else []


def decoder_of(transfer_syntax_uid: str) -> Decoder | None:
    """Return the decoder of an encapsulated transfer syntax; None where there is none (video, JPIP, private)."""
    return _DECODERS.get(transfer_syntax_uid)


def decode_frame(decoder: Decoder, fragments: Stream, pixels: PixelDescription) -> Samples:
    """Return one frame: an array of pixels.frame_samples samples of pixels.dtype.

    Its memory comes out of the decode budget of the process. Raises UndecodableFrame if the stream is damaged, does not
    have the shape that the data set says, or needs more than the whole budget.
    """
    stream = b"".join(fragments)
    try:
        image = decoder.look(stream, pixels)
    except UnreadableHeader as error:
        raise UndecodableFrame(f"The frame cannot be decoded: {error}") from error
    if (image.rows, image.columns, image.components) != (pixels.rows, pixels.columns, pixels.samples_per_pixel):
        raise UndecodableFrame(
            f"The frame is {image.rows} x {image.columns} x {image.components} samples, but the data set says "
            f"{pixels.rows} x {pixels.columns} x {pixels.samples_per_pixel}."
        )
    budget = decode_budget()
    nbytes = len(stream) + image.working_bytes + image.samples * (_sample_bytes(image) + pixels.dtype.itemsize)
    if nbytes > budget.capacity_bytes:
        raise UndecodableFrame(
            f"To decode a frame takes {nbytes:,} bytes of memory, and decode_budget_bytes is "
            f"{budget.capacity_bytes:,}; raise it, or ask for the object as it was received."
        )
    with budget.taken(nbytes):
        try:
            decoded = np.asarray(decoder.decode(stream, pixels))
        except UndecodableFrame:
            raise
        except Exception as error:  # each library has its own errors, and all mean the same here
            raise UndecodableFrame(f"The frame cannot be decoded: {error}".rstrip(".") + ".") from error
        if decoded.size != pixels.frame_samples:
            raise UndecodableFrame(
                f"The frame decodes to {decoded.size} samples, but the data set says {pixels.frame_samples}."
            )
        if decoded.dtype.kind == "f":
            raise UndecodableFrame("The frame has floating-point samples, which Pixel Data cannot hold.")
        is_lossy = decoder.may_lose and (pixels.is_lossy or not image.reversible)
        return _fit(decoded.reshape(-1), pixels, clamped=is_lossy)


def _sample_bytes(image: CodedImage) -> int:
    """Return the bytes of a sample as a decoder gives it."""
    return 1 if image.precision <= 8 else 2 if image.precision <= 16 else 4


def _fit(decoded: Samples, pixels: PixelDescription, *, clamped: bool) -> Samples:
    """Give the samples their native type; sign-extend what the stream kept as unsigned.

    clamped: what lies beyond Bits Stored becomes the nearest value within, since lossy coding has put it there.
    """
    stored, bits = pixels.bits_stored, 8 * pixels.dtype.itemsize
    if pixels.signed and decoded.dtype.kind == "u" and stored < bits and int(decoded.max(initial=0)) < 1 << stored:
        return (decoded.astype(pixels.dtype) << (bits - stored)) >> (bits - stored)
    if clamped:
        if pixels.signed and decoded.dtype.kind == "u" and decoded.dtype.itemsize == pixels.dtype.itemsize:
            decoded = decoded.view(pixels.dtype)
        low = -(1 << stored - 1) if pixels.signed else 0
        high = (1 << stored - pixels.signed) - 1
        limits = np.iinfo(decoded.dtype)
        return np.clip(decoded, max(low, limits.min), min(high, limits.max)).astype(pixels.dtype, copy=False)
    if decoded.dtype.itemsize > pixels.dtype.itemsize:
        limits = np.iinfo(pixels.dtype)
        high = limits.max if decoded.dtype.kind == "i" else 2**pixels.bits_allocated - 1
        if decoded.size and (int(decoded.max()) > high or int(decoded.min()) < limits.min):
            raise UndecodableFrame(f"The frame has samples that do not fit {pixels.bits_allocated} bits.")
    return decoded.astype(pixels.dtype, copy=False)


def pack_bits(samples: Samples) -> bytes:
    """Pack samples of 0 and 1 as 1-bit Pixel Data: the first in the lowest bit (PS3.5 8.1.1)."""
    return np.packbits(samples.astype(np.uint8), bitorder="little").tobytes()


def _look_at_jpeg(stream: bytes, pixels: PixelDescription) -> CodedImage:
    del pixels
    return coded_images.jpeg(stream)


def _lossy_jpeg(stream: bytes, pixels: PixelDescription) -> Samples:
    """JPEG processes 1, 2, 4, 6, 8, 10 and 12, 8 and 12 bits; colour comes out as RGB, or as CMYK."""
    if pixels.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode(stream)
    coded = coded_images.jpeg_colour(stream) or ("RGB" if pixels.photometric_interpretation == "RGB" else "YCBCR")
    return imagecodecs.jpeg8_decode(
        stream, colorspace=coded, outcolorspace="CMYK" if pixels.samples_per_pixel == 4 else "RGB"
    )


def _lossless_jpeg(stream: bytes, pixels: PixelDescription) -> Samples:
    """JPEG process 14: components as they are, without any colour transform, whatever markers tell of one."""
    if pixels.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode(stream)
    space = "CMYK" if pixels.samples_per_pixel == 4 else "RGB"
    return imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space)


def _as_described(pixels: PixelDescription, working_bytes: int = 0) -> CodedImage:
    """Return what the data set says, of a frame whose stream tells nothing of its shape."""
    shape = (pixels.rows, pixels.columns, pixels.samples_per_pixel)
    return CodedImage(*shape, pixels.bits_allocated, reversible=True, working_bytes=working_bytes)


def _segments(stream: bytes, pixels: PixelDescription) -> list[bytes]:
    """Return the segments of an RLE frame (PS3.5 G.5). Raises UndecodableFrame where it has others than it should."""
    if len(stream) < _RLE_HEADER_BYTES:
        raise UndecodableFrame("The RLE frame is shorter than its header.")
    count, *offsets = struct.unpack_from("<16L", stream)
    wanted = max(1, pixels.bits_allocated // 8) * pixels.samples_per_pixel
    if count != wanted or count > 15:
        raise UndecodableFrame(f"The RLE frame has {count} segments where the data set asks for {wanted}.")
    return [stream[start:end] for start, end in itertools.pairwise([*offsets[:count], len(stream)])]


def _look_at_rle(stream: bytes, pixels: PixelDescription) -> CodedImage:
    least = -(-pixels.rows * pixels.columns * min(pixels.bits_allocated, 8) // 8)
    if any(len(segment) * _MOST_RUN < 2 * least for segment in _segments(stream, pixels)):
        raise UndecodableFrame("An RLE segment is too short.")
    return _as_described(pixels, pixels.rows * pixels.columns)


def _rle(stream: bytes, pixels: PixelDescription) -> Samples:
    """RLE Lossless (PS3.5 Annex G): one PackBits segment for each byte of each sample, most significant first."""
    size = pixels.rows * pixels.columns
    segments = _segments(stream, pixels)
    if pixels.bits_allocated == 1:  # packed as native ones are; some writers give each sample a byte
        plane = _unpacked(segments[0], size)
        if len(plane) == size:
            return np.minimum(plane, 1)
        return _raw(plane.tobytes(), pixels)
    sample_bytes = pixels.dtype.itemsize
    planes = np.empty((size, pixels.samples_per_pixel, sample_bytes), np.uint8)
    for number, segment in enumerate(segments):
        plane = _unpacked(segment, size)
        if len(plane) != size:
            raise UndecodableFrame("An RLE segment is too short.")
        sample, significance = divmod(number, sample_bytes)
        planes[:, sample, sample_bytes - 1 - significance] = plane
    samples: Samples = planes.reshape(-1).view(pixels.dtype)
    return samples


def _unpacked(segment: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Return the first `size` bytes of a PackBits segment; what lies behind them is padding."""
    plane = np.empty(size, np.uint8)
    decode: Any = imagecodecs.packbits_decode  # whose annotation knows bytes alone
    try:
        filled: npt.NDArray[np.uint8] = decode(segment, out=plane)
    except imagecodecs.PackbitsError:  # has more in it, or ends within a run
        filled = decode(_without_surplus(segment, size), out=plane)
    return filled


def _without_surplus(segment: bytes, size: int) -> bytes:
    """Cut a PackBits segment behind the run that completes `size` bytes, and that run to its length (PS3.5 G.3.2)."""
    position = made = 0
    while position < len(segment):
        control = segment[position]
        if control == 128:
            position += 1
            continue
        run = control + 1 if control < 128 else 257 - control
        if made + run >= size:
            left = size - made
            if control < 128:
                last = bytes([left - 1]) + segment[position + 1 : position + 1 + left]
            else:
                last = bytes([257 - left if left > 1 else 0]) + segment[position + 1 : position + 2]
            return segment[:position] + last
        made += run
        position += 2 + (control if control < 128 else 0)
    return segment


def begins_rle(part: memoryview) -> bool:
    """Tell whether an RLE frame begins here: the header of G.5 with segments one behind the other."""
    if len(part) < _RLE_HEADER_BYTES:
        return False
    count, *offsets = struct.unpack_from("<16L", part)
    used, unused = offsets[:count], offsets[count:]
    return 1 <= count <= 15 and used[0] == _RLE_HEADER_BYTES and used == sorted(set(used)) and not any(unused)


def _look_at_raw(stream: bytes, pixels: PixelDescription) -> CodedImage:
    if len(stream) * 8 < pixels.frame_samples * pixels.bits_allocated:
        raise UndecodableFrame("The frame has fewer bytes than the data set asks for.")
    return _as_described(pixels)


def _raw(stream: bytes, pixels: PixelDescription) -> Samples:
    """Native frames in fragments (Encapsulated Uncompressed, PS3.5 A.4.11)."""
    if pixels.bits_allocated == 1:
        return np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")[: pixels.frame_samples]
    return np.frombuffer(stream, pixels.dtype, pixels.frame_samples)


def _look_at_deflated(stream: bytes, pixels: PixelDescription) -> CodedImage:
    if len(stream) * _MOST_DEFLATED * 8 < pixels.frame_samples * pixels.bits_allocated:
        raise UndecodableFrame("The deflated frame is too short.")
    return _as_described(pixels)


def _deflated(stream: bytes, pixels: PixelDescription) -> Samples:
    """Deflated Image Frame Compression (PS3.5 A.4.13), no more than a frame's bytes."""
    frame_bytes = (pixels.frame_samples * pixels.bits_allocated + 7) // 8
    return _raw(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, frame_bytes), pixels)


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


def _look_at_jpeg2000(stream: bytes, pixels: PixelDescription) -> CodedImage:
    del pixels
    return coded_images.jpeg2000(stream)


def _jpeg2000(stream: bytes, pixels: PixelDescription) -> Samples:
    del pixels
    return imagecodecs.jpeg2k_decode(coded_images.jpeg2000_codestream(stream))


def _look_at_jpegxl(stream: bytes, pixels: PixelDescription) -> CodedImage:
    del pixels
    return coded_images.jpegxl(stream)


def _jpegxl(stream: bytes, pixels: PixelDescription) -> Samples:
    del pixels
    return imagecodecs.jpegxl_decode(stream, keeporientation=True)


_LOSSY_JPEG = Decoder(_lossy_jpeg, _as_rgb, _look_at_jpeg, begins_jpeg, may_lose=True)
_LOSSLESS_JPEG = Decoder(_lossless_jpeg, _as_coded, _look_at_jpeg, begins_jpeg)
_JPEG_LS = Decoder(_jpegls, _as_coded, _look_at_jpeg, begins_jpeg)
_JPEG_2000 = Decoder(_jpeg2000, _as_coded, _look_at_jpeg2000, begins_jpeg2000)
_JPEG_XL = Decoder(_jpegxl, _as_coded, _look_at_jpegxl, begins_jpegxl)

_4 = "1.2.840.10008.1.2.4."
_DECODERS: dict[str, Decoder] = {
    "1.2.840.10008.1.2.1.98": Decoder(_raw, _as_coded, _look_at_raw),
    "1.2.840.10008.1.2.5": Decoder(_rle, _as_coded, _look_at_rle, begins_rle),
    "1.2.840.10008.1.2.8.1": Decoder(_deflated, _as_coded, _look_at_deflated),
    **dict.fromkeys((_4 + "50", _4 + "51", _4 + "53", _4 + "55"), _LOSSY_JPEG),
    **dict.fromkeys((_4 + "57", _4 + "70"), _LOSSLESS_JPEG),
    _4 + "80": _JPEG_LS,
    _4 + "81": replace(_JPEG_LS, may_lose=True),
    **dict.fromkeys((_4 + "90", _4 + "92", _4 + "201", _4 + "202"), _JPEG_2000),
    **dict.fromkeys((_4 + "91", _4 + "93", _4 + "203"), replace(_JPEG_2000, may_lose=True)),
    _4 + "110": _JPEG_XL,
    **dict.fromkeys((_4 + "111", _4 + "112"), replace(_JPEG_XL, photometric=_as_rgb, may_lose=True)),
}
