"""Read attribute values so that no value, however wrong, raises or warns: text, whole numbers, real numbers.

pydicom decodes a value when it is looked at, and warns or raises at bad ones. A gateway that takes everything cannot.
"""

import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword

_DEFAULT_ENCODING = "latin_1"  # PS3.5 has plain ASCII here; this reads that and never fails on more
_ENCODINGS = {re.sub(r"[ _-]+", " ", term): encoding for term, encoding in python_encoding.items()}
_KEEP_ESCAPES = ("iso2022_jp", "iso2022_jp_2")  # Python's codecs switch by the escape sequence themselves
_DELIMITERS = re.compile(rb"[\\\r\n\t\f]")
_NAME_DELIMITERS = re.compile(rb"[\\^=]")
_CHARACTER_SET_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_TEXT_VRS = _CHARACTER_SET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_BINARY_FORMATS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}


def python_encodings(attributes: Dataset) -> list[str]:
    """Return the Python encodings of (0008,0005) Specific Character Set, at least one; unknown ones as Latin-1."""
    terms = text(attributes, "SpecificCharacterSet").split("\\")
    return [_ENCODINGS.get(re.sub(r"[ _-]+", " ", term.strip().upper()), _DEFAULT_ENCODING) for term in terms]


def decode_text(value: bytes, encodings: Sequence[str], is_name: bool = False) -> str:
    """Decode text with code extensions (PS3.5 6.1.2.5); what cannot be decoded becomes U+FFFD."""
    if b"\x1b" not in value:
        return value.decode(encodings[0], "replace")
    delimiters = _NAME_DELIMITERS if is_name else _DELIMITERS
    plain, *escaped = value.split(b"\x1b")
    parts = [_decode_escaped(b"\x1b" + part, encodings[0], delimiters) for part in escaped]
    return plain.decode(encodings[0], "replace") + "".join(parts)


def _decode_escaped(part: bytes, first: str, delimiters: re.Pattern[bytes]) -> str:
    """Decode a part that begins with an escape sequence; a delimiter brings back the first character set."""
    escape = part[: 4 if part[1:3] in (b"$(", b"$)") else 3]
    encoding = CODES_TO_ENCODINGS.get(escape)
    if encoding is None:
        return part.decode(first, "replace")
    if encoding in _KEEP_ESCAPES:
        return part.decode(encoding, "replace")
    content = part[len(escape) :]
    delimiter = delimiters.search(content)
    end = delimiter.start() if delimiter else len(content)
    return content[:end].decode(encoding, "replace") + content[end:].decode(first, "replace")


def text(attributes: Dataset, keyword: str) -> str:
    """Return the value as text, values separated by backslashes, outer padding removed; "" if absent or no text."""
    tag = tag_for_keyword(keyword)
    element = attributes.get_item(tag) if tag is not None and tag in attributes else None
    if element is None or element.value is None:
        return ""
    vr = _vr(element)
    if vr not in _TEXT_VRS and vr not in _BINARY_FORMATS:
        return ""
    if not element.is_raw:
        value = element.value
        many = isinstance(value, Sequence) and not isinstance(value, str)
        return "\\".join(map(str, value)) if many else str(value)
    if vr in _BINARY_FORMATS:
        return "\\".join(map(str, _unpacked(element, vr)))
    encodings = python_encodings(attributes) if vr in _CHARACTER_SET_VRS else [_DEFAULT_ENCODING]
    return decode_text(element.value, encodings, is_name=vr == "PN").strip(" \0")


def integer(attributes: Dataset, keyword: str) -> int | None:
    """Return the first value as a whole number; None if it is absent or none."""
    values = numbers(attributes, keyword)
    return int(values[0]) if values and values[0].is_integer() else None


def numbers(attributes: Dataset, keyword: str) -> tuple[float, ...]:
    """Return all values as finite numbers; empty if there are none or one of them is no number."""
    try:
        values = tuple(float(value) for value in text(attributes, keyword).split("\\"))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def _vr(element: Any) -> str:
    """Return the VR of a raw element; where it is implicit, unknown or ambiguous, the dictionary's first one."""
    if element.VR not in (None, "UN"):
        return str(element.VR)
    try:
        return str(dictionary_VR(element.tag)).split(" or ")[0]
    except KeyError:
        return "UN"


def _unpacked(element: Any, vr: str) -> tuple[float, ...]:
    order = "<" if element.is_little_endian else ">"
    size = struct.calcsize(f"<{_BINARY_FORMATS[vr]}")
    count = len(element.value) // size
    return struct.unpack_from(f"{order}{count}{_BINARY_FORMATS[vr]}", element.value)
