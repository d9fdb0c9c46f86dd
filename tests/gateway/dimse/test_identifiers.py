"""Identifiers are bounded before they are read: in bytes, elements, values and lengths."""

import struct
import time
import zlib

import pytest

from thinfilm_gateway.dimse.identifiers import UnreadableIdentifier, decode_identifier

IMPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
EMPTY = b"".join(struct.pack("<HHL", 0x0009 + 2 * (n >> 15), n & 0x7FFF, 0) for n in range(1 << 20))


def element(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


BOMBS = {
    "empty elements": (EMPTY, "more than 1000 elements"),
    "a long name": (element(0x10, 0x10, b"A" * (1 << 24)), "more than 262144 bytes"),
    "items": (element(0x40, 0x275, struct.pack("<HHL", 0xFFFE, 0xE000, 1 << 23) + EMPTY), "more than 262144 bytes"),
    "values": (element(0x20, 0xD, b"\\" * (1 << 24)), "more than 100000 values"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_no_honest_peer_sends_is_refused_at_once(name: str) -> None:
    raw, sentence = BOMBS[name]
    started = time.process_time()
    with pytest.raises(UnreadableIdentifier, match=sentence):
        decode_identifier(raw, IMPLICIT)
    assert time.process_time() - started < 2


def test_a_deflated_one_is_bounded_too() -> None:
    explicit = b"".join(struct.pack("<HH2sH", 0x0009, n, b"LO", 0) for n in range(0x1000, 0xFFFF))
    with pytest.raises(UnreadableIdentifier, match="more than 1000 elements"):
        decode_identifier(zlib.compress(explicit, wbits=-15), DEFLATED)


def test_a_list_of_all_the_instances_that_can_be_retrieved_at_once_is_read() -> None:
    uids = "\\".join(f"1.2.826.0.1.3680043.10.9999.66509150499063775350051511884.{n:04}" for n in range(65_535))
    raw = element(0x8, 0x18, uids.encode() + b"\0" * (len(uids) % 2)) + element(0x8, 0x52, b"IMAGE ")
    assert decode_identifier(raw, IMPLICIT).value("SOPInstanceUID") == uids
