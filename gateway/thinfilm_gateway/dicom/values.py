"""Read attribute values so that no value, however wrong, raises or warns: text, whole numbers, real numbers.

pydicom decodes a value when it is looked at, and warns or raises at bad ones. A gateway that takes everything cannot.
"""

import functools
import math
import re
import struct
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag

from thinfilm_gateway.dicom.character_sets import GOVERNED_VRS, CharacterSet
from thinfilm_gateway.dicom.tags import SPECIFIC_CHARACTER_SET

_PADDING = " \0\t\r\n\f"
_TEXT_VRS = GOVERNED_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_BINARY_FORMATS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_READABLE_VRS = _TEXT_VRS | _BINARY_FORMATS.keys()
_WHOLE_NUMBER = re.compile(r"([+-]?\d{1,18})(?:\.0*)?", re.ASCII)  # as many digits as 64 bits hold


def text(attributes: Dataset, keyword: str) -> str:
    """Return the value as text, values separated by backslashes, outer padding removed; "" if absent or no text."""
    definition = _definition(keyword)
    element = attributes.get_item(definition[0], keep_deferred=True) if definition else None
    if definition is None or element is None:
        return ""
    if isinstance(element, RawDataElement):
        # An unknown VR, and one that cannot be meant, is the one that the attribute has.
        vr = element.VR if element.VR in _READABLE_VRS else definition[1]
        return _raw_text(attributes, element, vr).strip(_PADDING)
    return _converted_text(element).strip(_PADDING)


def integer(attributes: Dataset, keyword: str) -> int | None:
    """Return the value as a whole number; None if it is absent, several, or none."""
    return whole_number(text(attributes, keyword))


def whole_number(digits: str) -> int | None:
    """Read a number as senders write it, of at most 18 digits; None if it is none."""
    found = _WHOLE_NUMBER.fullmatch(digits)
    return int(found[1]) if found else None


def numbers(attributes: Dataset, keyword: str) -> tuple[float, ...]:
    """Return all values as finite numbers; empty if there are none or one of them is no number."""
    try:
        values = tuple(float(value) for value in text(attributes, keyword).split("\\"))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def character_set(attributes: Dataset) -> CharacterSet:
    """Return the Specific Character Set (0008,0005), as received."""
    return CharacterSet.of(text(attributes, "SpecificCharacterSet"))


def _raw_text(attributes: Dataset, element: RawDataElement, vr: str) -> str:
    value = element.value or b""
    if vr in GOVERNED_VRS and element.tag != SPECIFIC_CHARACTER_SET:  # in ASCII, whatever its VR
        return character_set(attributes).decode(value, person_name=vr == "PN")
    if vr in _TEXT_VRS:
        return value.decode("latin_1")  # PS3.5 has plain ASCII here; this reads that and never fails on more
    if vr in _BINARY_FORMATS:
        return "\\".join(map(str, _unpacked(value, vr, element.is_little_endian)))
    return ""


def _converted_text(element: DataElement) -> str:
    value = element.value
    if element.VR not in _READABLE_VRS or value is None:
        return ""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return "\\".join(map(str, value)) if many else str(value)


def _unpacked(value: bytes, vr: str, is_little_endian: bool) -> tuple[float, ...]:
    order = "<" if is_little_endian else ">"
    count = len(value) // struct.calcsize(f"<{_BINARY_FORMATS[vr]}")
    return struct.unpack_from(f"{order}{count}{_BINARY_FORMATS[vr]}", value)


@functools.cache
def _definition(keyword: str) -> tuple[BaseTag, str] | None:
    """Return the tag and the VR of a keyword of the dictionary, the first VR where it has several."""
    tag = tag_for_keyword(keyword)
    return None if tag is None else (Tag(tag), dictionary_VR(tag).split(" or ")[0])
