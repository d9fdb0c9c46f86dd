"""Requests whose command sets are not as the standard has them: served as others serve them, never aborted."""

import struct
from collections.abc import Iterator

import pytest
import structlog

from support.association_requests import (
    ACCEPT,
    DATA,
    EXPLICIT,
    IMPLICIT,
    Caller,
    Request,
    caller,
    command,
    context,
    echo_request,
    status,
)
from support.datasets import CT_IMAGE, ct_series
from support.receiver import Running, running_receiver

FIND, MOVE, GET = (b"1.2.840.10008.5.1.4.1.2.2." + digit for digit in (b"1", b"2", b"3"))
ECHO_CONTEXT, FIND_CONTEXT, MOVE_CONTEXT, GET_CONTEXT, STORE_CONTEXT = 1, 3, 5, 7, 9
KEYS = struct.pack("<HHL", 0x0008, 0x0052, 6) + b"STUDY " + struct.pack("<HHL", 0x0020, 0x000D, 0)
ONE_STUDY = KEYS[:-4] + struct.pack("<L", 6) + b"1.2.3\0"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


@pytest.fixture
def peer(receiver: Running) -> Iterator[Caller]:
    """An association for all services; fails if it does not end in order, or anything is logged as an error."""
    contexts = context(ECHO_CONTEXT) + context(FIND_CONTEXT, FIND) + context(MOVE_CONTEXT, MOVE)
    contexts += context(GET_CONTEXT, GET) + context(STORE_CONTEXT, CT_IMAGE.encode(), (EXPLICIT,))
    with structlog.testing.capture_logs() as logs, caller(receiver.port) as one:
        one.send(Request(contexts=contexts).pdu())
        assert one.read()[0] == ACCEPT
        yield one
        one.release()
    assert not [line for line in logs if line["log_level"] in ("error", "critical") or "exc_info" in line]


def ask(peer: Caller, number: int, command_set: bytes, data: bytes) -> int:
    """Send a request with a data set; return the status of its response."""
    for control, fragment in ((3, command_set), (2, data)):
        peer.send(struct.pack(">BxLLBB", DATA, 6 + len(fragment), 2 + len(fragment), number, control) + fragment)
    kind, body = peer.read()
    assert kind == DATA
    return status(body[6:])


def request(field: int, sop_class: bytes, **values: bytes) -> bytes:
    """Encode the command set of a request, with other or further elements if given."""
    plain = {
        "e0002": sop_class,
        "e0100": struct.pack("<H", field),
        "e0110": b"\7\0",
        "e0700": b"\0\0",
        "e0800": b"\1\0",
    }
    return command(**{name: value for name, value in {**plain, **values}.items() if value})


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"e0002": b"1.2.840.10008.1.1 "}, id="UID padded with a blank"),
        pytest.param({"e0002": b"1.2.840.10008.1.1\0\0\0"}, id="UID padded with three NUL"),
        pytest.param({"e0002": b""}, id="empty SOP class"),
        pytest.param({"e0110": b"\7\0\0\0"}, id="message id of four bytes"),
        pytest.param({"e0110": b"\7"}, id="message id of one byte"),
        pytest.param({"e0700": b"\x09\0"}, id="a priority"),
        pytest.param({"e0000": b"\xff\xff\0\0"}, id="wrong group length"),
        pytest.param({"e0001": b"x" * 20, "e4000": b"retired", "e5555": b""}, id="elements that are not known"),
        pytest.param({"e0600": b"\xff\xfe\x1b["}, id="a destination"),
        pytest.param({"e0902": "Röntgen".encode() * 40}, id="an error comment"),
        pytest.param({"e1030": b" " * 16, "e1031": b""}, id="an empty originator"),
        pytest.param({"e1002": b"abc", "e1008": b"\1", "e0900": b"\xff"}, id="numbers that are none"),
    ],
)
def test_an_odd_echo_is_answered(peer: Caller, values: dict[str, bytes]) -> None:
    assert status(peer.echo(echo_request(**values))) == 0


PRIORITIES = [
    pytest.param(b"\3\0", id="3"),
    pytest.param(b"\xff\xff", id="65535"),
    pytest.param(b"\1", id="one byte"),
    pytest.param(b"\0\0\1\0", id="two values"),
    pytest.param(b"", id="none"),
]


@pytest.mark.parametrize("priority", PRIORITIES)
def test_any_priority_is_served(peer: Caller, priority: bytes) -> None:
    (image,) = ct_series(1, size=16, series=f"priority {priority!r}")
    store = {"e0700": priority, "e1000": image.sop_instance_uid.encode().ljust(64, b"\0")}
    assert ask(peer, FIND_CONTEXT, request(0x0020, FIND, e0700=priority), ONE_STUDY) == 0
    assert ask(peer, MOVE_CONTEXT, request(0x0021, MOVE, e0700=priority, e0600=b"NOWHERE "), ONE_STUDY) == 0xA801
    assert ask(peer, GET_CONTEXT, request(0x0010, GET, e0700=priority), ONE_STUDY) == 0
    assert ask(peer, STORE_CONTEXT, request(0x0001, CT_IMAGE.encode() + b"\0", **store), image.dataset) == 0


@pytest.mark.parametrize(
    "destination", [b"", b"                ", b"NO\0", b"NO\0WHERE\x1b[2J", b"\xc3\x96RTLICH ", b"A" * 40, b"A\\B "]
)
def test_a_destination_that_is_none_is_unknown(peer: Caller, destination: bytes) -> None:
    assert ask(peer, MOVE_CONTEXT, request(0x0021, MOVE, e0600=destination), ONE_STUDY) == 0xA801


def test_a_destination_padded_with_nul_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    peers = [{"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 11}]
    with running_receiver(tmp_path_factory.mktemp("move"), peers=peers) as receiver, caller(receiver.port) as peer:
        peer.send(Request(contexts=context(MOVE_CONTEXT, MOVE, (IMPLICIT,))).pdu())
        assert peer.read()[0] == ACCEPT
        move = request(0x0021, MOVE, e0600=b"ARCHIVE".ljust(16, b"\0"))
        assert ask(peer, MOVE_CONTEXT, move, ONE_STUDY) == 0  # nothing to send
