"""A whole data set as a tree of raw values, read and written in any encoding (PS3.5 7, Annex A).

Values are never interpreted beyond what a change of encoding asks for, so a bad value in one element does no harm to
the others.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from pydicom.datadict import dictionary_VR, private_dictionary_VR

from thinfilm_gateway.dicom.elements import (
    IMPLICIT_LITTLE,
    LONG_VRS,
    MAX_DEPTH,
    UNDEFINED_LENGTH,
    UNKNOWN_VR,
    ElementPlace,
    Encoding,
    MalformedElements,
    Walker,
    found_encoding,
)
from thinfilm_gateway.dicom.tags import (
    BITS_ALLOCATED,
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    SEQUENCE_DELIMITATION,
    WAVEFORM_BITS_ALLOCATED,
    tag_name,
)

_WORD_BYTES = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), 4),
    **dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), 8),
}
_MAX_ELEMENTS = 1_000_000  # items and fragments too, of all levels together

Bytes = bytes | memoryview


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


@dataclass(slots=True)
class Element:
    """One element.

    vr: what the source says, UN where that is none that is known; the dictionary's where the source is implicit.
    """

    tag: int
    vr: str
    value: Value


@dataclass(slots=True)
class Elements:
    """The elements of one data set or sequence item, in their order. Where a tag is there twice, the first counts."""

    elements: list[Element] = field(default_factory=list)

    def get(self, tag: int) -> Element | None:
        """Return the element of this tag, the first of them."""
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

    def drop_group(self, group: int) -> None:
        """Remove the elements of a group."""
        self.elements = [element for element in self.elements if element.tag >> 16 != group]


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


def parse(data: Bytes, declared: Encoding) -> Elements:
    """Read a whole data set, in the encoding that is declared or, as an outline is, in another that fits.

    Values are views of `data`, swapped to little endian where they were not. Group lengths are left out: they would be
    wrong after any change. Raises MalformedElements.
    """
    octets = memoryview(data).cast("B")
    encoding = found_encoding(octets, declared)
    try:
        return _Reader(octets).data_set(encoding)
    except MalformedElements:
        if not encoding.explicit or encoding.is_lenient:
            raise
    return _Reader(octets).data_set(replace(encoding, is_lenient=True))  # elements without a VR, in items alone


class _Reader:
    """Reads the elements of one data set."""

    def __init__(self, octets: memoryview) -> None:
        self._walker = Walker(octets, remembers=True)
        self._octets = octets
        self._count = 0

    def data_set(self, encoding: Encoding) -> Elements:
        """Read all elements."""
        return self._elements(self._walker.data_set(encoding), None, 0)

    def _elements(self, places: Iterator[ElementPlace], outer: Elements | None, depth: int) -> Elements:
        """Read the elements of a data set or an item. depth: levels of sequences around them."""
        if depth > MAX_DEPTH:
            raise MalformedElements(f"Sequences lie more than {MAX_DEPTH} deep.")
        found = Elements()
        creators: dict[tuple[int, int], str] = {}
        for place in places:
            self._count_one()
            if place.tag & 0xFFFF == 0 and place.value_end - place.value_offset == 4:
                continue
            vr = _dictionary_vr(place.tag, creators) if place.vr is None else place.vr
            value: Value
            if self._is_sequence(place, vr):
                value = []
                for item in self._walker.items(place):
                    self._count_one()
                    value.append(self._elements(self._walker.item(item), found, depth + 1))
            else:
                value = self._plain(place, vr, found)
            if place.tag >> 16 & 1 and 0x10 <= place.tag & 0xFFFF <= 0xFF and isinstance(value, bytes | memoryview):
                creators[place.tag >> 16, place.tag & 0xFFFF] = bytes(value).decode("latin_1").strip(" \0")
            found.elements.append(Element(place.tag, _settled_vr(place.tag, vr, value, found, outer), value))
        return found

    def _count_one(self) -> None:
        self._count += 1
        if self._count > _MAX_ELEMENTS:
            raise MalformedElements(f"It has more than {_MAX_ELEMENTS} elements.")

    def _is_sequence(self, place: ElementPlace, vr: str) -> bool:
        """Tell whether a value is items: where no VR is written, its bytes must be, whatever the dictionary says."""
        if place.undefined_length:
            return place.tag != PIXEL_DATA
        return vr == "SQ" and (place.vr is not None or self._holds_items(place))

    def _holds_items(self, place: ElementPlace) -> bool:
        try:
            for item in self._walker.items(place):
                for _ in self._walker.item(item):
                    pass
        except MalformedElements:
            return False
        return True

    def _plain(self, place: ElementPlace, vr: str, own: Elements) -> Bytes | Fragments:
        """Return a value that is no sequence; own: the elements before it."""
        if place.undefined_length:
            found: list[memoryview] = []
            for begin, end in self._walker.fragments(place.value_offset, place.value_end):
                self._count_one()
                found.append(self._octets[begin:end])
            return Fragments(found[0] if found else b"", tuple(found[1:]))
        value = self._octets[place.value_offset : place.value_end]
        if place.encoding.little_endian:
            return value
        if vr == UNKNOWN_VR:
            raise MalformedElements(f"The order of the bytes of {tag_name(place.tag)} is not known: its VR is none.")
        return _swapped(place.tag, vr, value, own)


def _swapped(tag: int, vr: str, value: memoryview, own: Elements) -> Bytes:
    """Turn a big endian value into a little endian one.

    Raises MalformedElements where nobody can tell in which order its bytes are.
    """
    if vr == "OW" and own.number(BITS_ALLOCATED if tag == PIXEL_DATA else WAVEFORM_BITS_ALLOCATED) == 32:
        # By PS3.5 OW is of 16-bit words, and so writes DCMTK; pydicom and others write 32-bit words.
        raise MalformedElements(
            f"{tag_name(tag)} has 32-bit samples as OW in big endian, whose order writers differ in."
        )
    if vr == "UN" and value and _dictionary_words(tag):
        raise MalformedElements(f"The order of the bytes of {tag_name(tag)} is not known: its VR is UN.")
    word = _WORD_BYTES.get(vr, 1)
    if word == 1 or len(value) % word:
        return value
    return np.frombuffer(value, f">u{word}").astype(f"<u{word}").tobytes()


def _dictionary_words(tag: int) -> bool:
    """Tell whether a value of this tag is of words, by the dictionary."""
    return any(vr in _WORD_BYTES for vr in _dictionary_vr(tag, {}).split(" or "))


def _settled_vr(tag: int, vr: str, value: Value, own: Elements, outer: Elements | None) -> str:
    """Settle what the dictionary leaves open for an implicit data set (PS3.5 Annex A.1)."""
    if isinstance(value, list):
        return "UN" if vr in ("UN", UNKNOWN_VR) else "SQ"
    if vr in ("SQ", UNKNOWN_VR):
        return "UN"
    if " or " not in vr:
        return vr
    if vr == "US or SS":
        representation = own.number(PIXEL_REPRESENTATION)
        if representation is None and outer is not None:
            representation = outer.number(PIXEL_REPRESENTATION)
        return "SS" if representation == 1 else "US"
    if tag == PIXEL_DATA:
        return "OB" if (own.number(BITS_ALLOCATED) or 16) <= 8 else "OW"
    return "OB" if own.number(WAVEFORM_BITS_ALLOCATED) == 8 else "OW"


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


def encode(elements: Elements, encoding: Encoding) -> Iterable[Bytes]:
    """Yield a data set, piece by piece; sequences have undefined lengths. Values are written as they are.

    Raises MalformedElements for encapsulated fragments: a native data set has none.
    """
    for element in elements.elements:
        value = element.value
        if isinstance(value, Fragments):
            raise MalformedElements("Encapsulated Pixel Data has no place in a native data set.")
        if isinstance(value, list):
            yield header(element.tag, element.vr, UNDEFINED_LENGTH, encoding)
            inner = IMPLICIT_LITTLE if element.vr == "UN" else encoding
            for item in value:
                yield header(ITEM, "", UNDEFINED_LENGTH, inner)
                yield from encode(item, inner)
                yield header(ITEM_DELIMITATION, "", 0, inner)
            yield header(SEQUENCE_DELIMITATION, "", 0, inner)
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
    if vr not in LONG_VRS and length > 0xFFFF:
        vr = "UN"
    if vr in LONG_VRS:
        return struct.pack(order + "HH2sHL", group, number, vr.encode("ascii"), 0, length)
    return struct.pack(order + "HH2sH", group, number, vr.encode("ascii"), length)
