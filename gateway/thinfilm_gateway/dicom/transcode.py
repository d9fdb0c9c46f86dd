"""A stored data set as native little endian, for peers that accept nothing else (PS3.5 8.2, 10.1; PS3.4 B.4.1)."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO

import numpy as np

from thinfilm_gateway.dicom.dataset import UnreadableDataSet, outline
from thinfilm_gateway.dicom.decoders import (
    Decoder,
    PixelDescription,
    Samples,
    Stream,
    UndecodableFrame,
    decode_frame,
    decoder_of,
    frames,
    pack_bits,
)
from thinfilm_gateway.dicom.element_tree import (
    Bytes,
    Elements,
    Fragments,
    Generated,
    encode,
    parse,
)
from thinfilm_gateway.dicom.elements import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    MalformedElements,
    Octets,
    declared_encoding,
)
from thinfilm_gateway.dicom.identity import why_another
from thinfilm_gateway.dicom.inflating import DEFLATED, SYSTEM_SCRATCH, DamagedDeflation, Scratch, inflated
from thinfilm_gateway.dicom.mapped import PIECE_BYTES, let_go
from thinfilm_gateway.dicom.tags import (
    BITS_ALLOCATED,
    BITS_STORED,
    COLUMNS,
    FILE_META_GROUP,
    ICON_IMAGE_SEQUENCE,
    LOSSY_IMAGE_COMPRESSION,
    NUMBER_OF_FRAMES,
    OF_ENCAPSULATION,
    PHOTOMETRIC_INTERPRETATION,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    PLANAR_CONFIGURATION,
    ROWS,
    SAMPLES_PER_PIXEL,
)

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_TARGETS = {IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE, EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE}
_NATIVE = (*_TARGETS, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
_LONGEST_VALUE = 0xFFFFFFFE


class CannotTranscode(Exception):
    """The data set cannot be given in the target syntax; the message is one sentence for an operator."""


def to_native(dataset: Bytes, transfer_syntax_uid: str, target_uid: str) -> bytes:
    """Return the data set in Explicit or Implicit VR Little Endian, its pixels decoded.

    dataset: the encoded data set, without preamble and group 0002. UIDs and all attributes stay, except those that
    describe the encoding: group lengths, elements of a file header and offset tables go, Photometric Interpretation,
    Planar Configuration and Number of Frames become those of the decoded pixels. Lossy JPEG colour becomes RGB. An icon
    that cannot be decoded is left out. Raises CannotTranscode, CannotInflate.
    """
    target = io.BytesIO()
    write_native(dataset, transfer_syntax_uid, target_uid, target)
    with target.getbuffer() as native:
        check_native(dataset, transfer_syntax_uid, native, target_uid)
    return target.getvalue()


def write_native(
    dataset: Bytes, transfer_syntax_uid: str, target_uid: str, target: IO[bytes], scratch: Scratch = SYSTEM_SCRATCH
) -> None:
    """Do what to_native does into a file, without its check: no more than one decoded frame is in memory.

    scratch: where a deflated data set is inflated. Raises CannotTranscode, CannotInflate, OSError of the file.
    """
    if target_uid not in _TARGETS:
        raise CannotTranscode(
            f"Objects are transcoded to Explicit or Implicit VR Little Endian only, not to {target_uid}."
        )
    try:
        elements = _read(dataset, transfer_syntax_uid, scratch)
        read = 0
        for part in encode(elements, _TARGETS[target_uid]):
            for start in range(0, len(part), PIECE_BYTES):
                piece = memoryview(part)[start : start + PIECE_BYTES]
                target.write(piece)
                read += len(piece)
                if read >= PIECE_BYTES:
                    let_go(piece)
                    read = 0
    except (MalformedElements, UndecodableFrame) as error:
        raise CannotTranscode(str(error)) from error


def check_native(
    dataset: Bytes, transfer_syntax_uid: str, native: Octets, target_uid: str, scratch: Scratch = SYSTEM_SCRATCH
) -> None:
    """Read what write_native has made of a data set, as a receiver will, and see that it is the same object.

    Raises CannotTranscode if it is not, CannotInflate.
    """
    try:
        difference = why_another(outline(dataset, transfer_syntax_uid, scratch), outline(native, target_uid))
    except UnreadableDataSet as error:
        raise CannotTranscode(f"What was made of the object cannot be read: {error}") from error
    if difference:
        raise CannotTranscode(difference)


def read_elements(dataset: Bytes, transfer_syntax_uid: str, scratch: Scratch = SYSTEM_SCRATCH) -> Elements:
    """Parse a data set, in the encoding that is declared or in another that fits.

    scratch: where a deflated data set is inflated. Raises MalformedElements, CannotInflate.
    """
    if transfer_syntax_uid in DEFLATED:
        try:
            dataset = memoryview(inflated(dataset, scratch))
        except DamagedDeflation as error:
            raise MalformedElements(str(error)) from error
    return parse(dataset, declared_encoding(transfer_syntax_uid))


def _read(dataset: Bytes, transfer_syntax_uid: str, scratch: Scratch) -> Elements:
    """Parse the data set and replace encapsulated Pixel Data by its decoded frames."""
    decoder = decoder_of(transfer_syntax_uid)
    if transfer_syntax_uid not in _NATIVE and decoder is None:
        raise CannotTranscode(f"There is no decoder for transfer syntax {transfer_syntax_uid}.")
    elements = read_elements(dataset, transfer_syntax_uid, scratch)
    elements.drop_group(FILE_META_GROUP)
    if decoder is not None:
        _decode_icons(elements, decoder)
        _decode_pixels(elements, decoder)
    return elements


def _decode_icons(elements: Elements, decoder: Decoder) -> None:
    """Make the Pixel Data of nested items native, now.

    An icon that cannot be decoded is left out, with all of its sequence: the image can do without. Raises
    UndecodableFrame for what is none.
    """
    for element in list(elements.elements):
        if not isinstance(element.value, list):
            continue
        try:
            for item in element.value:
                _decode_icons(item, decoder)
                _decode_pixels(item, decoder)
                pixel_data = item.get(PIXEL_DATA)
                if pixel_data is not None and isinstance(pixel_data.value, Generated):
                    pixel_data.value = b"".join(pixel_data.value.chunks())
        except UndecodableFrame:
            if element.tag != ICON_IMAGE_SEQUENCE and not element.tag >> 16 & 1:
                raise
            elements.drop(element.tag)


def _decode_pixels(elements: Elements, decoder: Decoder) -> None:
    """Make the Pixel Data of a data set or item native; its frames are decoded while they are written."""
    pixel_data = elements.get(PIXEL_DATA)
    if pixel_data is None or not isinstance(pixel_data.value, Fragments):
        return
    pixels = _describe(elements)
    streams = frames(pixel_data.value, pixels.frames, decoder.begins)
    if len(streams) != pixels.frames:
        pixels = replace(pixels, frames=len(streams))
        number = str(len(streams)).encode("ascii")
        elements.put(NUMBER_OF_FRAMES, "IS", number + b" " * (len(number) % 2))
    if pixels.nbytes > _LONGEST_VALUE:
        raise UndecodableFrame(
            f"Decoded, the Pixel Data is {pixels.nbytes} bytes, more than a native element can hold."
        )

    def decoded() -> Iterator[Bytes]:
        yield from _native_bytes(_decoded_frames(decoder, streams, pixels), pixels)
        if pixels.nbytes % 2:
            yield b"\0"

    elements.put(
        PIXEL_DATA, "OW" if pixels.bits_allocated > 8 else "OB", Generated(pixels.nbytes + pixels.nbytes % 2, decoded)
    )
    photometric = decoder.photometric(pixels)
    if photometric != pixels.photometric_interpretation:
        elements.put(PHOTOMETRIC_INTERPRETATION, "CS", photometric.encode("ascii"))
    if pixels.samples_per_pixel > 1:
        elements.put(PLANAR_CONFIGURATION, "US", b"\0\0")
    for tag in OF_ENCAPSULATION:
        elements.drop(tag)


def _decoded_frames(decoder: Decoder, streams: Sequence[Stream], pixels: PixelDescription) -> Iterator[Samples]:
    """Give the decoded frames; a frame that cannot be decoded is named by its number."""
    for number, stream in enumerate(streams, 1):
        try:
            yield decode_frame(decoder, stream, pixels)
        except UndecodableFrame as error:
            if len(streams) == 1:
                raise
            raise UndecodableFrame(f"Of {len(streams)} frames, number {number} fails: {error}") from error


def _native_bytes(decoded: Iterable[Samples], pixels: PixelDescription) -> Iterator[Bytes]:
    """Yield the value of native Pixel Data, without its padding byte."""
    if pixels.bits_allocated > 1:
        for frame in decoded:
            yield frame.data.cast("B")
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
    frames_text = elements.text(NUMBER_OF_FRAMES)
    bits_allocated = elements.number(BITS_ALLOCATED) or 0
    pixels = PixelDescription(
        rows=elements.number(ROWS) or 0,
        columns=elements.number(COLUMNS) or 0,
        samples_per_pixel=elements.number(SAMPLES_PER_PIXEL) or 1,
        photometric_interpretation=elements.text(PHOTOMETRIC_INTERPRETATION),
        bits_allocated=bits_allocated,
        bits_stored=elements.number(BITS_STORED) or bits_allocated,
        signed=elements.number(PIXEL_REPRESENTATION) == 1,
        frames=max(1, int(frames_text)) if frames_text.isdecimal() else 1,
        is_lossy=elements.text(LOSSY_IMAGE_COMPRESSION) == "01",
    )
    if bits_allocated not in (1, 8, 16, 32) or not pixels.frame_samples or pixels.bits_stored > bits_allocated:
        raise UndecodableFrame("The Image Pixel attributes describe no image.")
    return pixels
