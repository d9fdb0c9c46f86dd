"""Walk the top-level data elements of an encoded data set by structure alone (PS3.5 chapter 7).

Nothing is decoded and nothing is copied: a walk over a memory map touches the pages that hold element headers.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

Octets = bytes | bytearray | memoryview | mmap.mmap
"""An encoded data set or file, wherever it lies."""

UNDEFINED_LENGTH = 0xFFFFFFFF

_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_MAX_DEPTH = 256

# By little_endian: tag and length; VR and short length; long length.
_IMPLICIT = {True: struct.Struct("<HHL"), False: struct.Struct(">HHL")}
_EXPLICIT = {True: struct.Struct("<2sH"), False: struct.Struct(">2sH")}
_LONG_LENGTH = {True: struct.Struct("<L"), False: struct.Struct(">L")}

_SHORT_FORM = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_FORM = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


class InconsistentStructureError(Exception):
    """The bytes are not data elements in the encoding tried; the message is one sentence."""


@dataclass(frozen=True)
class Encoding:
    """How elements are written. `mixed`: an element without a VR among explicit ones is read as implicit."""

    implicit_vr: bool
    little_endian: bool
    mixed: bool = False


class Element(NamedTuple):
    """One top-level element: its value lies at [value_offset, value_end), item and sequence delimiters excluded."""

    tag: int
    vr: str | None
    value_offset: int
    value_end: int
    undefined_length: bool
    depth: int
    """Levels of undefined-length sequences within, 0 for a plain value."""


class _Header(NamedTuple):
    tag: int
    vr: bytes | None
    value_offset: int
    length: int


class _Level(NamedTuple):
    """An open undefined-length sequence or item. encoding: of the elements inside; None: seen at the first of them."""

    is_item: bool
    encoding: Encoding | None


def walk(view: memoryview, encoding: Encoding) -> Iterator[Element]:
    """Yield the top-level elements in the order they are written.

    Zero bytes behind the last element are taken as padding, and a surplus delimiter is passed over, since some writers
    close a sequence twice. Raises InconsistentStructureError where the bytes are not elements, or end within one.
    """
    size = len(view)
    offset = 0
    while offset < size:
        if size - offset < 8 or bytes(view[offset : offset + 2]) == b"\0\0":
            if offset and _only_zeros(view, offset):
                return
            if size - offset < 8:
                raise InconsistentStructureError(f"The data set ends within the element at byte {offset}.")
        header = _header(view, offset, encoding)
        if header.tag in (_ITEM_END, _SEQUENCE_END) and offset and header.length == 0:
            offset = header.value_offset
            continue
        if header.tag >> 16 in (0x0000, 0xFFFE):
            raise InconsistentStructureError(
                f"The tag {_name(header.tag)} at byte {offset} cannot stand in a data set."
            )
        vr = header.vr.decode("ascii") if header.vr else None
        if header.length == UNDEFINED_LENGTH:
            value_end, offset, depth = _skip_undefined(view, header, encoding)
            yield Element(header.tag, vr, header.value_offset, value_end, True, depth)
        else:
            offset = header.value_offset + header.length
            if offset > size:
                raise InconsistentStructureError(
                    f"The value of {_name(header.tag)} ends {offset - size} bytes beyond the data set."
                )
            yield Element(header.tag, vr, header.value_offset, offset, False, 0)


def _header(view: memoryview, offset: int, encoding: Encoding) -> _Header:
    """Read the header of the element at the offset. Raises InconsistentStructureError if it is none."""
    little = encoding.little_endian
    try:
        group, element, length = _IMPLICIT[little].unpack_from(view, offset)
        tag = group << 16 | element
        if encoding.implicit_vr or group == 0xFFFE:
            return _Header(tag, None, offset + 8, length)
        vr, short = _EXPLICIT[little].unpack_from(view, offset + 4)
        if vr in _SHORT_FORM:
            return _Header(tag, vr, offset + 8, short)
        if vr in LONG_FORM or (_looks_like_vr(vr) and short == 0):  # unknown VRs are of the long form (PS3.5 7.1.2)
            return _Header(tag, vr, offset + 12, _LONG_LENGTH[little].unpack_from(view, offset + 8)[0])
        if _looks_like_vr(vr):
            return _Header(tag, vr, offset + 8, short)
        if encoding.mixed:
            return _Header(tag, None, offset + 8, length)
    except struct.error:
        raise InconsistentStructureError(f"The data set ends within the element at byte {offset}.") from None
    raise InconsistentStructureError(f"The element {_name(tag)} at byte {offset} has no value representation.")


def _skip_undefined(view: memoryview, outer: _Header, encoding: Encoding) -> tuple[int, int, int]:
    """Find the end of a value of undefined length: a sequence, or encapsulated fragments.

    Returns (end of the value, offset of the next element, deepest level). Items of defined length are skipped whole.
    """
    size = len(view)
    levels = [_Level(False, _inner_encoding(outer.vr, encoding))]
    offset = outer.value_offset
    deepest = 1
    while True:
        is_item, inner = levels[-1]
        if is_item and inner is None:
            inner = _sniffed_encoding(view, offset, encoding)
            levels[-1] = _Level(True, inner)
        header = _header(view, offset, inner or encoding)
        if header.tag == (_ITEM_END if is_item else _SEQUENCE_END):
            levels.pop()
            if not levels:
                return offset, header.value_offset, deepest
            offset = header.value_offset
            continue
        if (header.tag == _ITEM) == is_item or (is_item and header.tag >> 16 == 0xFFFE):
            raise InconsistentStructureError(
                f"The tag {_name(header.tag)} at byte {offset} cannot stand within {_name(outer.tag)}."
            )
        offset = header.value_offset
        if header.length != UNDEFINED_LENGTH:
            offset += header.length
            if offset > size:
                raise InconsistentStructureError(f"The value of {_name(outer.tag)} ends beyond the data set.")
            continue
        levels.append(_Level(False, _inner_encoding(header.vr, inner or encoding)) if is_item else _Level(True, inner))
        deepest = max(deepest, (len(levels) + 1) // 2)
        if deepest > _MAX_DEPTH:
            raise InconsistentStructureError(f"Sequences lie more than {_MAX_DEPTH} deep in {_name(outer.tag)}.")


def _inner_encoding(vr: bytes | None, encoding: Encoding) -> Encoding | None:
    """Return the encoding inside a sequence; None for UN, which holds implicit elements (PS3.5 6.2.2) if not others."""
    return None if vr == b"UN" else encoding


def _sniffed_encoding(view: memoryview, offset: int, outer: Encoding) -> Encoding:
    vr = bytes(view[offset + 4 : offset + 6])
    return outer if vr in _SHORT_FORM or vr in LONG_FORM else Encoding(implicit_vr=True, little_endian=True)


def _looks_like_vr(vr: bytes) -> bool:
    return vr.isalpha() and vr.isupper()


def _only_zeros(view: memoryview, offset: int) -> bool:
    chunk = 1 << 16
    return not any(bytes(view[start : start + chunk]).strip(b"\0") for start in range(offset, len(view), chunk))


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
