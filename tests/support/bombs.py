"""Small objects that ask for much: what a decoder that believes them would need gigabytes for."""

import struct
import zlib
from collections.abc import Sequence

import imagecodecs
import numpy as np

from support.datasets import (
    DEFLATED,
    US_IMAGE,
    Attributes,
    EncodedDataSet,
    Syntax,
    deflate,
    element,
    encode,
    finish,
    fragments,
    image_attributes,
    instance,
)

JPEG_BASELINE, JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.55"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
JPEG_XL = "1.2.840.10008.1.2.4.110"
RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"

HUGE = 65_500


def image(
    transfer_syntax_uid: str, streams: Sequence[bytes], rows: int = 64, columns: int = 64, **changes: object
) -> EncodedDataSet:
    """Return an object whose data set says so many rows and columns, and whose frames are these streams."""
    attributes: Attributes = {
        **instance(US_IMAGE, "US", f"{transfer_syntax_uid} {rows} {columns} {zlib.crc32(b''.join(streams))}"),
        **image_attributes(np.zeros((64, 64), np.uint16)),
        "Rows": rows,
        "Columns": columns,
        **changes,
    }
    padded = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    return finish(attributes, transfer_syntax_uid, tail=fragments(padded))


def sized_jpeg(stream: bytes, rows: int, columns: int, marker: int) -> bytes:
    """Return a JPEG or JPEG-LS stream whose frame header tells another size."""
    at = stream.index(bytes((0xFF, marker))) + 5
    return stream[:at] + struct.pack(">HH", rows, columns) + stream[at + 4 :]


def lossless_jpeg(rows: int = HUGE, columns: int = HUGE, bits: int = 12) -> bytes:
    """Return a lossless JPEG of nothing but first codes, each a bit long."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    table = segment(0xC4, b"\0" + bytes((1, *[0] * 15)) + b"\0")
    frame = segment(0xC3, struct.pack(">BHHB", bits, rows, columns, 1) + b"\1\x11\0")
    scan = segment(0xDA, b"\1\1\0\1\0\0")
    return b"\xff\xd8" + table + frame + scan + bytes(512) + b"\xff\xd9"


def jpeg2000(
    width: int,
    height: int,
    tile: tuple[int, int] | None = None,
    levels: int = 5,
    precinct: int | None = None,
    layers: int = 1,
) -> bytes:
    """Return a JPEG 2000 codestream of empty packets."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">HH", marker, len(content) + 2) + content

    tile_width, tile_height = tile or (width, height)
    size = struct.pack(">HLLLLLLLLH", 0, width, height, 0, 0, tile_width, tile_height, 0, 0, 1) + b"\x0f\1\1"
    coding = struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, levels, 4, 4, 0, 1)
    coding += b"" if precinct is None else bytes([precinct]) * (levels + 1)
    quantisation = b"\x40" + b"\x48" * (3 * levels + 1)
    tile_part = struct.pack(">HHHLBB", 0xFF90, 10, 0, 0, 0, 1) + b"\xff\x93" + bytes(60)
    header = segment(0xFF51, size) + segment(0xFF52, coding) + segment(0xFF5C, quantisation)
    return b"\xff\x4f" + header + tile_part + b"\xff\xd9"


def deflated_zeros(nbytes: int) -> bytes:
    """Return so many zeros, deflated."""
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [compressor.compress(bytes(min(1 << 20, nbytes - done))) for done in range(0, nbytes, 1 << 20)]
    return b"".join((*parts, compressor.flush()))


def deflated_data_set(nbytes: int, piece_bytes: int | None = None) -> EncodedDataSet:
    """Return a deflated data set of private zeros, in one element or in many."""
    attributes = instance(US_IMAGE, "US", f"deflated {nbytes} {piece_bytes}")
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [compressor.compress(encode(attributes, Syntax()))]
    parts.append(compressor.compress(element(0x00990010, "LO", b"NOBODY", Syntax())))
    piece = piece_bytes or nbytes
    for number in range(nbytes // piece):
        group, place = divmod(number, 0xF0)
        tag = (0x0099 + 2 * (group + 1)) << 16 | 0x1000 + place
        parts.append(compressor.compress(struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"OB", 0, piece)))
        parts += [compressor.compress(bytes(min(1 << 20, piece - done))) for done in range(0, piece, 1 << 20)]
    parts.append(compressor.flush())
    encoded = b"".join(parts)
    return EncodedDataSet(
        encoded + b"\0" * (len(encoded) % 2),
        DEFLATED,
        str(attributes["SOPClassUID"]),
        str(attributes["SOPInstanceUID"]),
    )


def deflated_items(count: int, *, delimited: bool) -> EncodedDataSet:
    """Return a deflated data set whose one sequence has so many empty items."""
    attributes = instance(US_IMAGE, "US", f"items {count} {delimited}")
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    if delimited:
        item = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0xFFFFFFFF, 0xFFFE, 0xE00D, 0)
    sequence = struct.pack("<HH2sHL", 0x0099, 0x1010, b"SQ", 0, len(item) * count) + item * count
    encoded = deflate(encode(attributes, Syntax()) + element(0x00990010, "LO", b"NOBODY", Syntax()) + sequence)
    return EncodedDataSet(encoded, DEFLATED, str(attributes["SOPClassUID"]), str(attributes["SOPInstanceUID"]))


def all_bombs() -> dict[str, EncodedDataSet]:
    """Return a bomb of each kind, by a name for messages."""
    grey = np.zeros((64, 64), np.uint16)
    small = grey.astype(np.uint8)
    baseline = sized_jpeg(bytes(imagecodecs.jpeg8_encode(small)), HUGE, HUGE, 0xC0)
    jpeg_ls = sized_jpeg(bytes(imagecodecs.jpegls_encode(grey)), HUGE, HUGE, 0xF7)
    jpeg_xl = bytes(imagecodecs.jpegxl_encode(np.zeros((8000, 8000), np.uint16), lossless=True, effort=1))
    byte = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    everything = {"rows": HUGE, "columns": HUGE}
    run_header = struct.pack("<16L", 2, 64, 70, *[0] * 13)
    return {
        "lossless JPEG of another size": image(JPEG_LOSSLESS, [lossless_jpeg()]),
        "lossless JPEG of the size told": image(JPEG_LOSSLESS, [lossless_jpeg()], **everything),
        "JPEG of another size": image(JPEG_BASELINE, [baseline], **byte),
        "JPEG of the size told": image(JPEG_BASELINE, [baseline], **byte, **everything),
        "JPEG-LS of another size": image(JPEG_LS, [jpeg_ls]),
        "JPEG-LS of the size told": image(JPEG_LS, [jpeg_ls], **everything),
        "JPEG 2000 of another size": image(JPEG_2000, [jpeg2000(20_000, 20_000)]),
        "JPEG 2000 of the size told": image(JPEG_2000, [jpeg2000(20_000, 20_000)], 20_000, 20_000),
        "JPEG 2000 of tiny tiles": image(JPEG_2000, [jpeg2000(255, 255, (1, 1), levels=0)], 255, 255),
        "JPEG 2000 of tiny precincts": image(JPEG_2000, [jpeg2000(4000, 4000, levels=0, precinct=0)], 4000, 4000),
        "JPEG 2000 of many layers": image(JPEG_2000, [jpeg2000(64, 64, levels=3, precinct=0x11, layers=65_535)]),
        "HTJ2K of another size": image(HTJ2K, [jpeg2000(20_000, 20_000)]),
        "JPEG XL of another size": image(JPEG_XL, [jpeg_xl]),
        "JPEG XL of the size told": image(JPEG_XL, [jpeg_xl], 8000, 8000),
        "RLE of a few runs": image(RLE, [run_header + b"\x81\0" * 6], **everything),
        "RLE of a huge segment": image(RLE, [struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 4_000_000], **byte),
        "deflated frame that grows": image(DEFLATED_FRAME, [deflated_zeros(1 << 30)]),
        "deflated frame of the size told": image(DEFLATED_FRAME, [deflated_zeros(1 << 20)], **everything),
        "frames without end": image(JPEG_LOSSLESS, [lossless_jpeg(64, 64)], NumberOfFrames="2000000000"),
        "deflated data set": deflated_data_set(640 << 20),
        "deflated data set of many elements": deflated_data_set(640 << 20, 64 << 10),
        "deflated empty items": deflated_items(1_200_000, delimited=False),
        "deflated empty items with delimiters": deflated_items(1_200_000, delimited=True),
        "empty fragments": image(JPEG_LOSSLESS, [b""] * 1_200_000),
        "deflated data set, deflated once more": EncodedDataSet(
            deflate(deflated_data_set(64 << 20).dataset), DEFLATED, US_IMAGE, "1.2.3"
        ),
    }
