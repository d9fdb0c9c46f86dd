"""A stored data set as native little endian, for peers that accept nothing else (PS3.5 8.2, 10.1; PS3.4 B.4.1)."""

import io
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from thinfilm_gateway.dicom.decoders import (
    Decoder,
    PixelDescription,
    UndecodableFrame,
    decode_frame,
    decoder_of,
    frames,
    pack_bits,
)
from thinfilm_gateway.dicom.element_tree import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    Bytes,
    Elements,
    Encoding,
    Fragments,
    Generated,
    MalformedElements,
    encode,
    inflate,
    parse,
)

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_TARGETS = {IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE, EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE}
_NATIVE = {
    **_TARGETS,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
}
_LONGEST_VALUE = 0xFFFFFFFE
_LONGEST_INFLATED = 2 * 1024**3

_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_PLANAR_CONFIGURATION = 0x00280006
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
_BITS_STORED = 0x00280101
_PIXEL_REPRESENTATION = 0x00280103
_OF_ENCAPSULATION = (0x7FE00001, 0x7FE00002, 0x7FE00003)  # offset table, lengths, total length: encapsulated only


class CannotTranscode(Exception):
    """The data set cannot be given in the target syntax; the message is one sentence for an operator."""


def to_native(dataset: Bytes, transfer_syntax_uid: str, target_uid: str) -> bytes:
    """Return the data set in Explicit or Implicit VR Little Endian, its pixels decoded.

    dataset: the encoded data set, without preamble and group 0002. UIDs and all attributes stay, except those that
    describe the encoding: group lengths and offset tables go, Photometric Interpretation and Planar Configuration
    become those of the decoded pixels. Lossy JPEG colour becomes RGB. Raises CannotTranscode.
    """
    target = io.BytesIO()
    write_native(dataset, transfer_syntax_uid, target_uid, target)
    return target.getvalue()


def write_native(dataset: Bytes, transfer_syntax_uid: str, target_uid: str, target: IO[bytes]) -> None:
    """Do what to_native does into a file: no more than one decoded frame is in memory."""
    if target_uid not in _TARGETS:
        raise CannotTranscode(
            f"Objects are transcoded to Explicit or Implicit VR Little Endian only, not to {target_uid}."
        )
    try:
        elements = _read(dataset, transfer_syntax_uid)
        for part in encode(elements, _TARGETS[target_uid]):
            target.write(part)
    except (MalformedElements, UndecodableFrame) as error:
        raise CannotTranscode(str(error)) from error


def read_elements(dataset: Bytes, transfer_syntax_uid: str) -> Elements:
    """Parse a data set, in the encoding that is declared or in another that fits. Raises MalformedElements."""
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        dataset = inflate(dataset, _LONGEST_INFLATED)
    return _parse(dataset, _NATIVE.get(transfer_syntax_uid, EXPLICIT_LITTLE))


def _read(dataset: Bytes, transfer_syntax_uid: str) -> Elements:
    """Parse the data set and replace encapsulated Pixel Data by its decoded frames."""
    decoder = decoder_of(transfer_syntax_uid)
    if transfer_syntax_uid not in _NATIVE and decoder is None:
        raise CannotTranscode(f"There is no decoder for transfer syntax {transfer_syntax_uid}.")
    elements = read_elements(dataset, transfer_syntax_uid)
    if decoder is not None:
        _decode_pixels(elements, decoder)
    return elements


def _parse(dataset: Bytes, declared: Encoding) -> Elements:
    """Parse in the declared encoding, or in another that fits: some senders declare wrongly."""
    first_error: MalformedElements | None = None
    for encoding in dict.fromkeys((declared, EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)):
        try:
            return parse(dataset, encoding)
        except MalformedElements as error:
            first_error = first_error or error
    raise first_error or AssertionError


def _decode_pixels(elements: Elements, decoder: Decoder) -> None:
    """Make the Pixel Data of a data set and of its nested items (icons) native."""
    for element in elements.elements:
        if isinstance(element.value, list):
            for item in element.value:
                _decode_pixels(item, decoder)
    pixel_data = elements.get(PIXEL_DATA)
    if pixel_data is None or not isinstance(pixel_data.value, Fragments):
        return
    encapsulated = pixel_data.value
    pixels = _describe(elements)
    streams = frames(encapsulated, pixels.frames)

    def decoded() -> Iterator[Bytes]:
        yield from _native_bytes((decode_frame(decoder, stream, pixels) for stream in streams), pixels)
        if pixels.nbytes % 2:
            yield b"\0"

    elements.put(
        PIXEL_DATA, "OW" if pixels.bits_allocated > 8 else "OB", Generated(pixels.nbytes + pixels.nbytes % 2, decoded)
    )
    photometric = decoder.photometric(pixels)
    if photometric != pixels.photometric_interpretation:
        elements.put(_PHOTOMETRIC_INTERPRETATION, "CS", photometric.encode("ascii"))
    if pixels.samples_per_pixel > 1:
        elements.put(_PLANAR_CONFIGURATION, "US", b"\0\0")
    for tag in _OF_ENCAPSULATION:
        elements.drop(tag)


def _native_bytes(
    decoded: "Iterable[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]", pixels: PixelDescription
) -> Iterator[Bytes]:
    """Yield the value of native Pixel Data, without its padding byte."""
    if pixels.bits_allocated > 1:
        for frame in decoded:
            yield frame.tobytes()
        return
    pending = np.empty(0, np.uint8)  # frames of 1-bit samples need not end at a byte
    for frame in decoded:
        bits = np.concatenate((pending, frame.astype(np.uint8)))
        whole = len(bits) // 8 * 8
        yield pack_bits(bits[:whole])
        pending = bits[whole:]
    if len(pending):
        yield pack_bits(pending)


def _describe(elements: Elements) -> PixelDescription:
    """Read the Image Pixel attributes. Raises UndecodableFrame where they make no image."""
    frames_text = elements.text(_NUMBER_OF_FRAMES)
    bits_allocated = elements.number(_BITS_ALLOCATED) or 0
    pixels = PixelDescription(
        rows=elements.number(_ROWS) or 0,
        columns=elements.number(_COLUMNS) or 0,
        samples_per_pixel=elements.number(_SAMPLES_PER_PIXEL) or 1,
        photometric_interpretation=elements.text(_PHOTOMETRIC_INTERPRETATION),
        bits_allocated=bits_allocated,
        bits_stored=elements.number(_BITS_STORED) or bits_allocated,
        signed=elements.number(_PIXEL_REPRESENTATION) == 1,
        frames=max(1, int(frames_text)) if frames_text.isdecimal() else 1,
    )
    if bits_allocated not in (1, 8, 16, 32) or not pixels.frame_samples or pixels.bits_stored > bits_allocated:
        raise UndecodableFrame("The Image Pixel attributes describe no image.")
    if pixels.nbytes > _LONGEST_VALUE:
        raise UndecodableFrame(
            f"Decoded, the Pixel Data is {pixels.nbytes} bytes, more than a native element can hold."
        )
    return pixels
