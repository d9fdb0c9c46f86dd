"""Command sets that the gateway sends often, encoded without detours (PS3.7 6.3.1, 9.3, Annex E).

pynetdicom builds, validates and encodes a pydicom data set for each message, which costs more than all else that a
small object or an answer to a query needs.
"""

from collections.abc import Mapping

from pynetdicom.pdu_primitives import P_DATA

from thinfilm_gateway.archive.element_tree import IMPLICIT_LITTLE, Element, Elements, encode
from thinfilm_gateway.dimse.association import Association
from thinfilm_gateway.dimse.transport import fragments_to_send

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_GET_RSP = 0x8010
C_FIND_RSP = 0x8020
C_MOVE_RSP = 0x8021

_NO_DATA_SET, _DATA_SET = 0x0101, 0x0001
_LAST_COMMAND_FRAGMENT = b"\x03"  # message control header (PS3.8 E.2)

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


def send(
    association: Association,
    context_id: int,
    command_field: int,
    values: Mapping[str, str | int],
    dataset: memoryview | None = None,
) -> None:
    """Send a message: its command set, of keyword -> value, and the encoded data set, which is not copied.

    The bytes under `dataset` must stay until the peer has answered, or the association has ended.
    """
    kind = _NO_DATA_SET if dataset is None else _DATA_SET
    command = _encode({**values, "CommandField": command_field, "CommandDataSetType": kind})
    indication = P_DATA()
    indication.presentation_data_value_list.append((context_id, _LAST_COMMAND_FRAGMENT + command))
    association.dul.send_pdu(indication)
    if dataset is not None:
        for fragment in fragments_to_send(context_id, dataset, association.dimse.maximum_pdu_size):
            association.dul.send_pdu(fragment)


def _encode(values: Mapping[str, str | int]) -> bytes:
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
