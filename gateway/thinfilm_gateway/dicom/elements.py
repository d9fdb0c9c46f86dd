"""Walk the data elements of an encoded data set by structure alone (PS3.5 chapter 7): what all readers stand on.

Nothing is decoded and nothing is copied: a walk over a memory map touches the pages that hold element headers.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from thinfilm_gateway.dicom.mapped import let_go
from thinfilm_gateway.dicom.tags import ITEM, ITEM_DELIMITATION, SEQUENCE_DELIMITATION, tag_name

Octets = bytes | bytearray | memoryview | mmap.mmap
"""An encoded data set or file, wherever it lies."""

UNDEFINED_LENGTH = 0xFFFFFFFF
MAX_DEPTH = 256
"""Levels of sequences; real objects have fewer than ten."""

SHORT_VRS = frozenset(
    ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM")
) | {"UI", "UL", "US"}
LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
UNKNOWN_VR = "??"
"""Stands for every VR that is written and is none that is known."""

_HEADER_BYTES = 8  # of an element without a VR, or of the short form
_LONG_HEADER_BYTES = 12
_MOST_REMEMBERED = 1_000_000
_LET_GO_EVERY_HEADERS = 1024  # each brings up to 64 kB of a mapped file into memory
_SHORT_FORM = {vr.encode("ascii"): vr for vr in SHORT_VRS}
_LONG_FORM = {vr.encode("ascii"): vr for vr in LONG_VRS}
_KNOWN_VRS = _SHORT_FORM.keys() | _LONG_FORM.keys()

# By little_endian: tag and length; VR and short length; long length.
_IMPLICIT = {True: struct.Struct("<HHL"), False: struct.Struct(">HHL")}
_EXPLICIT = {True: struct.Struct("<2sH"), False: struct.Struct(">2sH")}
_LONG_LENGTH = {True: struct.Struct("<L"), False: struct.Struct(">L")}


class MalformedElements(Exception):
    """The bytes are not data elements in the encoding tried; the message is one sentence."""


@dataclass(frozen=True)
class Encoding:
    """How elements are written.

    is_lenient: among explicit elements, those without a VR, and those whose VR is none, are read by what fits.
    """

    explicit: bool
    little_endian: bool = True
    is_lenient: bool = False


EXPLICIT_LITTLE = Encoding(explicit=True)
IMPLICIT_LITTLE = Encoding(explicit=False)
EXPLICIT_BIG = Encoding(explicit=True, little_endian=False)

_ENCODING_OF = {"1.2.840.10008.1.2": IMPLICIT_LITTLE, "1.2.840.10008.1.2.2": EXPLICIT_BIG}


def declared_encoding(transfer_syntax_uid: str) -> Encoding:
    """Return the encoding of a transfer syntax, that of the inflated bytes of a deflated one; Explicit if unknown."""
    return _ENCODING_OF.get(transfer_syntax_uid, EXPLICIT_LITTLE)


def readings(declared: Encoding) -> tuple[Encoding, ...]:
    """Return the encodings in which a data set is read, the first that fits counts: some senders declare wrongly."""
    lenient = replace(declared, explicit=True, is_lenient=True)
    return tuple(dict.fromkeys((declared, EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, lenient)))


def found_encoding(octets: memoryview, declared: Encoding) -> Encoding:
    """Return the first of the readings in which the whole data set is elements. Raises MalformedElements."""
    first_error: MalformedElements | None = None
    for encoding in readings(declared):
        try:
            for _ in Walker(octets).data_set(encoding):
                pass
        except MalformedElements as error:
            first_error = first_error or error
        else:
            return encoding
    raise first_error or AssertionError


class ElementPlace(NamedTuple):
    """One element: its value lies at [value_offset, value_end), the delimiter behind it excluded."""

    tag: int
    vr: str | None
    """None where none is written; UNKNOWN_VR where it is none."""
    value_offset: int
    value_end: int
    undefined_length: bool
    depth: int
    """Levels of undefined-length sequences within, 0 for a plain value."""
    encoding: Encoding
    """That of the element itself."""


class ItemPlace(NamedTuple):
    """One item of a sequence, its delimiter excluded, and the encoding of its elements."""

    begin: int
    end: int
    encoding: Encoding


class _Header(NamedTuple):
    tag: int
    vr: str | None
    value_offset: int
    length: int


class _End(NamedTuple):
    """Where a value or item of undefined length ends, where what follows begins, and the levels within."""

    end: int
    following: int
    depth: int


class _Level(NamedTuple):
    """An open sequence or item of undefined length.

    begin: of its content. encoding: of its delimiters and of the elements in it. other: what each item of a sequence
    may show to be its encoding instead. depth: levels of sequences within, so far.
    """

    begin: int
    is_item: bool
    encoding: Encoding
    other: Encoding | None = None
    depth: int = 0


class Walker:
    """Walks one encoded data set, whose bytes must be octets.

    remembers: where nested values of undefined length end is kept, so that whoever descends into them walks them once.
    """

    def __init__(self, octets: memoryview, *, remembers: bool = False) -> None:
        self._octets = octets
        self._ends: dict[int, _End] | None = {} if remembers else None
        self._headers = 0

    def data_set(self, encoding: Encoding) -> Iterator[ElementPlace]:
        """Yield the top-level elements in the order they are written.

        Zero bytes behind the last element are taken as padding, and a surplus delimiter is passed over, since some
        writers close a sequence twice. Raises MalformedElements where the bytes are not elements, or end within one.
        """
        size = len(self._octets)
        offset = 0
        while offset < size:
            if size - offset < _HEADER_BYTES or self._octets[offset] == self._octets[offset + 1] == 0:
                if offset and self._is_padding(offset):
                    return
                if size - offset < _HEADER_BYTES:
                    raise MalformedElements(f"The data set ends within the element at byte {offset}.")
            header = self._header(offset, size, encoding)
            if header.tag in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION) and offset and header.length == 0:
                offset = header.value_offset
                continue
            if header.tag >> 16 in (0x0000, 0xFFFE):
                raise MalformedElements(f"The tag {tag_name(header.tag)} at byte {offset} cannot stand in a data set.")
            place, offset = self._place(header, size, encoding)
            yield place

    def item(self, item: ItemPlace) -> Iterator[ElementPlace]:
        """Yield the elements of an item; surplus delimiters are passed over. Raises MalformedElements."""
        offset = item.begin
        while offset < item.end:
            header = self._header(offset, item.end, item.encoding)
            if header.tag in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION) and header.length == 0:
                offset = header.value_offset
                continue
            if header.tag >> 16 == 0xFFFE:
                raise MalformedElements(f"The tag {tag_name(header.tag)} at byte {offset} cannot stand in an item.")
            place, offset = self._place(header, item.end, item.encoding)
            yield place

    def items(self, sequence: ElementPlace) -> Iterator[ItemPlace]:
        """Yield the items of a sequence; surplus delimiters are passed over. Raises MalformedElements."""
        end = sequence.value_end
        level = self._opened(sequence.vr, sequence.value_offset, sequence.encoding)
        offset = sequence.value_offset
        while offset < end:
            header = self._header(offset, end, level.encoding)
            offset = header.value_offset
            if header.tag in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION) and header.length == 0:
                continue
            if header.tag != ITEM:
                raise MalformedElements(
                    f"{tag_name(header.tag)} stands where an item of {tag_name(sequence.tag)} should."
                )
            inner = self._item_encoding(level, offset, end)
            if header.length == UNDEFINED_LENGTH:
                found = self._end_of(_Level(offset, True, inner), end, sequence.tag)
                yield ItemPlace(offset, found.end, inner)
                offset = found.following
                continue
            if header.length > end - offset:
                raise MalformedElements(f"An item of {tag_name(sequence.tag)} ends beyond it.")
            yield ItemPlace(offset, offset + header.length, inner)
            offset += header.length

    def fragments(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield where the fragments of an encapsulated value begin and end, its offset table first (PS3.5 A.4).

        Raises MalformedElements unless [begin, end) is whole fragments.
        """
        offset = begin
        while offset < end:
            header = self._header(offset, end, EXPLICIT_LITTLE)
            offset = header.value_offset + header.length
            if header.tag != ITEM or offset > end:
                raise MalformedElements("The encapsulated Pixel Data is not a whole number of fragments.")
            yield header.value_offset, offset

    def _place(self, header: _Header, limit: int, encoding: Encoding) -> tuple[ElementPlace, int]:
        """Return where an element lies, and where the next one begins."""
        tag, vr, offset, length = header
        if length != UNDEFINED_LENGTH:
            end = offset + length
            if end > limit:
                raise MalformedElements(f"The value of {tag_name(tag)} ends {end - limit} bytes beyond the data set.")
            return ElementPlace(tag, vr, offset, end, False, 0, encoding), end
        end, following, depth = self._end_of(self._opened(vr, offset, encoding), limit, tag)
        return ElementPlace(tag, vr, offset, end, True, depth, encoding), following

    def _header(self, offset: int, limit: int, encoding: Encoding) -> _Header:
        """Read the header of the element at the offset. Raises MalformedElements if it is none."""
        self._headers += 1
        if self._headers % _LET_GO_EVERY_HEADERS == 0:
            let_go(self._octets)
        little = encoding.little_endian
        octets = self._octets
        try:
            group, element, length = _IMPLICIT[little].unpack_from(octets, offset)
            tag = group << 16 | element
            if not encoding.explicit or group == 0xFFFE:
                header = _Header(tag, None, offset + 8, length)
            else:
                vr, short = _EXPLICIT[little].unpack_from(octets, offset + 4)
                if vr in _SHORT_FORM:
                    header = _Header(tag, _SHORT_FORM[vr], offset + 8, short)
                elif vr in _LONG_FORM:
                    (length,) = _LONG_LENGTH[little].unpack_from(octets, offset + 8)
                    header = _Header(tag, _LONG_FORM[vr], offset + 12, length)
                elif encoding.is_lenient:
                    header = self._fitting_header(tag, offset, limit, encoding)
                elif not (vr.isalpha() and vr.isupper()):
                    raise MalformedElements(
                        f"The element {tag_name(tag)} at byte {offset} has no value representation."
                    )
                elif short:
                    header = _Header(tag, UNKNOWN_VR, offset + 8, short)
                else:  # VRs to come are of the long form (PS3.5 7.1.2)
                    header = _Header(
                        tag, UNKNOWN_VR, offset + 12, _LONG_LENGTH[little].unpack_from(octets, offset + 8)[0]
                    )
        except struct.error:
            raise MalformedElements(f"The data set ends within the element at byte {offset}.") from None
        if header.value_offset > limit:
            raise MalformedElements(f"The data set ends within the element at byte {offset}.")
        return header

    def _fitting_header(self, tag: int, offset: int, limit: int, encoding: Encoding) -> _Header:
        """Read a header whose VR is none: as implicit, or as of an unknown VR of the short or the long form.

        The first is taken that ends where a known element begins, else the one behind which the tags go on rising and
        rise the least, else the first at whose end padding begins.
        """
        candidates = self._candidates(tag, offset, limit, encoding)
        ends = {header: header.value_offset + header.length for header in candidates}
        for header in candidates:
            if header.length == UNDEFINED_LENGTH or self._goes_on(ends[header], limit, encoding):
                return header
        following = {header: self._tag(ends[header], limit, encoding) for header in candidates}
        rising = [header for header in candidates if following[header] > tag]
        if rising:
            return min(rising, key=lambda header: following[header])
        for header in candidates:
            if limit == len(self._octets) and ends[header] < limit and self._is_padding(ends[header]):
                return header
        raise MalformedElements(f"The element {tag_name(tag)} at byte {offset} has no value representation.")

    def _candidates(self, tag: int, offset: int, limit: int, encoding: Encoding) -> list[_Header]:
        """Return what a header whose VR is none may be, within the limit, the likeliest first."""
        long_length = _LONG_LENGTH[encoding.little_endian]
        vr, short = _EXPLICIT[encoding.little_endian].unpack_from(self._octets, offset + 4)
        as_implicit = _Header(tag, None, offset + 8, *long_length.unpack_from(self._octets, offset + 4))
        as_short = _Header(tag, UNKNOWN_VR, offset + 8, short)
        is_text = all(0x20 <= octet < 0x7F for octet in vr)
        if as_implicit.length == UNDEFINED_LENGTH:
            candidates = [as_implicit]
        elif short:
            candidates = [as_short, as_implicit]
        elif not is_text and any(vr):
            candidates = [as_implicit]
        elif limit - offset < _LONG_HEADER_BYTES:
            candidates = [as_short]
        else:
            as_long = _Header(tag, UNKNOWN_VR, offset + 12, *long_length.unpack_from(self._octets, offset + 8))
            candidates = [as_long, as_short, as_implicit] if is_text else [as_implicit, as_long]
        room = ((header, limit - header.value_offset) for header in candidates)
        return [header for header, most in room if header.length <= most or header.length == UNDEFINED_LENGTH]

    def _goes_on(self, offset: int, limit: int, encoding: Encoding) -> bool:
        """Tell whether the elements end at the offset, or another of a known VR begins there."""
        if offset == limit:
            return True
        if limit - offset < _HEADER_BYTES:
            return False
        tag = self._tag(offset, limit, encoding)
        is_delimiter = tag in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION)
        return is_delimiter or bytes(self._octets[offset + 4 : offset + 6]) in _KNOWN_VRS

    def _tag(self, offset: int, limit: int, encoding: Encoding) -> int:
        """Return the tag at the offset; 0 where there is none."""
        if limit - offset < _HEADER_BYTES:
            return 0
        group, element, _ = _IMPLICIT[encoding.little_endian].unpack_from(self._octets, offset)
        return int(group << 16 | element)

    def _opened(self, vr: str | None, begin: int, encoding: Encoding) -> _Level:
        """Return the level of a sequence or of fragments.

        What stands in UN is implicit little endian, whatever is around it (PS3.5 6.2.2); some write it otherwise.
        """
        if vr not in ("UN", UNKNOWN_VR):
            return _Level(begin, False, encoding)
        little = bytes(self._octets[begin : begin + 2]) != b"\xff\xfe"
        return _Level(begin, False, Encoding(False, little), replace(encoding, little_endian=little))

    def _item_encoding(self, sequence: _Level, begin: int, limit: int) -> Encoding:
        """Return the encoding of the elements of an item: where it may be another, the first element shows it."""
        other = sequence.other
        if other is None or bytes(self._octets[begin + 4 : begin + 6]) not in _KNOWN_VRS:
            return sequence.encoding
        first = self._header(begin, len(self._octets), other)
        if first.length == UNDEFINED_LENGTH or self._goes_on(first.value_offset + first.length, limit, other):
            return other
        return sequence.encoding

    def _end_of(self, outermost: _Level, limit: int, tag: int) -> _End:
        """Find the end of a value or an item of undefined length of the element `tag`.

        Items and values of defined length are skipped whole.
        """
        if self._ends is not None and outermost.begin in self._ends:
            return self._ends[outermost.begin]
        levels = [outermost]
        offset = outermost.begin
        while True:
            level = levels[-1]
            header = self._header(offset, limit, level.encoding)
            if header.tag == (ITEM_DELIMITATION if level.is_item else SEQUENCE_DELIMITATION):
                found = _End(offset, header.value_offset, level.depth + (not level.is_item))
                if self._ends is not None:
                    if len(self._ends) == _MOST_REMEMBERED:
                        raise MalformedElements(f"It has more than {_MOST_REMEMBERED} sequences and items.")
                    self._ends[level.begin] = found
                levels.pop()
                if not levels:
                    return found
                levels[-1] = levels[-1]._replace(depth=max(levels[-1].depth, found.depth))
                offset = header.value_offset
                continue
            if header.tag == ITEM_DELIMITATION and header.length == 0:
                offset = header.value_offset  # an item that was closed twice
                continue
            if (header.tag == ITEM) == level.is_item or (level.is_item and header.tag >> 16 == 0xFFFE):
                raise MalformedElements(
                    f"The tag {tag_name(header.tag)} at byte {offset} cannot stand within {tag_name(tag)}."
                )
            offset = header.value_offset
            if header.length != UNDEFINED_LENGTH:
                offset += header.length
                if offset > limit:
                    raise MalformedElements(f"The value of {tag_name(tag)} ends beyond the data set.")
            elif level.is_item:
                levels.append(self._opened(header.vr, offset, level.encoding))
            else:
                levels.append(_Level(offset, True, self._item_encoding(level, offset, limit)))
            if len(levels) > 2 * MAX_DEPTH:
                raise MalformedElements(f"Sequences lie more than {MAX_DEPTH} deep in {tag_name(tag)}.")

    def _is_padding(self, offset: int) -> bool:
        chunk = 1 << 16
        parts = (self._octets[start : start + chunk] for start in range(offset, len(self._octets), chunk))
        return not any(bytes(part).strip(b"\0") for part in parts)
