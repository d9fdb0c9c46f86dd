"""What the header of a coded frame says of its image, read before it is decoded: a few bytes may declare gigabytes.

JPEG: ITU-T T.81 Annex B. JPEG-LS: T.87 Annex C. JPEG 2000: T.800 Annexes A and I. JPEG XL: ISO 18181-1 and -2.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment: TEM, RST0 to RST7, SOI
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_PROGRESSIVE_SOF = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_LOSSLESS_SOF = frozenset((0xC3, 0xCB))
_SOF_JPEG_LS, _SOS, _EOI, _APP0, _APP14 = 0xF7, 0xDA, 0xD9, 0xE0, 0xEE

_SOC_SIZ = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_JXL_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_JXL_CODESTREAM = b"\xff\x0a"
_JXL_HEADER_BYTES = 64  # more than it takes up to what is read of it

# What OpenJPEG 2.5 holds besides the samples, measured, rounded up: bytes for each tile, component of a tile, precinct
# of a subband, code block.
_TILE_BYTES, _TILE_COMPONENT_BYTES, _PRECINCT_BYTES, _CODE_BLOCK_BYTES = 8000, 2200, 600, 450


class UnreadableHeader(Exception):
    """The bytes do not begin as a stream of their kind does; the message is one sentence."""


@dataclass(frozen=True)
class CodedImage:
    """What a stream says of its image.

    precision: bits of a sample. reversible: whether the samples are surely those that were coded.
    working_bytes: what a decoder may hold, at most, besides stream and samples.
    """

    rows: int
    columns: int
    components: int
    precision: int
    reversible: bool
    working_bytes: int = 0

    @property
    def samples(self) -> int:
        """Samples of the image."""
        return self.rows * self.columns * self.components


def jpeg_segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Give (marker, segment without its length) up to the first scan's, as decoders find them: garbage is skipped.

    Raises UnreadableHeader.
    """
    if stream[:2] != b"\xff\xd8":
        raise UnreadableHeader("The stream does not begin as JPEG does.")
    position = 2
    while True:
        found = stream.find(b"\xff", position)
        position = found + 1
        while stream[position : position + 1] == b"\xff":
            position += 1
        if found < 0 or position + 3 > len(stream):
            raise UnreadableHeader("The stream ends before its first scan.")
        marker = stream[position]
        position += 1
        if marker == 0 or marker in _STANDALONE:
            continue
        length = int.from_bytes(stream[position : position + 2], "big")
        segment = stream[position + 2 : position + length]
        if marker == _EOI or length < 2 or len(segment) != length - 2:
            raise UnreadableHeader("The stream ends before its first scan.")
        yield marker, segment
        if marker == _SOS:
            return
        position += length


def jpeg(stream: bytes) -> CodedImage:
    """Read the header of a JPEG or JPEG-LS stream. Raises UnreadableHeader."""
    found: CodedImage | None = None
    frame_marker = 0
    for marker, segment in jpeg_segments(stream):
        if marker in _SOF and len(segment) >= 6:
            if found is not None:
                raise UnreadableHeader("The stream has two frame headers.")
            frame_marker = marker
            precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
            coefficients = 2 * (rows + 31) * (columns + 31) * components if marker in _PROGRESSIVE_SOF else 0
            found = CodedImage(rows, columns, components, precision, marker in _LOSSLESS_SOF, coefficients)
        elif marker == _SOS and found is not None and frame_marker == _SOF_JPEG_LS:
            near = segment[1 + 2 * segment[0] :][:1] if segment else b""
            return CodedImage(found.rows, found.columns, found.components, found.precision, near == b"\0")
    if found is None:
        raise UnreadableHeader("The stream has no frame header.")
    return found


def jpeg_colour(stream: bytes) -> str | None:
    """Return the colour space that a JPEG stream itself tells, as libjpeg finds it: "YCBCR", "RGB", "CMYK" or "YCCK".

    A JFIF marker (T.871) counts before an Adobe marker, that before component ids of R, G and B; None without any.
    Raises UnreadableHeader.
    """
    components: tuple[int, ...] = ()
    jfif = False
    transform: int | None = None
    for marker, segment in jpeg_segments(stream):
        if marker == _APP0 and segment.startswith(b"JFIF\0") and len(segment) >= 14:
            jfif = True
        elif marker == _APP14 and segment.startswith(b"Adobe") and len(segment) >= 12:
            transform = segment[11]
        elif marker in _SOF and len(segment) >= 6:
            components = tuple(segment[6 : 6 + 3 * segment[5] : 3])
    if len(components) == 4:
        return "YCCK" if transform == 2 else "CMYK"
    if jfif:
        return "YCBCR"
    if transform is not None:
        return "RGB" if transform == 0 else "YCBCR"
    return "RGB" if components == tuple(b"RGB") else None


def jpeg2000_codestream(stream: bytes) -> bytes:
    """Return the codestream, out of the boxes around it if there are any: they mean nothing (PS3.5 8.2.4, A.4.4).

    Raises UnreadableHeader.
    """
    if stream.startswith(_SOC_SIZ):
        return stream
    if not stream.startswith(_JP2_SIGNATURE):
        raise UnreadableHeader("The stream does not begin as JPEG 2000 does.")
    for kind, content in _boxes(stream):
        if kind == b"jp2c" and content.startswith(_SOC_SIZ):
            return content
    raise UnreadableHeader("The boxes of the stream hold no JPEG 2000 codestream.")


def jpeg2000(stream: bytes) -> CodedImage:
    """Read the headers of a JPEG 2000 stream, those of all tiles too. Raises UnreadableHeader."""
    codestream = jpeg2000_codestream(stream)
    try:
        _, right, bottom, left, top, tile_width, tile_height, _, _, components = struct.unpack_from(
            ">H8LH", codestream, 6
        )
        depths = [codestream[42 + 3 * i] for i in range(components)]
        width, height = right - left, bottom - top
        tiles = math.ceil(right / tile_width) * math.ceil(bottom / tile_height)
        codings = [_Coding.read(marker, segment, components) for marker, segment in _codings(codestream)]
    except (struct.error, IndexError, ZeroDivisionError):
        raise UnreadableHeader("The header of the JPEG 2000 stream is damaged.") from None
    if not codings or not depths or min(width, height) < 1:
        raise UnreadableHeader("The header of the JPEG 2000 stream is damaged.")
    working = width * height * components * (4 if tiles == 1 else 8)
    working += tiles * (_TILE_BYTES + _TILE_COMPONENT_BYTES * components)
    working += components * max(coding.working_bytes(width, height, tiles) for coding in codings)
    reversible = all(coding.reversible for coding in codings)
    return CodedImage(height, width, components, max(depth & 0x7F for depth in depths) + 1, reversible, working)


@dataclass(frozen=True)
class _Coding:
    """What a COD or COC marker segment says (T.800 A.6.1, A.6.2)."""

    layers: int
    levels: int
    block: int  # exponents of its width and height, together
    reversible: bool
    precincts: tuple[tuple[int, int], ...]  # exponents of width and height, from the lowest resolution on

    @classmethod
    def read(cls, marker: int, segment: bytes, components: int) -> "_Coding":
        layers = 1
        if marker == 0x53:  # COC
            segment = segment[1 if components < 257 else 2 :]
            style, body = segment[0], segment[1:]
        else:
            style, layers, body = segment[0], int.from_bytes(segment[2:4], "big"), segment[5:]
        levels, block_width, block_height, _, transform = body[:5]
        sizes = body[5 : 6 + levels] if style & 1 else bytes([0xFF]) * (levels + 1)
        if len(sizes) != levels + 1 or levels > 32:
            raise IndexError
        precincts = tuple((size & 15, size >> 4) for size in sizes)
        return cls(layers, levels, (block_width & 15) + (block_height & 15) + 4, transform == 1, precincts)

    def working_bytes(self, width: int, height: int, tiles: int) -> int:
        """Return what is held for each component besides its samples, if all tiles are coded so."""
        precincts = blocks = most = 0
        for resolution, (across, down) in enumerate(self.precincts):
            scale = self.levels - resolution
            columns, rows = -(-width >> scale), -(-height >> scale)
            bands = 3 if resolution else 1
            inner = 2 if resolution else 0  # the subbands of a resolution have a quarter of its area each
            here = tiles + math.ceil(columns / 2**across) * math.ceil(rows / 2**down)
            area = max(min(self.block, across + down - inner), 0)
            blocks += bands * (here + (columns * rows >> inner + area))
            precincts += bands * here
            most = max(most, here)
        order = 2 * self.layers * (self.levels + 1) * most  # which packets have been read
        return precincts * _PRECINCT_BYTES + blocks * _CODE_BLOCK_BYTES + order


def _codings(codestream: bytes) -> Iterator[tuple[int, bytes]]:
    """Give (second byte of the marker, segment) of each COD and COC, of the main header and of all tile-parts."""
    position, tile_part_end = 2, 0
    while position + 4 <= len(codestream):
        marker, length = struct.unpack_from(">HH", codestream, position)
        if marker == 0xFFD9:  # EOC
            return
        if marker == 0xFF93:  # SOD: the data of a tile-part follow
            if not tile_part_end:
                return
            position = tile_part_end
            continue
        if marker >> 8 != 0xFF or length < 2:
            return
        if marker == 0xFF90:  # SOT
            (part_bytes,) = struct.unpack_from(">L", codestream, position + 6)
            tile_part_end = position + part_bytes if part_bytes >= 12 else 0
        elif marker in (0xFF52, 0xFF53):
            yield marker & 0xFF, codestream[position + 4 : position + 2 + length]
        position += 2 + length


def _boxes(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give (type, content) of each box of a JP2 or JPEG XL file."""
    position = 0
    while position + 8 <= len(stream):
        length, kind = struct.unpack_from(">L4s", stream, position)
        header = 8
        if length == 1 and position + 16 <= len(stream):
            (length,) = struct.unpack_from(">Q", stream, position + 8)
            header = 16
        end = len(stream) if length == 0 else position + length
        if end < position + header:
            return
        yield kind, stream[position + header : end]
        position = end


def jpegxl(stream: bytes) -> CodedImage:
    """Read the header of a JPEG XL stream. Raises UnreadableHeader, also for animations and what else is no image."""
    bits = _Bits(_jpegxl_codestream(stream)[2:])
    rows, columns = _jpegxl_size(bits)
    components, precision, reversible = 3, 8, False
    if not bits.read(1):  # not all is as by default
        if bits.read(1):  # extra fields
            bits.read(3)  # orientation, which is not followed
            if bits.read(1):  # a size that it is meant to be shown in
                _jpegxl_size(bits)
            if bits.read(2):
                raise UnreadableHeader("The JPEG XL stream is an animation, or has a preview.")
        if bits.read(1):
            precision = bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
            bits.read(4)
        else:
            precision = bits.choose((8, 0), (10, 0), (12, 0), (1, 6))
        bits.read(1)
        if extra := bits.choose((0, 0), (1, 0), (2, 4), (1, 12)):
            raise UnreadableHeader(f"The JPEG XL stream has {extra} channels besides its colours.")
        reversible = not bits.read(1)  # else in XYB, a colour space of lossy coding
        if not bits.read(1):
            bits.read(1)  # whether there is an ICC profile
            components = 1 if bits.choose((0, 0), (1, 0), (2, 4), (18, 6)) == 1 else 3
    return CodedImage(rows, columns, components, precision, reversible, 6 * rows * columns * components)


def _jpegxl_codestream(stream: bytes) -> bytes:
    """Return the codestream, or its beginning, out of the boxes around it if there are any."""
    if stream.startswith(_JXL_CODESTREAM):
        return stream
    if stream.startswith(_JXL_SIGNATURE):
        for kind, content in _boxes(stream):
            codestream = content[4:] if kind == b"jxlp" else content
            if kind in (b"jxlc", b"jxlp") and codestream.startswith(_JXL_CODESTREAM):
                return codestream
    raise UnreadableHeader("The stream does not begin as JPEG XL does.")


def _jpegxl_size(bits: "_Bits") -> tuple[int, int]:
    """Read a SizeHeader; return rows and columns."""
    small = bits.read(1)

    def side() -> int:
        return 8 * (bits.read(5) + 1) if small else bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

    rows = side()
    ratio = bits.read(3)
    if not ratio:
        return rows, side()
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return rows, rows * across // down


class _Bits:
    """Reads numbers from the lowest bit of each byte on, as JPEG XL has them."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0

    def read(self, count: int) -> int:
        """Return a number of `count` bits. Raises UnreadableHeader behind the last."""
        end = self._position + count
        if end > 8 * len(self._octets):
            raise UnreadableHeader("The header of the JPEG XL stream is cut off.")
        window = int.from_bytes(self._octets[self._position // 8 : (end + 7) // 8], "little")
        number = window >> self._position % 8 & (1 << count) - 1
        self._position = end
        return number

    def choose(self, *ways: tuple[int, int]) -> int:
        """Return a number that is told in one of four ways: least value and further bits (ISO 18181-1 U32)."""
        least, count = ways[self.read(2)]
        return least + self.read(count)


def begins_jpeg(part: memoryview) -> bool:
    """Tell whether a JPEG or JPEG-LS stream begins here."""
    return bytes(part[:3]) == b"\xff\xd8\xff"


def begins_jpeg2000(part: memoryview) -> bool:
    """Tell whether a JPEG 2000 stream begins here, with or without boxes."""
    return bytes(part[:4]) == _SOC_SIZ or bytes(part[:8]) == _JP2_SIGNATURE


def begins_jpegxl(part: memoryview) -> bool:
    """Tell whether a JPEG XL stream begins here, with or without boxes."""
    if bytes(part[:2]) != _JXL_CODESTREAM:
        return bytes(part[:12]) == _JXL_SIGNATURE
    try:
        jpegxl(bytes(part[:_JXL_HEADER_BYTES]))  # two bytes may be so by chance
    except UnreadableHeader:
        return False
    return True
