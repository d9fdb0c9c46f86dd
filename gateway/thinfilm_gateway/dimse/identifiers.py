"""Identifiers, the data sets of messages other than C-STORE, from and to bytes (PS3.4 C.4, Annex J; PS3.5 7)."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from thinfilm_gateway.dicom.character_sets import GOVERNED_VRS, CharacterSet
from thinfilm_gateway.dicom.element_tree import Element, Elements, Value, encode, inflate, parse
from thinfilm_gateway.dicom.elements import MalformedElements, Walker, declared_encoding
from thinfilm_gateway.dicom.tags import QUERY_RETRIEVE_LEVEL, SPECIFIC_CHARACTER_SET
from thinfilm_gateway.dicom.values import whole_number

_LARGEST = 16 * 1024**2  # of a deflated identifier: a UID list of 65,535 instances is 4 MiB
_MOST_ELEMENTS = 1000  # queries have tens
_MOST_OTHER_BYTES = 256 * 1024  # of all headers, and of all values but lists of UID
_MOST_SEPARATORS = 100_000  # a response names 65,535 failed instances at the most
_BINARY_BYTES = {"US": 2, "SS": 2, "UL": 4, "SL": 4}
_UID_LISTS = frozenset((0x00080016, 0x00080018, 0x00080062, 0x0020000D, 0x0020000E))
_NULL_PADDED = frozenset(("UI", "OB", "UN"))


class UnreadableIdentifier(Exception):
    """The bytes are no identifier; the message is one sentence."""


@dataclass(frozen=True)
class Key:
    """One attribute of an identifier.

    value: its text without padding, several values joined by backslashes; "" for universal matching and for sequences.
    """

    tag: int
    vr: str
    keyword: str
    value: str


@dataclass(frozen=True)
class Identifier:
    """The keys of a request, in its order, without Specific Character Set and Query/Retrieve Level."""

    level: str
    character_set: CharacterSet
    keys: tuple[Key, ...]

    def value(self, keyword: str) -> str:
        """Return the value of a key; empty if it is absent or universal."""
        return next((key.value for key in self.keys if key.keyword == keyword), "")


def decode_elements(raw: bytes, transfer_syntax_uid: str) -> Elements:
    """Read the data set of a request. Raises UnreadableIdentifier."""
    try:
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            raw = inflate(raw, _LARGEST)
        return parse(raw, declared_encoding(transfer_syntax_uid))
    except MalformedElements as error:
        raise UnreadableIdentifier(str(error)) from error


def decode_identifier(raw: bytes, transfer_syntax_uid: str) -> Identifier:
    """Read the identifier of a request. Raises UnreadableIdentifier, also if it is larger than any honest one."""
    try:
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            raw, transfer_syntax_uid = inflate(raw, _LARGEST), ExplicitVRLittleEndian
    except MalformedElements as error:
        raise UnreadableIdentifier(str(error)) from error
    _refuse_if_excessive(raw, transfer_syntax_uid)
    elements = decode_elements(raw, transfer_syntax_uid)
    character_set = CharacterSet.of(elements.text(SPECIFIC_CHARACTER_SET))
    keys = tuple(
        Key(element.tag, element.vr, keyword_for_tag(element.tag), _text(element, character_set))
        for element in elements.elements
        if element.tag not in (SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL)
    )
    return Identifier(elements.text(QUERY_RETRIEVE_LEVEL), character_set, keys)


def _refuse_if_excessive(raw: bytes, transfer_syntax_uid: str) -> None:
    """Bound what is to be read before anything is made of it: elements, their nesting included, values and lengths."""
    if len(raw) <= _MOST_OTHER_BYTES // 8:
        return
    others = 0
    try:
        elements = Walker(memoryview(raw)).data_set(declared_encoding(transfer_syntax_uid))
        for number, element in enumerate(elements, 1):
            is_list = element.tag in _UID_LISTS and not element.undefined_length
            others += 8 if is_list else 8 + element.value_end - element.value_offset
            if number > _MOST_ELEMENTS:
                raise UnreadableIdentifier(f"It has more than {_MOST_ELEMENTS} elements.")
            if others > _MOST_OTHER_BYTES:
                raise UnreadableIdentifier(f"Beside lists of UID it has more than {_MOST_OTHER_BYTES} bytes.")
    except MalformedElements as error:
        raise UnreadableIdentifier(str(error)) from error
    if raw.count(b"\\") > _MOST_SEPARATORS:
        raise UnreadableIdentifier(f"It has more than {_MOST_SEPARATORS} values.")


def encode_identifier(elements: Iterable[Element], transfer_syntax_uid: str) -> bytes:
    """Return the bytes of an identifier; its values are made by `value_of`."""
    encoded = b"".join(encode(Elements(sorted(elements, key=_tag)), declared_encoding(transfer_syntax_uid)))
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = compressor.compress(encoded) + compressor.flush()
        encoded += b"\0" * (len(encoded) % 2)
    return encoded


def value_of(text: str, vr: str, character_set: CharacterSet, transfer_syntax_uid: str) -> Value:
    """Return the bytes of a value, padded to even length; an empty sequence for SQ.

    Of numbers that the VR cannot hold, the value is empty. Raises UnicodeEncodeError if the set lacks a character.
    """
    if vr == "SQ":
        return b""
    if vr in _BINARY_BYTES:
        order = "little" if declared_encoding(transfer_syntax_uid).little_endian else "big"
        size = _BINARY_BYTES[vr]
        found = [whole_number(number) for number in text.split("\\")] if text else []
        numbers = [number for number in found if number is not None]
        try:
            raw = b"".join(number.to_bytes(size, order, signed=vr[0] == "S") for number in numbers)  # type: ignore[arg-type]
        except OverflowError:
            raw = b""
        return raw if len(raw) == size * len(found) else b""
    is_name = vr == "PN"
    raw = character_set.encode(text, person_name=is_name) if vr in GOVERNED_VRS else text.encode("ascii", "replace")
    return raw + (b"\0" if vr in _NULL_PADDED else b" ") * (len(raw) % 2)


def _text(element: Element, character_set: CharacterSet) -> str:
    value = element.value
    if not isinstance(value, bytes | memoryview):
        return ""
    raw = bytes(value)
    if element.vr in _BINARY_BYTES:
        size = _BINARY_BYTES[element.vr]
        numbers = (raw[start : start + size] for start in range(0, len(raw) // size * size, size))
        return "\\".join(str(int.from_bytes(number, "little", signed=element.vr[0] == "S")) for number in numbers)
    text = character_set.decode(raw, person_name=element.vr == "PN") if element.vr in GOVERNED_VRS else None
    return "\\".join(part.strip(" \0") for part in (text or raw.decode("latin_1")).split("\\"))


def _tag(element: Element) -> int:
    return element.tag
