"""A whole data set as a tree of raw values, read and written in any encoding (PS3.5 7, Annex A).

Values are never interpreted beyond what a change of encoding asks for, so a bad value in one element does no harm to
the others.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from pydicom.datadict import dictionary_VR, private_dictionary_VR

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010

_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_BITS_ALLOCATED = 0x00280100
_PIXEL_REPRESENTATION = 0x00280103
_WAVEFORM_BITS_ALLOCATED = 0x54001004

_LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
_WORD_BYTES = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), 4),
    **dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), 8),
}
_DEEPEST = 48  # levels of nested sequences; real objects have fewer than ten

Bytes = bytes | memoryview


class MalformedElements(Exception):
    """The bytes are not a data set of the encoding; the message is one sentence."""


@dataclass(frozen=True)
class Encoding:
    """How the elements of a data set are laid out."""

    explicit: bool
    little_endian: bool = True


EXPLICIT_LITTLE = Encoding(explicit=True)
IMPLICIT_LITTLE = Encoding(explicit=False)
EXPLICIT_BIG = Encoding(explicit=True, little_endian=False)


@dataclass(frozen=True)
class Generated:
    """A value that is made while it is written.

    nbytes: its even length; chunks: gives the bytes-like parts that add up to it.
    """

    nbytes: int
    chunks: Callable[[], Iterable[Bytes]]


@dataclass(frozen=True)
class Fragments:
    """An encapsulated Pixel Data value (PS3.5 A.4): the Basic Offset Table, and the items after it."""

    offset_table: Bytes
    fragments: tuple[memoryview, ...]


Items = list["Elements"]
Value = Bytes | Items | Fragments | Generated


@dataclass
class Element:
    """One element; vr is what the source says, or the dictionary where the source is implicit."""

    tag: int
    vr: str
    value: Value


@dataclass
class Elements:
    """The elements of one data set or sequence item, in their order."""

    elements: list[Element] = field(default_factory=list)

    def get(self, tag: int) -> Element | None:
        """Return the element of this tag."""
        return next((element for element in self.elements if element.tag == tag), None)

    def number(self, tag: int) -> int | None:
        """Return the first value of a US element; None where there is none."""
        element = self.get(tag)
        if element is None or not isinstance(element.value, bytes | memoryview) or len(element.value) < 2:
            return None
        return int.from_bytes(element.value[:2], "little")

    def text(self, tag: int) -> str:
        """Return an ASCII value without its padding; empty where there is none."""
        element = self.get(tag)
        if element is None or not isinstance(element.value, bytes | memoryview):
            return ""
        return bytes(element.value).decode("latin_1").strip(" \0")

    def items(self, tag: int) -> "Items":
        """Return the items of a sequence; none where there is no such sequence."""
        element = self.get(tag)
        return element.value if element is not None and isinstance(element.value, list) else []

    def having(self, tag: int) -> Iterator["Elements"]:
        """Give these elements and those of all items below, however deep, where the tag is among them."""
        if self.get(tag) is not None:
            yield self
        for element in self.elements:
            for item in element.value if isinstance(element.value, list) else ():
                yield from item.having(tag)

    def put(self, tag: int, vr: str, value: Value) -> None:
        """Replace or insert an element."""
        self.drop(tag)
        position = next((i for i, element in enumerate(self.elements) if element.tag > tag), len(self.elements))
        self.elements.insert(position, Element(tag, vr, value))

    def drop(self, tag: int) -> None:
        """Remove the element if it is there."""
        self.elements = [element for element in self.elements if element.tag != tag]


def inflate(deflated: Bytes, limit: int) -> bytes:
    """Return the data set inside a deflated one (PS3.5 A.5). Raises MalformedElements, also above `limit` bytes."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = decompressor.decompress(deflated, limit)
    except zlib.error as error:
        raise MalformedElements(f"The deflated data set cannot be inflated: {error}.") from None
    if not decompressor.eof:
        raise MalformedElements(f"The deflated data set is truncated or inflates to more than {limit} bytes.")
    return inflated


def parse(data: Bytes, encoding: Encoding) -> Elements:
    """Read a whole data set; values are views of `data`, swapped to little endian where they were not.

    Group lengths are left out: they would be wrong after any change. Raises MalformedElements.
    """
    reader = _Reader(memoryview(data), encoding)
    return reader.elements(0, len(reader.data), None, 0)[0]


class _Reader:
    """Reads elements of one encoding from one buffer."""

    def __init__(self, data: memoryview, encoding: Encoding) -> None:
        self.data = data
        self.encoding = encoding
        order = "<" if encoding.little_endian else ">"
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "L")
        self._item = struct.Struct(order + "HHL")

    def elements(self, start: int, end: int, outer: Elements | None, depth: int) -> tuple[Elements, int]:
        """Read elements from `start` to `end`, or to an item delimiter; return them and where they ended."""
        if depth > _DEEPEST:
            raise MalformedElements(f"Sequences are nested more than {_DEEPEST} levels deep.")
        found = Elements()
        creators: dict[tuple[int, int], str] = {}
        position = start
        while position < end:
            if depth == 0 and not any(self.data[position : position + 8]) and not any(self.data[position:end]):
                break  # zero bytes after the last element
            if end - position < 8:
                raise MalformedElements(f"{end - position} stray bytes follow the last element.")
            tag, vr, length, value_start = self._header(position, end, creators)
            if tag == _ITEM_END:
                return found, value_start
            value, position = self._value(tag, vr, length, value_start, end, found, depth)
            if tag & 0xFFFF == 0:
                continue
            if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and isinstance(value, bytes | memoryview):
                creators[tag >> 16, tag & 0xFFFF] = bytes(value).decode("latin_1").strip(" \0")
            found.elements.append(Element(tag, _settled_vr(tag, vr, value, found, outer), value))
        return found, position

    def _header(self, position: int, end: int, creators: dict[tuple[int, int], str]) -> tuple[int, str, int, int]:
        """Return tag, VR, length, and where the value begins.

        An element without a VR among explicit ones is read as implicit.
        """
        group, number = self._tag.unpack_from(self.data, position)
        tag = group << 16 | number
        vr = bytes(self.data[position + 4 : position + 6])
        if group == 0xFFFE or not self.encoding.explicit or not (vr.isalpha() and vr.isupper()):
            (length,) = self._long.unpack_from(self.data, position + 4)
            return tag, _dictionary_vr(tag, creators), length, position + 8
        if vr.decode("ascii") not in _LONG_VRS:
            return tag, vr.decode("ascii"), self._short.unpack_from(self.data, position + 6)[0], position + 8
        if end - position < 12:
            raise MalformedElements(f"The header of {_name(tag)} is cut short.")
        return tag, vr.decode("ascii"), self._long.unpack_from(self.data, position + 8)[0], position + 12

    def _value(
        self, tag: int, vr: str, length: int, start: int, end: int, own: Elements, depth: int
    ) -> tuple[Value, int]:
        """Return the value and where the next element begins; own: the elements before it."""
        if length == UNDEFINED:
            if tag == PIXEL_DATA:
                return self._fragments(start, end)
            reader = _Reader(self.data, IMPLICIT_LITTLE) if vr == "UN" and self.encoding.explicit else self
            return reader.items(start, end, own, depth, delimited=True)
        if length > end - start:
            raise MalformedElements(f"{_name(tag)} claims {length} bytes, but only {end - start} are left.")
        stop = start + length
        if vr == "SQ":
            try:
                return self.items(start, stop, own, depth, delimited=False)
            except MalformedElements:
                if self.encoding.explicit:
                    raise
                return self.data[start:stop], stop  # the dictionary's guess was wrong: bytes of unknown VR
        if self.encoding.little_endian:
            return self.data[start:stop], stop
        return self._swapped(tag, vr, self.data[start:stop], own), stop

    @staticmethod
    def _swapped(tag: int, vr: str, value: memoryview, own: Elements) -> Bytes:
        """Turn a big endian value into a little endian one."""
        word = _WORD_BYTES.get(vr, 1)
        if tag == PIXEL_DATA and vr == "OW" and own.number(_BITS_ALLOCATED) == 32:
            word = 4  # as every known writer of such objects has it, though OW is a string of 16-bit words
        if word == 1 or len(value) % word:
            return value
        return np.frombuffer(value, f">u{word}").astype(f"<u{word}").tobytes()

    def items(self, start: int, end: int, outer: Elements, depth: int, *, delimited: bool) -> tuple[Items, int]:
        """Read the items of a sequence; return them and where the sequence ended."""
        items: Items = []
        position = start
        while position < end:
            tag, length, position = self._item_header(position, end)
            if tag == _SEQUENCE_END and delimited:
                return items, position
            if tag != _ITEM:
                raise MalformedElements(f"{_name(tag)} stands where a sequence item should.")
            if length == UNDEFINED:
                item, position = self.elements(position, end, outer, depth + 1)
            elif length > end - position:
                raise MalformedElements(f"A sequence item claims {length} bytes, but only {end - position} are left.")
            else:
                item, _ = self.elements(position, position + length, outer, depth + 1)
                position += length
            items.append(item)
        if delimited:
            raise MalformedElements("A sequence of undefined length never ends.")
        return items, position

    def _fragments(self, start: int, end: int) -> tuple[Fragments, int]:
        found: list[memoryview] = []
        position = start
        while True:
            tag, length, position = self._item_header(position, end)
            if tag == _SEQUENCE_END:
                return Fragments(found[0] if found else b"", tuple(found[1:])), position
            if tag != _ITEM or length > end - position:
                raise MalformedElements("The encapsulated Pixel Data is not a whole number of fragments.")
            found.append(self.data[position : position + length])
            position += length

    def _item_header(self, position: int, end: int) -> tuple[int, int, int]:
        if end - position < 8:
            raise MalformedElements("A sequence is cut short.")
        group, number, length = self._item.unpack_from(self.data, position)
        return group << 16 | number, length, position + 8


def _settled_vr(tag: int, vr: str, value: Value, own: Elements, outer: Elements | None) -> str:
    """Settle what the dictionary leaves open for an implicit data set (PS3.5 Annex A.1)."""
    if isinstance(value, list):
        return vr if vr == "UN" else "SQ"
    if vr == "SQ":
        return "UN"
    if " or " not in vr:
        return vr
    if vr == "US or SS":
        representation = own.number(_PIXEL_REPRESENTATION)
        if representation is None and outer is not None:
            representation = outer.number(_PIXEL_REPRESENTATION)
        return "SS" if representation == 1 else "US"
    if tag == PIXEL_DATA:
        return "OB" if (own.number(_BITS_ALLOCATED) or 16) <= 8 else "OW"
    return "OB" if own.number(_WAVEFORM_BITS_ALLOCATED) == 8 else "OW"


def _dictionary_vr(tag: int, creators: dict[tuple[int, int], str]) -> str:
    """Return the VR of a tag in an implicit data set; UN where nobody knows."""
    group, number = tag >> 16, tag & 0xFFFF
    try:
        if group & 1 == 0:
            return str(dictionary_VR(tag))
        if 0x10 <= number <= 0xFF:
            return "LO"
        return str(private_dictionary_VR(tag, creators[group, number >> 8]))
    except KeyError:
        return "UN"


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def encode(elements: Elements, encoding: Encoding) -> Iterable[Bytes]:
    """Yield a data set, piece by piece; sequences have undefined lengths. Values are written as they are.

    Raises MalformedElements for encapsulated fragments: a native data set has none.
    """
    for element in elements.elements:
        yield from _encode_element(element, encoding)


def _encode_element(element: Element, encoding: Encoding) -> Iterable[Bytes]:
    value = element.value
    if isinstance(value, Fragments):
        raise MalformedElements("Encapsulated Pixel Data has no place in a native data set.")
    if isinstance(value, list):
        yield header(element.tag, element.vr, UNDEFINED, encoding)
        inner = IMPLICIT_LITTLE if element.vr == "UN" else encoding
        for item in value:
            yield header(_ITEM, "", UNDEFINED, inner)
            yield from encode(item, inner)
            yield header(_ITEM_END, "", 0, inner)
        yield header(_SEQUENCE_END, "", 0, encoding)
    elif isinstance(value, Generated):
        yield header(element.tag, element.vr, value.nbytes, encoding)
        yield from value.chunks()
    else:
        yield header(element.tag, element.vr, len(value) + len(value) % 2, encoding)
        yield value
        if len(value) % 2:
            yield b"\0"


def header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Return the header of an element; a value too long for its VR goes as UN (PS3.5 6.2.2)."""
    order = "<" if encoding.little_endian else ">"
    group, number = tag >> 16, tag & 0xFFFF
    if not encoding.explicit or group == 0xFFFE:
        return struct.pack(order + "HHL", group, number, length)
    if vr not in _LONG_VRS and length > 0xFFFF:
        vr = "UN"
    if vr in _LONG_VRS:
        return struct.pack(order + "HH2sHL", group, number, vr.encode("ascii"), 0, length)
    return struct.pack(order + "HH2sH", group, number, vr.encode("ascii"), length)
