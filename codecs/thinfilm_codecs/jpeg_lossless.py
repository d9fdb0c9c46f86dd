"""The entropy-coded segment of a lossless JPEG as samples, and exactly back (ITU-T T.81, Annex H and K.2).

A lossless JPEG is a plain function of its samples, its Huffman tables and its predictor. So its samples can be kept by
a better codec, and its bytes made again.
"""

import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from thinfilm_codecs.blocks import SampleArray

_SOF3, _DHT, _SOI, _SOS, _DRI = 0xC3, 0xC4, 0xD8, 0xDA, 0xDD
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {_SOF3, _DHT, 0xC8}
_STANDALONE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers that begin no segment
_CATEGORIES = 17
_MOST_COMPONENTS = 4
_MOST_SAMPLES = 1 << 27
_BAND_SAMPLES = 1 << 17  # coded at a time: their arrays of 64 bits stay in the cache

Planes = npt.NDArray[np.int32]
"""(rows, columns, components)"""


@dataclass(frozen=True)
class HuffmanTable:
    """A table as it stands in a DHT segment: how many codes each of the 16 lengths has, and their symbols in order."""

    counts: bytes
    symbols: bytes

    def __post_init__(self) -> None:
        if len(self.counts) != 16 or sum(self.counts) != len(self.symbols):
            raise ValueError("A Huffman table has as many symbols as its 16 counts tell.")
        if len(set(self.symbols)) != len(self.symbols) or max(self.symbols, default=0) >= _CATEGORIES:
            raise ValueError("A Huffman table of lossless JPEG has each category of 0 to 16 once at most.")
        if sum(count << (15 - length) for length, count in enumerate(self.counts)) > 1 << 16:
            raise ValueError("A Huffman table has more codes than there is room for.")

    @cached_property
    def codes(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Code and length by category; a category without a code has length 0 (T.81 Annex C)."""
        codes, lengths = np.zeros(_CATEGORIES, np.uint64), np.zeros(_CATEGORIES, np.int64)
        code = place = 0
        for length, count in enumerate(self.counts, 1):
            for symbol in self.symbols[place : place + count]:
                codes[symbol], lengths[symbol] = code, length
                code += 1
            place += count
            code <<= 1
        return codes, lengths


@dataclass(frozen=True)
class ScanCoding:
    """What makes the bytes of a scan from its samples.

    precision: bits of a sample. predictor: selection value 1 to 7. padding: the bit that fills the last byte.
    tables: one for each component.
    """

    precision: int
    predictor: int
    padding: int
    tables: tuple[HuffmanTable, ...]

    def __post_init__(self) -> None:
        if not 2 <= self.precision <= 16 or not 1 <= self.predictor <= 7 or self.padding not in (0, 1):
            raise ValueError("A scan has a precision of 2 to 16, a predictor of 1 to 7 and a padding of 0 or 1.")
        if not 1 <= len(self.tables) <= _MOST_COMPONENTS:
            raise ValueError("A scan has a table for each of its 1 to 4 components.")

    def to_json(self) -> dict[str, Any]:
        """Return the coding as JSON values."""
        return {
            "precision": self.precision,
            "predictor": self.predictor,
            "padding": self.padding,
            "tables": [[table.counts.hex(), table.symbols.hex()] for table in self.tables],
        }

    @classmethod
    def from_json(cls, value: Any) -> "ScanCoding":
        """Return the coding of these JSON values. Raises ValueError if they are not one."""
        match value:
            case {
                "precision": int(precision),
                "predictor": int(predictor),
                "padding": int(padding),
                "tables": [*tables],
                **rest,
            } if not rest:
                return cls(precision, predictor, padding, tuple(_table(table) for table in tables))
        raise ValueError(f"Not the coding of a scan: {value!r}.")


def _table(value: Any) -> HuffmanTable:
    match value:
        case [str(counts), str(symbols)]:
            return HuffmanTable(bytes.fromhex(counts), bytes.fromhex(symbols))
    raise ValueError(f"Not a Huffman table: {value!r}.")


@dataclass(frozen=True, eq=False)
class Scan:
    """The one scan of a stream.

    samples: (rows, columns), or (rows, columns, components), uint8 or uint16. start, end: its bytes in the stream.
    """

    samples: SampleArray
    coding: ScanCoding
    start: int
    end: int


def open_scan(stream: bytes, shape: tuple[int, int, int]) -> Scan | None:
    """Return the scan of a lossless JPEG stream; None unless its bytes are proven to come back exactly.

    shape: rows, columns, components; a stream that declares others is not decoded, whatever it would take.
    """
    header = _header(stream)
    if header is None or header.shape != shape:
        return None
    start, tables = header.start, header.tables
    wanted = stream[start : max(stream.rfind(b"\xff\xd9"), start)].rstrip(b"\xff")  # a marker may have fill bytes
    # Each sample has a bit at least: no file of a few bytes may ask for gigabytes.
    if not wanted or math.prod(shape) > min(8 * len(wanted), _MOST_SAMPLES):
        return None
    try:
        samples = imagecodecs.jpeg_decode(stream)
    except imagecodecs.JpegError:
        return None
    if samples.dtype not in (np.uint8, np.uint16) or samples.shape[2:] not in ((), (len(tables),)):
        return None
    for padding in (1, 0):
        coding = ScanCoding(header.precision, header.predictor, padding, tables)
        try:
            if scan_bytes(samples, coding) == wanted:
                return Scan(samples, coding, start, start + len(wanted))
        except ValueError:
            return None
    return None


def scan_bytes(samples: SampleArray, coding: ScanCoding) -> bytes:
    """Return the entropy-coded segment of samples (rows, columns[, components]); bits above the precision count not.

    Raises ValueError for a difference that the tables have no code for, and where the components do not fit.
    """
    planes = samples.reshape(*samples.shape[:2], -1)
    if planes.shape[2] != len(coding.tables):
        raise ValueError("There is not one Huffman table for each component.")
    band = max(1, _BAND_SAMPLES // (planes.shape[1] * planes.shape[2]))
    writer = _BitWriter()
    for row in range(0, len(planes), band):
        above = max(row - 1, 0)
        known = planes[above : row + band].astype(np.int32) & ((1 << coding.precision) - 1)
        writer.write(*_codes(_differences(known, coding)[row - above :], coding.tables))
    return writer.finish(coding.padding)


def _differences(planes: Planes, coding: ScanCoding) -> Planes:
    """Return samples less their predictions, modulo 2^16, from -32767 to 32768 (T.81 H.1.2.1).

    The first row is right only if it is that of the frame.
    """
    predicted = np.empty_like(planes)
    predicted[1:, 1:] = _prediction(coding.predictor, planes[1:, :-1], planes[:-1, 1:], planes[:-1, :-1])
    predicted[0, 1:] = planes[0, :-1]
    predicted[1:, 0] = planes[:-1, 0]
    predicted[0, 0] = 1 << (coding.precision - 1)
    return ((planes - predicted + 32767) & 0xFFFF) - 32767


def _prediction(predictor: int, a: Planes, b: Planes, c: Planes) -> Planes:
    """Return the prediction from the left, upper and upper left neighbours (T.81 table H.1)."""
    match predictor:
        case 1:
            return a
        case 2:
            return b
        case 3:
            return c
        case 4:
            return a + b - c
        case 5:
            return a + ((b - c) >> 1)
        case 6:
            return b + ((a - c) >> 1)
    return (a + b) >> 1


def _codes(
    differences: Planes, tables: tuple[HuffmanTable, ...]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the bits of each difference, code and further bits, and how many they are (T.81 H.1.2.2)."""
    magnitudes = np.abs(differences)
    categories = np.frexp(magnitudes.astype(np.float32))[1].astype(np.int64)  # bits of the magnitude, exact below 2^24
    codes, lengths = np.empty(differences.shape, np.uint64), np.empty(differences.shape, np.int64)
    for component, table in enumerate(tables):
        table_codes, table_lengths = table.codes
        codes[..., component] = table_codes[categories[..., component]]
        lengths[..., component] = table_lengths[categories[..., component]]
    if not lengths.all():
        raise ValueError("A difference has no code in the Huffman table.")
    extra = np.where(categories == _CATEGORIES - 1, 0, categories)  # 32768 is the only one of its category
    further = (differences - (differences < 0)) & ((1 << extra) - 1)
    return (codes << extra.astype(np.uint64) | further.astype(np.uint64)).ravel(), (lengths + extra).ravel()


class _BitWriter:
    """Joins numbers of 1 to 32 bits, highest bit first, to bytes with a zero behind each 255 (T.81 F.1.2.3)."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._carry = 0
        self._carried = 0  # bits, fewer than 8

    def write(self, values: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> None:
        if self._carried:
            values = np.concatenate([np.array([self._carry], np.uint64), values])
            lengths = np.concatenate([np.array([self._carried], np.int64), lengths])
        octets, total = _packed(values, lengths)
        self._carried = total % 8
        if self._carried:
            self._carry = int(octets[-1]) >> (8 - self._carried)
        self._octets += octets[: total // 8].tobytes().replace(b"\xff", b"\xff\x00")

    def finish(self, padding: int) -> bytes:
        """Return all, the last byte filled up with the bit `padding`."""
        if self._carried:
            rest = np.array([self._carry, (1 << (8 - self._carried)) - 1 if padding else 0], np.uint64)
            self._carried, lengths = 0, np.array([self._carried, 8 - self._carried])
            self.write(rest, lengths)
        return bytes(self._octets)


def _packed(values: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], int]:
    """Return numbers of 1 to 32 bits one after another, highest bit first, in bytes, and how many bits they are."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    words = starts >> 6
    left = 64 - (starts & 63) - lengths  # bits of the word behind the number; negative: it goes on in the next word
    crossing = left < 0
    heads = np.where(
        crossing,
        values >> np.maximum(-left, 0).astype(np.uint64),
        values << np.maximum(left, 0).astype(np.uint64),
    )
    packed = np.zeros(words[-1] + 2, np.uint64)
    packed[:-1] = np.bitwise_or.reduceat(heads, np.flatnonzero(np.diff(words, prepend=-1)))  # one begins in each word
    packed[words[crossing] + 1] |= values[crossing] << (64 + left[crossing]).astype(np.uint64)
    total = int(ends[-1])
    return packed.astype(">u8").view(np.uint8)[: (total + 7) // 8], total


@dataclass(frozen=True)
class _Frame:
    """What a SOF3 segment says; components: their ids."""

    precision: int
    rows: int
    columns: int
    components: tuple[int, ...]


@dataclass(frozen=True)
class _Header:
    """What stands before the scan, which begins at `start`."""

    precision: int
    shape: tuple[int, int, int]
    predictor: int
    tables: tuple[HuffmanTable, ...]
    start: int


def _header(stream: bytes) -> _Header | None:
    """Return what stands before the scan of a stream that this module can make again."""
    tables: dict[int, HuffmanTable] = {}
    frame: _Frame | None = None
    position = 2
    try:
        if stream[:2] != bytes((0xFF, _SOI)):
            return None
        while True:
            mark, marker, length = struct.unpack_from(">BBH", stream, position)
            segment = stream[position + 4 : position + 2 + length]
            if mark != 0xFF or len(segment) != length - 2 or marker in _OTHER_FRAMES | _STANDALONE:
                return None
            position += 2 + length
            if marker == _DHT:
                tables |= _tables(segment)
            elif marker == _DRI and any(segment):
                return None
            elif marker == _SOF3:
                if frame is not None:
                    return None
                frame = _frame(segment)
            elif marker == _SOS:
                if frame is None:
                    return None
                predictor, wanted = _scan(segment, frame.components)
                used = tuple(tables[number] for number in wanted)
                shape = (frame.rows, frame.columns, len(frame.components))
                return _Header(frame.precision, shape, predictor, used, position)
    except (struct.error, IndexError, KeyError, ValueError):
        return None


def _tables(segment: bytes) -> dict[int, HuffmanTable]:
    """Return the tables of a DHT segment by destination."""
    found = {}
    while segment:
        counts = segment[1:17]
        end = 17 + sum(counts)
        found[segment[0]] = HuffmanTable(counts, segment[17:end])
        segment = segment[end:]
    return found


def _frame(segment: bytes) -> _Frame:
    """Read a SOF3 segment; ValueError where components are subsampled."""
    precision, rows, columns, count = struct.unpack_from(">BHHB", segment)
    components = [segment[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    if len({component[1] for component in components}) != 1 or (count > 1 and components[0][1] != 0x11):
        raise ValueError("The components are subsampled.")
    return _Frame(precision, rows, columns, tuple(component[0] for component in components))


def _scan(segment: bytes, components: tuple[int, ...]) -> tuple[int, list[int]]:
    """Return (predictor, table of each component) of an SOS segment; ValueError for a scan of another kind."""
    count = segment[0]
    selected = [segment[1 + 2 * i : 3 + 2 * i] for i in range(count)]
    predictor, end, approximation = segment[1 + 2 * count :]
    if tuple(component[0] for component in selected) != components or end or approximation:
        raise ValueError("The scan does not hold all components, or transforms points.")
    return predictor, [component[1] >> 4 for component in selected]
