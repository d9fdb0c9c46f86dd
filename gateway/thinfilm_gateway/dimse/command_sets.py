"""Command sets that the gateway meets often, encoded and decoded without detours (PS3.7 6.3.1, 9.3, Annex E).

pynetdicom makes a pydicom data set of each, which costs more than all else that a small object or an answer to a query
needs.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import C_STORE

from thinfilm_gateway.dicom.element_tree import Element, Elements, encode
from thinfilm_gateway.dicom.elements import IMPLICIT_LITTLE
from thinfilm_gateway.dimse import ae_titles
from thinfilm_gateway.dimse.status import ERROR_COMMENT_CHARACTERS

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_GET_RQ = 0x0010
C_GET_RSP = 0x8010
C_FIND_RQ = 0x0020
C_FIND_RSP = 0x8020
C_MOVE_RQ = 0x0021
C_MOVE_RSP = 0x8021
C_ECHO_RQ = 0x0030

NO_DATA_SET, DATA_SET = 0x0101, 0x0001

_ATTRIBUTES = {
    "AffectedSOPClassUID": (0x00000002, "UI"),
    "CommandField": (0x00000100, "US"),
    "MessageID": (0x00000110, "US"),
    "MessageIDBeingRespondedTo": (0x00000120, "US"),
    "Priority": (0x00000700, "US"),
    "CommandDataSetType": (0x00000800, "US"),
    "Status": (0x00000900, "US"),
    "ErrorComment": (0x00000902, "LO"),
    "AffectedSOPInstanceUID": (0x00001000, "UI"),
    "NumberOfRemainingSuboperations": (0x00001020, "US"),
    "NumberOfCompletedSuboperations": (0x00001021, "US"),
    "NumberOfFailedSuboperations": (0x00001022, "US"),
    "NumberOfWarningSuboperations": (0x00001023, "US"),
    "MoveOriginatorApplicationEntityTitle": (0x00001030, "AE"),
    "MoveOriginatorMessageID": (0x00001031, "US"),
}

# What `tidied` knows besides, of the messages that are taken: requests, and responses to what is sent from here
_FURTHER_ATTRIBUTES = {
    "RequestedSOPClassUID": (0x00000003, "UI"),
    "MoveDestination": (0x00000600, "AE"),
    "ErrorID": (0x00000903, "US"),
    "RequestedSOPInstanceUID": (0x00001001, "UI"),
    "EventTypeID": (0x00001002, "US"),
    "ActionTypeID": (0x00001008, "US"),
}
_VRS = dict([*_ATTRIBUTES.values(), *_FURTHER_ATTRIBUTES.values()])

_HEADER = struct.Struct("<HHL")  # group, element, length
_UID = re.compile(rb"([0-9.]{1,64})\0?")
_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e]")
_NUMBER_BYTES = 2
_PRIORITIES = (0, 1, 2)  # medium, high, low (PS3.7 E.1)
_AFFECTED_SOP_CLASS, _COMMAND_FIELD, _PRIORITY, _DATA_SET_TYPE = 0x0002, 0x0100, 0x0700, 0x0800
_WITH_PRIORITY = frozenset((C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ))
_ABOUT_THE_CONTEXT = _WITH_PRIORITY | {C_ECHO_RQ}
_PLAIN_STORE_REQUEST = frozenset((0x0000, 0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000))


class InvalidCommandSet(Exception):
    """The bytes are no command set; the message is one sentence."""


def encoded(values: Mapping[str, str | int]) -> bytes:
    """Encode a command set, of keyword -> value."""
    elements = [Element(*_ATTRIBUTES[keyword], _value(keyword, value)) for keyword, value in values.items()]
    elements.sort(key=lambda element: element.tag)
    body = b"".join(encode(Elements(elements), IMPLICIT_LITTLE))
    group_length = Element(0x00000000, "UL", len(body).to_bytes(4, "little"))
    return b"".join((*encode(Elements([group_length]), IMPLICIT_LITTLE), body))


def _value(keyword: str, value: str | int) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(2, "little")
    padding = b"\0" if _ATTRIBUTES[keyword][1] == "UI" else b" "
    return _even(value.encode("ascii", "replace"), padding)


def store_request(command_set: bytes) -> Any | None:
    """Decode a C-STORE request into pynetdicom's primitive, whose data set is empty since it has yet to come.

    None for every other message, for a request without a data set, and for one with an attribute or a value that is not
    plain: pynetdicom knows what to make of these.
    """
    found = _elements(command_set)
    if found is None or found.keys() != _PLAIN_STORE_REQUEST:
        return None
    numbers = {tag: int.from_bytes(value, "little") for tag, value in found.items() if len(value) == _NUMBER_BYTES}
    sop_class, sop_instance = _UID.fullmatch(found[0x0002]), _UID.fullmatch(found[0x1000])
    if sop_class is None or sop_instance is None or not numbers.keys() >= {0x0100, 0x0110, 0x0700, 0x0800}:
        return None
    if numbers[0x0100] != C_STORE_RQ or numbers[0x0800] == NO_DATA_SET or numbers[0x0700] not in _PRIORITIES:
        return None
    request: Any = C_STORE()
    request.AffectedSOPClassUID = sop_class[1].decode("ascii")
    request.AffectedSOPInstanceUID = sop_instance[1].decode("ascii")
    request.MessageID = numbers[0x0110]
    request.Priority = numbers[0x0700]
    request.DataSet = BytesIO()
    return request


def tidied(command_set: bytes, abstract_syntax: str) -> bytes:
    """Return a command set with what is odd in it made plain, so that pynetdicom takes it; for all but plain stores.

    A priority that there is not, or none, is medium; a title loses its padding; a number has its two bytes; a request
    that names no SOP class is about the abstract syntax of its context; what is not known is left out. Raises
    InvalidCommandSet if it is no list of elements, or says not which message it is.
    """
    found: dict[int, bytes] = {}
    for element, value in _listed(command_set):
        vr = _VRS.get(element)
        if vr is not None and (plain := _PLAIN[vr](value)):
            found.setdefault(element, plain)
    if _COMMAND_FIELD not in found:
        raise InvalidCommandSet("A command set has no Command Field.")
    field = int.from_bytes(found[_COMMAND_FIELD], "little")
    if field in _WITH_PRIORITY and int.from_bytes(found.get(_PRIORITY, b"\xff"), "little") not in _PRIORITIES:
        found[_PRIORITY] = b"\0\0"
    if field in _ABOUT_THE_CONTEXT:
        found.setdefault(_AFFECTED_SOP_CLASS, _even(abstract_syntax.encode("ascii"), b"\0"))
    found.setdefault(_DATA_SET_TYPE, NO_DATA_SET.to_bytes(2, "little"))
    return b"".join(_HEADER.pack(0, element, len(value)) + value for element, value in sorted(found.items()))


def store_response(request: Any, status: int) -> dict[str, str | int]:
    """Return the command set, of keyword -> value, of the response to a C-STORE request."""
    return {
        "AffectedSOPClassUID": str(request.AffectedSOPClassUID),
        "MessageIDBeingRespondedTo": request.MessageID,
        "Status": status,
        "AffectedSOPInstanceUID": str(request.AffectedSOPInstanceUID),
    }


def _elements(command_set: bytes) -> dict[int, bytes] | None:
    """Return the values by element number; None if these are not elements of group 0000, each there once."""
    try:
        listed = list(_listed(command_set))
    except InvalidCommandSet:
        return None
    found = dict(listed)
    return found if len(found) == len(listed) else None


def _listed(command_set: bytes) -> Iterator[tuple[int, bytes]]:
    """Give element numbers and values. Raises InvalidCommandSet if these are not elements of group 0000."""
    offset = 0
    while offset < len(command_set):
        if len(command_set) - offset < _HEADER.size:
            raise InvalidCommandSet("A command set ends within the header of an element.")
        group, element, length = _HEADER.unpack_from(command_set, offset)
        start = offset + _HEADER.size
        offset = start + length
        if group != 0 or offset > len(command_set):
            raise InvalidCommandSet(f"A command set has a group {group:04X}, or an element longer than itself.")
        yield element, command_set[start:offset]


def _plain_uid(value: bytes) -> bytes:
    return _even(_NOT_PRINTABLE.sub(b"?", value.rstrip(b"\0 ")), b"\0")


def _plain_title(value: bytes) -> bytes:
    return _even(ae_titles.read(value).encode("ascii"), b" ")


def _plain_text(value: bytes) -> bytes:
    return _even(_NOT_PRINTABLE.sub(b"?", value.rstrip(b"\0 "))[:ERROR_COMMENT_CHARACTERS], b" ")


def _plain_number(value: bytes) -> bytes:
    return value[:_NUMBER_BYTES].ljust(_NUMBER_BYTES, b"\0") if value else b""


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)


_PLAIN = {"UI": _plain_uid, "AE": _plain_title, "LO": _plain_text, "US": _plain_number}
