"""Command sets that the gateway meets often, encoded and decoded without detours (PS3.7 6.3.1, 9.3, Annex E).

pynetdicom makes a pydicom data set of each, which costs more than all else that a small object or an answer to a query
needs.
"""

import re
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import C_STORE

from thinfilm_gateway.dicom.element_tree import IMPLICIT_LITTLE, Element, Elements, encode

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_GET_RQ = 0x0010
C_GET_RSP = 0x8010
C_FIND_RSP = 0x8020
C_MOVE_RSP = 0x8021

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

_HEADER = struct.Struct("<HHL")  # group, element, length
_UID = re.compile(rb"([0-9.]{1,64})\0?")
_NUMBER_BYTES = 2
_PRIORITIES = (0, 1, 2)  # medium, high, low (PS3.7 E.1)
_PLAIN_STORE_REQUEST = frozenset((0x0000, 0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000))


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
    raw = value.encode("ascii", "replace")
    padding = b"\0" if _ATTRIBUTES[keyword][1] == "UI" else b" "
    return raw + padding * (len(raw) % 2)


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
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _HEADER.size <= len(command_set):
        group, element, length = _HEADER.unpack_from(command_set, offset)
        start = offset + _HEADER.size
        offset = start + length
        if group != 0 or element in found:
            return None
        found[element] = command_set[start:offset]
    return found if offset == len(command_set) else None
