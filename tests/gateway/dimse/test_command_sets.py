"""The command sets that the gateway reads itself mean what pynetdicom reads in them."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

from thinfilm_gateway.dimse.command_sets import C_STORE_RQ, DATA_SET, NO_DATA_SET, encoded, store_request

REQUEST: dict[str, str | int] = {
    "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "CommandField": C_STORE_RQ,
    "MessageID": 7,
    "Priority": 0,
    "CommandDataSetType": DATA_SET,
    "AffectedSOPInstanceUID": "1.2.3",
}

uids = st.from_regex(r"[1-9][0-9]{0,10}(\.(0|[1-9][0-9]{0,10})){1,4}", fullmatch=True)
numbers = st.integers(0, 0xFFFF)


def read_by_pynetdicom(command_set: bytes) -> Any:
    indication = P_DATA()
    indication.presentation_data_value_list.append((1, b"\x03" + command_set))
    message = DIMSEMessage()
    message.decode_msg(indication)
    return message.message_to_primitive()


@given(uids, uids, numbers, st.sampled_from((0, 1, 2)), numbers.filter(lambda kind: kind != NO_DATA_SET))
def test_a_plain_request_is_what_pynetdicom_makes_of_it(
    sop_class: str, sop_instance: str, message_id: int, priority: int, kind: int
) -> None:
    command_set = encoded(
        REQUEST
        | {"AffectedSOPClassUID": sop_class, "AffectedSOPInstanceUID": sop_instance}
        | {"MessageID": message_id, "Priority": priority, "CommandDataSetType": kind}
    )
    read, expected = store_request(command_set), read_by_pynetdicom(command_set)
    for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "MessageID", "Priority", "is_valid_request"):
        assert getattr(read, keyword) == getattr(expected, keyword)
    assert read.is_valid_request
    assert read.MoveOriginatorApplicationEntityTitle is read.MoveOriginatorMessageID is None


@pytest.mark.parametrize(
    "change",
    [
        {"CommandField": 0x0020},
        {"CommandDataSetType": NO_DATA_SET},
        {"Priority": 3},
        {"AffectedSOPInstanceUID": "1.2.x"},
        {"AffectedSOPInstanceUID": "1.2\\1.3"},
        {"AffectedSOPInstanceUID": ""},
        {"AffectedSOPInstanceUID": "1." * 33 + "1"},
        {"MoveOriginatorApplicationEntityTitle": "OTHER"},
    ],
)
def test_what_is_not_plain_is_left_to_pynetdicom(change: dict[str, str | int]) -> None:
    assert store_request(encoded(REQUEST | change)) is None


def test_what_lacks_an_attribute_is_left_to_pynetdicom() -> None:
    for keyword in REQUEST.keys() - {"CommandField"}:
        assert store_request(encoded({name: REQUEST[name] for name in REQUEST if name != keyword})) is None


@pytest.mark.parametrize("twice", [(0x0000, 0x0110), (0x0008, 0x0018)])
def test_an_attribute_that_comes_twice_or_of_another_group_is_left_to_pynetdicom(twice: tuple[int, int]) -> None:
    assert store_request(encoded(REQUEST) + struct.pack("<HHLH", *twice, 2, 1)) is None


@given(st.integers(0, len(encoded(REQUEST)) - 1), st.integers(0, 255), st.binary(max_size=4))
def test_damaged_command_sets_are_left_to_pynetdicom_or_plain(place: int, octet: int, more: bytes) -> None:
    damaged = bytearray(encoded(REQUEST))
    damaged[place] = octet
    read = store_request(bytes(damaged) + more)
    assert read is None or read.is_valid_request
