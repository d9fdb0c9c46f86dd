"""Requests for associations, as other implementations write them: accepted or rejected, never aborted."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.pdu_primitives import MaximumLengthNotification

from support.association_requests import (
    ABSTRACT,
    ACCEPT,
    APPLICATION_CONTEXT,
    CLASS_UID,
    COMMON,
    CONTEXT,
    DATA,
    DICOM,
    EXPLICIT,
    EXTENDED,
    IDENTITY,
    IMPLICIT,
    INFORMATION,
    MAXIMUM_LENGTH,
    REJECT,
    RELEASE,
    RELEASED,
    ROLE,
    TRANSFER,
    VERIFICATION,
    VERSION_NAME,
    WINDOW,
    Caller,
    Request,
    caller,
    command,
    context,
    echo_request,
    item,
    role,
    status,
)
from support.datasets import ct_series
from support.query_retrieve import gateway_with, identifier, move
from support.receiver import Running, running_receiver
from support.upper_layer import associate_request
from thinfilm_gateway.dimse import association_pdus
from thinfilm_gateway.dimse.association_pdus import InvalidPdu

CT_IMAGE = b"1.2.840.10008.5.1.4.1.1.2"
GOOD = Request()
CLASS = item(CLASS_UID, b"1.2.3")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_receiver(tmp_path_factory.mktemp("receiver"), unknown_peers="all") as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Running]:
    """A receiver that looks at titles."""
    peers = [{"ae_title": "SCANNER", "host": "127.0.0.1"}]
    with running_receiver(tmp_path, peers=peers, unknown_peers="none", check_called_ae_title=True) as running:
        yield running


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(Request(calling=b"SCANNER".ljust(16, b"\0")), id="calling title padded with NUL"),
        pytest.param(Request(calling=b"SCANNER\0 junk!!!"), id="calling title ended by NUL"),
        pytest.param(Request(called=b"THINFILM".ljust(16, b"\0")), id="called title padded with NUL"),
        pytest.param(Request(called=b"  THINFILM".ljust(16)), id="called title with blanks before it"),
        pytest.param(Request(version=3), id="version 1 and another"),
        pytest.param(Request(information=CLASS), id="no maximum length"),
        pytest.param(Request(information=b""), id="no user information at all"),
        pytest.param(Request(information=item(MAXIMUM_LENGTH, b"") + CLASS), id="maximum length without a value"),
        pytest.param(Request(information=GOOD.information + item(VERSION_NAME, b"A" * 17)), id="17 letters of version"),
        pytest.param(Request(information=GOOD.information + item(VERSION_NAME, b"A" * 3000)), id="3000 letters"),
        pytest.param(Request(information=GOOD.information + item(VERSION_NAME, b"")), id="empty version name"),
        pytest.param(Request(information=GOOD.information + item(VERSION_NAME, b"\xe9\x1b[2J")), id="version no ASCII"),
        pytest.param(Request(information=GOOD.information + item(0x5F, b"what?")), id="unknown sub-item"),
        pytest.param(Request(information=item(0x00, b"") + GOOD.information), id="sub-item of type 0"),
        pytest.param(Request(information=GOOD.information * 3), id="sub-items several times"),
        pytest.param(Request(information=GOOD.information + item(CLASS_UID, b"not a UID")), id="class UID not a UID"),
        pytest.param(Request(information=GOOD.information + item(CLASS_UID, b"")), id="empty class UID"),
        pytest.param(Request(information=GOOD.information + item(WINDOW, b"\0\5\0\5")), id="operations window"),
        pytest.param(Request(information=GOOD.information + item(WINDOW, b"\0")), id="half an operations window"),
        pytest.param(
            Request(information=GOOD.information + item(IDENTITY, b"\2\1\0\4user\0\4pass")), id="user and password"
        ),
        pytest.param(Request(information=GOOD.information + item(IDENTITY, b"\x09")), id="identity of no kind"),
        pytest.param(
            Request(information=GOOD.information + item(EXTENDED, struct.pack(">H", 25) + CT_IMAGE + b"\2\0\0\0\0\0")),
            id="extended negotiation of storage",
        ),
        pytest.param(Request(information=GOOD.information + item(EXTENDED, b"\xff\xff")), id="extended, too short"),
        pytest.param(
            Request(information=GOOD.information + item(COMMON, struct.pack(">H", 25) + CT_IMAGE + b"\0\x011\0\0")),
            id="common extended negotiation",
        ),
        pytest.param(Request(information=GOOD.information + role(VERIFICATION, 0, 0)), id="no role for a service"),
        pytest.param(Request(information=GOOD.information + role(VERIFICATION, 7, 9)), id="roles above 1"),
        pytest.param(Request(information=GOOD.information + item(ROLE, b"\0")), id="half a role"),
        pytest.param(Request(information=GOOD.information + item(ROLE, b"\xff\xff1.2\1\1")), id="role with a long UID"),
        pytest.param(Request(further=item(0x99, b"item of the future")), id="unknown item"),
        pytest.param(Request(further=GOOD.application), id="application context twice"),
        pytest.param(Request(further=context(1)), id="context twice"),
        pytest.param(Request(further=item(CONTEXT, b"\x05\0\0\0")), id="context without syntaxes"),
        pytest.param(Request(further=context(7, b"", ())), id="context with an empty abstract syntax"),
        pytest.param(Request(further=context(7, VERIFICATION, ())), id="context without transfer syntaxes"),
        pytest.param(Request(further=context(7, VERIFICATION, (b"", b"x", b"1." * 40))), id="no transfer syntaxes"),
        pytest.param(Request(further=item(CONTEXT, b"\7\0\0\0" + item(0x77, b"?"))), id="context with an unknown item"),
        pytest.param(Request(contexts=context(1, VERIFICATION + b"\0", (IMPLICIT + b"\0",))), id="UIDs with padding"),
        pytest.param(
            Request(contexts=b"".join(context(number) for number in range(1, 256))), id="255 contexts, even ids too"
        ),
    ],
)
def test_what_others_serve_is_served(receiver: Running, gate: Running, request_: Request) -> None:
    for one in (receiver, gate):
        with structlog.testing.capture_logs() as logs, caller(one.port) as peer:
            peer.send(request_.pdu())
            assert peer.read()[0] == ACCEPT
            assert status(peer.echo(echo_request())) == 0
            peer.release()
        assert not [line for line in logs if line["log_level"] in ("error", "critical")]


@pytest.mark.parametrize(
    ("request_", "rejection"),
    [
        pytest.param(Request(calling="RÖNTGEN".encode("latin-1").ljust(16)), (1, 1, 3), id="calling title not ASCII"),
        pytest.param(Request(calling=b"\x1b[2JSCANNER".ljust(16)), (1, 1, 3), id="calling title with an escape"),
        pytest.param(Request(calling=b" " * 16), (1, 1, 3), id="blank calling title"),
        pytest.param(Request(called=b" " * 16), (1, 1, 7), id="blank called title"),
        pytest.param(Request(called=b"\0" * 16), (1, 1, 7), id="called title of NUL"),
        pytest.param(Request(called=b"\xff" * 16), (1, 1, 7), id="called title not ASCII"),
        pytest.param(Request(application=item(APPLICATION_CONTEXT, b"1.2.3")), (1, 1, 2), id="foreign application"),
        pytest.param(Request(application=item(APPLICATION_CONTEXT, b"")), (1, 1, 2), id="empty application"),
        pytest.param(Request(application=b""), (1, 1, 2), id="no application"),
        pytest.param(Request(version=2), (1, 2, 2), id="another version"),
        pytest.param(Request(contexts=b""), (1, 1, 1), id="no context"),
        pytest.param(Request(further=context(1, CT_IMAGE)), (1, 1, 1), id="two contexts with one id"),
        pytest.param(Request(further=item(CONTEXT, b"\1")), (1, 1, 1), id="context without an id"),
        pytest.param(Request(further=item(0x99, b"?", 3000)), (1, 1, 1), id="item longer than the PDU"),
        pytest.param(Request(further=b"\0"), (1, 1, 1), id="surplus byte"),
        pytest.param(Request(information=item(VERSION_NAME, b"A", 2)), (1, 1, 1), id="sub-item longer than its item"),
        pytest.param(Request(information=item(MAXIMUM_LENGTH, b"\0\0\0\1")), (1, 1, 1), id="hardly a fragment"),
    ],
)
def test_what_cannot_be_served_is_rejected_with_a_reason(
    gate: Running, request_: Request, rejection: tuple[int, int, int]
) -> None:
    with structlog.testing.capture_logs() as logs, caller(gate.port) as peer:
        peer.send(request_.pdu())
        assert peer.read() == (REJECT, bytes([0, *rejection]))
    (line,) = [line for line in logs if line["event"] == "association_rejected"]
    assert line["reason"].endswith(".")
    assert line["peer"].isprintable()
    assert not [line for line in logs if line["log_level"] in ("error", "critical")]


def test_a_peer_that_gives_no_called_title_is_served_where_nobody_looks_at_it(receiver: Running) -> None:
    for called in (b" " * 16, b"\0" * 16, b"\xc3" * 16):
        with caller(receiver.port) as peer:
            peer.send(Request(called=called).pdu())
            assert peer.read()[0] == ACCEPT


def test_an_echo_goes_over_a_context_with_an_even_id(receiver: Running) -> None:
    with caller(receiver.port) as peer:
        peer.send(Request(contexts=context(2) + context(0)).pdu())
        kind, _ = peer.read()
        assert kind == ACCEPT
        assert [status(peer.echo(echo_request(), number)) for number in (2, 0)] == [0, 0]


def test_a_bare_pdu_is_rejected_whatever_its_length(receiver: Running) -> None:
    whole = GOOD.pdu()[6:]
    for length in (0, 1, 4, 20, 67, 68, 69, len(whole) - 1):
        with caller(receiver.port) as peer:
            peer.send(struct.pack(">BxL", 1, length) + whole[:length])
            kind, _ = peer.read()
            assert kind == REJECT, f"of {length} bytes"


_uids = st.one_of(
    st.sampled_from([VERIFICATION, CT_IMAGE, IMPLICIT, EXPLICIT, b"", b"1.2.3\0", b"1.2.840.10008.5.1.4.1.2.2.3"]),
    st.binary(max_size=70),
)
_declared = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 0xFFFF))
_sub_items = st.builds(
    item,
    st.one_of(st.integers(0x51, 0x58), st.integers(0, 255)),
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda uid, scu, scp: struct.pack(">H", len(uid)) + uid + bytes([scu, scp]),
            _uids,
            *2 * [st.integers(0, 255)],
        ),
        st.integers(0, 2**32 - 1).map(lambda number: struct.pack(">L", number)),
    ),
    _declared,
)
_contexts = st.builds(
    lambda fields, items, declared: item(CONTEXT, fields + b"".join(items), declared),
    st.binary(max_size=5),
    st.lists(st.builds(item, st.sampled_from([ABSTRACT, TRANSFER, TRANSFER, 0x31]), _uids, _declared), max_size=5),
    _declared,
)
_good_contexts = st.builds(context, st.integers(0, 255), _uids, st.lists(_uids, max_size=4))
_requests = st.builds(
    Request,
    called=st.one_of(st.just(GOOD.called), st.binary(min_size=16, max_size=16)),
    calling=st.one_of(st.just(GOOD.calling), st.binary(min_size=16, max_size=16)),
    version=st.sampled_from([1, 1, 1, 0, 2, 0xFFFF]),
    application=st.sampled_from([GOOD.application] * 4 + [b"", item(APPLICATION_CONTEXT, b"1.2")]),
    contexts=st.lists(st.one_of(_good_contexts, _contexts), max_size=6).map(b"".join),
    information=st.lists(_sub_items, max_size=6).map(b"".join),
    further=st.one_of(
        st.just(b""), st.builds(item, st.integers(0, 255), st.binary(max_size=40), _declared), st.binary(max_size=8)
    ),
)
_cut = st.builds(lambda request, end: request.pdu()[6:][:end], _requests, st.one_of(st.none(), st.integers(0, 400)))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=_cut)
def test_every_request_is_accepted_or_rejected(receiver: Running, body: bytes) -> None:
    with structlog.testing.capture_logs() as logs, caller(receiver.port) as peer:
        peer.send(struct.pack(">BxL", 1, len(body)) + body)
        kind, _ = peer.read()
        assert kind in (ACCEPT, REJECT)
        if kind == ACCEPT:
            peer.release()
    assert not [line for line in logs if line["log_level"] in ("error", "critical")]
    assert not [line for line in logs if "exc_info" in line]


@settings(max_examples=500, deadline=None)
@given(kind=st.sampled_from([1, 2, 3, 5, 6, 7]), body=st.one_of(_cut, st.binary(max_size=100)))
def test_every_pdu_is_read_and_only_an_acceptance_that_is_none_refused(kind: int, body: bytes) -> None:
    with contextlib.suppress(*[InvalidPdu] if kind == ACCEPT else []):
        pdu, event = association_pdus.read(kind, body)
        assert event.startswith("Evt")
        assert pdu.to_primitive() is not None


def test_the_request_of_pynetdicom_is_read_as_it_was_meant() -> None:
    pdu, event = association_pdus.read(1, associate_request()[6:])
    request: Any = pdu.to_primitive()
    assert event == "Evt6"
    assert request.fault is None
    assert (request.calling_ae_title, request.called_ae_title) == ("FUZZ", "THINFILM")
    assert [one.context_id for one in request.proposed] == [1, 3, 5]
    (largest,) = [one for one in request.user_information if isinstance(one, MaximumLengthNotification)]
    assert largest.maximum_length_received == 16384


ACCEPTED = struct.pack(">HH", 1, 0) + b"\0" * 64 + item(APPLICATION_CONTEXT, DICOM)
STORED_IN = item(0x21, b"\1\0\0\0" + item(TRANSFER, EXPLICIT + b"\0"))


@pytest.mark.parametrize(
    ("items", "largest"),
    [
        pytest.param(STORED_IN + item(INFORMATION, GOOD.information), 16384, id="as it should be"),
        pytest.param(STORED_IN, 0, id="without user information"),
        pytest.param(
            STORED_IN + item(INFORMATION, item(VERSION_NAME, b"A" * 40) + item(0x60, b"?")), 0, id="odd items"
        ),
        pytest.param(item(0x99, b"?") + STORED_IN + item(0x21, b"\3\3\0\0"), 0, id="a bare refused context"),
    ],
)
def test_an_acceptance_is_read_as_others_write_it(items: bytes, largest: int) -> None:
    pdu, event = association_pdus.read(2, ACCEPTED + items)
    accepted: Any = pdu.to_primitive()
    assert (event, accepted.result) == ("Evt3", 0)
    context = accepted.presentation_context_definition_results_list[0]
    assert (context.context_id, context.result, context.transfer_syntax) == (1, 0, [EXPLICIT.decode()])
    assert accepted.user_information[0].maximum_length_received == largest


@pytest.mark.parametrize("body", [b"", b"\0\1", b"\0\xff\xff\xff", b"\0\1\1\x0a", b"\0\2\3\2"])
def test_a_rejection_is_one_whatever_its_values(body: bytes) -> None:
    rejected: Any = association_pdus.read(3, body)[0].to_primitive()
    assert rejected.result in (1, 2)
    assert rejected.diagnostic in (1, 2, 3, 7)


def test_a_destination_that_answers_oddly_gets_its_objects(tmp_path: Path) -> None:
    (image,) = ct_series(1, 32)
    server = socket.create_server(("127.0.0.1", 0))
    peers = [{"ae_title": "ODD", "host": "127.0.0.1", "port": server.getsockname()[1]}]
    with server, gateway_with(tmp_path, [image], peers=peers) as running, ThreadPoolExecutor(1) as pool:
        moved = pool.submit(move, running.port, identifier("PATIENT", PatientID="T-001"), "ODD", "PATIENT")
        connection, _ = server.accept()
        with connection:
            peer = Caller(connection)
            assert peer.read()[0] == 1
            body = ACCEPTED + STORED_IN + item(0x99, b"?") + item(INFORMATION, item(VERSION_NAME, b"A" * 40))
            peer.send(struct.pack(">BxL", ACCEPT, len(body)) + body)
            received = b""
            while not received.endswith(image.dataset[-64:]):
                received += peer.read()[1]
            answer = command(
                e0002=CT_IMAGE + b"\0",
                e0100=b"\1\x80",
                e0120=b"\1\0\0\0",
                e0800=b"\1\1",
                e0900=b"\0\0",
                e0902=b"\xff\x1b",
            )
            peer.send(struct.pack(">BxLLBB", DATA, 6 + len(answer), 2 + len(answer), 1, 3) + answer)
            assert peer.read()[0] == RELEASE
            peer.send(struct.pack(">BxL4x", RELEASED, 4))
        done = moved.result(60)
    assert done.counts == (None, 1, 0, 0)
