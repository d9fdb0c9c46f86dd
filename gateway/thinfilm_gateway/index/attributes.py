"""Reads what the index keeps out of a data set that nobody has checked: a bad value is an empty one, never an error.

Elements that pydicom has not converted yet are read as the bytes they are, because its conversion warns of, or refuses,
values that only violate a length or a character repertoire.
"""

import functools
import re
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag

_PADDING = " \0\t\r\n\f"
_INTEGER_STRING = re.compile(r"([+-]?\d{1,18})(?:\.0*)?", re.ASCII)

_ESCAPE = b"\x1b"
_FRAGMENT = re.compile(b"^[^\x1b]+|\x1b[^\x1b]*")
_DELIMITER = re.compile(rb"[\\^=\r\n\f\t]")  # ends a code extension of single-byte sets (PS3.5 6.1.2.5.3)
_STATEFUL = ("iso2022_jp", "iso2022_jp_2")  # Python's codecs for these want the escape sequences themselves
_DEFAULT = "latin_1"  # what undeclared bytes above ASCII most often are


def text(attributes: Dataset, keyword: str) -> str:
    """Return the value of a text attribute in Unicode, without padding; several values stay joined by backslashes."""
    element = _element(attributes, keyword)
    if element is None or element.value is None:
        return ""
    if isinstance(element, RawDataElement):
        return decode(element.value, specific_character_set(attributes)).strip(_PADDING)
    values = element.value if element.VM > 1 else [element.value]
    return "\\".join(str(value) for value in values).strip(_PADDING)


def integer_string(attributes: Dataset, keyword: str) -> int | None:
    """Return the value of an integer attribute that is written in digits (IS); None if there is none."""
    return whole_number(text(attributes, keyword))


def whole_number(digits: str) -> int | None:
    """Read a number as senders write it; None if it is none."""
    found = _INTEGER_STRING.fullmatch(digits)
    return int(found[1]) if found else None


def unsigned_short(attributes: Dataset, keyword: str) -> int | None:
    """Return the value of a binary 16-bit attribute (US); None if there is none."""
    element = _element(attributes, keyword)
    if isinstance(element, RawDataElement):
        if element.value is None or len(element.value) != 2:
            return None
        return int.from_bytes(element.value, "little" if element.is_little_endian else "big")
    return element.value if element is not None and isinstance(element.value, int) else None


def specific_character_set(attributes: Dataset) -> tuple[str, ...]:
    """Return the values of Specific Character Set (0008,0005), as received."""
    element = _element(attributes, "SpecificCharacterSet")
    if element is None or not element.value:
        return ()
    value = element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    terms = value.split("\\") if isinstance(value, str) else value
    return tuple(str(term).strip(_PADDING) for term in terms)


def decode(value: bytes, character_sets: Sequence[str]) -> str:
    """Decode text in these values of Specific Character Set, with code extensions (PS3.5 6.1.2).

    Never fails: an unknown character set counts as ISO_IR 100, bytes that mean nothing become U+FFFD.
    """
    if _ESCAPE not in value:
        return value.decode("ascii" if value.isascii() else _first_codec(character_sets), "replace")
    return "".join(_decode_fragment(part, _first_codec(character_sets)) for part in _FRAGMENT.findall(value))


def _decode_fragment(fragment: bytes, first: str) -> str:
    """Decode what stands between two escape sequences; `first` is the codec that no escape sequence asks for."""
    escape = next((escape for escape in CODES_TO_ENCODINGS if fragment.startswith(escape)), None)
    if escape is None:
        return fragment.lstrip(_ESCAPE).decode(first, "replace")
    codec = CODES_TO_ENCODINGS[escape]
    if codec in _STATEFUL:
        return fragment.decode(codec, "replace")
    rest = fragment[len(escape) :]
    delimiter = _DELIMITER.search(rest)
    end = delimiter.start() if delimiter else len(rest)
    return rest[:end].decode(codec, "replace") + rest[end:].decode(first, "replace")


def _first_codec(character_sets: Sequence[str]) -> str:
    return _CODECS.get(_spelled_alike(character_sets[0]), _DEFAULT) if character_sets else _DEFAULT


def _spelled_alike(term: str) -> str:
    """Make the usual misspellings alike: ISO-IR 100, ISO IR_192."""
    return term.upper().replace("_", " ").replace("-", " ")


_CODECS = {_spelled_alike(term): codec for term, codec in python_encoding.items()}


def _element(attributes: Dataset, keyword: str) -> DataElement | RawDataElement | None:
    return attributes.get_item(_tag(keyword), keep_deferred=True)


@functools.cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return Tag(tag)
