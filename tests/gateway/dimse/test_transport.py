"""The upper layer: hostile and slow peers, requests that we make ourselves, and what we rely on in pynetdicom."""

import contextlib
import inspect
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynetdicom
import pytest
from pydicom import Dataset
from pynetdicom import AE, acse, association, build_context, dimse, dimse_messages, dul, fsm, pdu, timer, transport
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from support import dcmtk
from support.datasets import CT_IMAGE, ct_series
from support.receiver import Running, running_receiver, wait_until
from support.scu import storage_user
from support.servers import free_port
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dimse import messages
from thinfilm_gateway.dimse.association import Association, request_association
from thinfilm_gateway.dimse.association_pdus import InvalidPdu
from thinfilm_gateway.dimse.transport import (
    LARGEST_OTHER_PDU,
    SEND_QUEUE_PDUS,
    SMALLEST_PDU_BYTES,
    _fragments,
    fragments_to_send,
)

MIB = 1024 * 1024
VERIFICATION = "1.2.840.10008.1.1"
ABORT, REJECT, ACCEPT, RELEASE_RESPONSE = 7, 3, 2, 6


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running_receiver(tmp_path, network_timeout_seconds=0.8) as running:
        yield running


class RawPeer:
    """A socket that speaks the upper layer by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, pdu_type: int, body: bytes, declared: int | None = None) -> None:
        length = len(body) if declared is None else declared
        self.socket.sendall(struct.pack(">BxL", pdu_type, length) + body)

    def trickle(self, count: int) -> None:
        """Send so many bytes, one by one."""
        for _ in range(count):
            self.socket.sendall(b"\0")
            select.select([], [], [], 0.05)

    def read(self) -> tuple[int, bytes]:
        """Return the type and variable field of the next PDU; (0, b"") at the end of the connection."""
        header = self._read(6)
        if not header:
            return 0, b""
        pdu_type, length = struct.unpack(">BxL", header)
        return pdu_type, self._read(length)

    def is_closed(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def associate(self, maximum_pdu_size: int = 16384) -> bytes:
        """Request an association for C-ECHO, context 1; return the answer."""
        entity = AE("RAW")
        requested = association.Association(entity, "requestor")
        requested.requestor.ae_title, requested.acceptor.ae_title = "RAW", "THINFILM"
        requested.requestor.maximum_length = maximum_pdu_size
        requested.requestor.implementation_class_uid = "1.2.3"
        requested.requestor.address_info = requested.acceptor.address_info = None
        context = build_context(VERIFICATION)
        context.context_id = 1
        requested.requestor.requested_contexts = [context]
        sent: list[Any] = []
        requested.dul.send_pdu = sent.append
        requested.acse.send_request()
        self.socket.sendall(pdu.A_ASSOCIATE_RQ(sent[0]).encode())
        pdu_type, answer = self.read()
        assert pdu_type == ACCEPT
        return answer

    def echo(self, cut: int = 0) -> None:
        """Send a C-ECHO request; its command set in fragments of `cut` bytes, if given."""
        command = echo_command()
        size = cut or len(command)
        for start in range(0, len(command), size):
            part = command[start : start + size]
            last = start + size >= len(command)
            self.send(4, struct.pack(">LBB", 2 + len(part), 1, 3 if last else 1) + part)

    def _read(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            part = self.socket.recv(length - len(received))
            if not part:
                break
            received += part
        return received


def echo_command() -> bytes:
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = 1, VERIFICATION
    message = dimse_messages.C_ECHO_RQ()
    message.primitive_to_message(request)
    (fragment,) = message.encode_msg(1, 0)
    return bytes(fragment.presentation_data_value_list[0][1][1:])


# Hostile and slow peers


@pytest.mark.parametrize(
    ("pdu_type", "body", "declared"),
    [
        pytest.param(0x04, b"", 2**32 - 1, id="a P-DATA PDU that declares 4 GiB"),
        pytest.param(0x04, b"", MIB + 1, id="a P-DATA PDU one byte above the maximum"),
        pytest.param(0x01, b"", LARGEST_OTHER_PDU + 1, id="a huge A-ASSOCIATE-RQ"),
        pytest.param(0x4D, b"an HTTP request", None, id="an unknown PDU"),
        pytest.param(0x04, b"\0\0\0", None, id="an item without a header"),
        pytest.param(0x04, struct.pack(">LBB", 100, 1, 3) + b"short", None, id="an item longer than its PDU"),
        pytest.param(0x04, struct.pack(">LBB", 1, 1, 3), None, id="an item without a control header"),
        pytest.param(0x04, struct.pack(">LBB", 2**32 - 1, 1, 3) + b"x", None, id="an item of 4 GiB"),
        pytest.param(0x04, struct.pack(">LBB", 6, 1, 3) + b"junk", None, id="a command set that is none"),
        pytest.param(0x04, struct.pack(">LBB", 6, 1, 2) + b"data", None, id="a data set without a command"),
        pytest.param(
            0x04,
            struct.pack(">LBB", 4, 1, 1) + b"\0\0" + struct.pack(">LBB", 4, 3, 3) + b"\0\0",
            None,
            id="a command set over two contexts",
        ),
        pytest.param(0x02, bytes(68), None, id="an A-ASSOCIATE-AC out of place"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_aborted_and_others_are_served(
    receiver: Running, pdu_type: int, body: bytes, declared: int | None
) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdu_type, body, declared)
        assert peer.read()[0] == ABORT
        assert dcmtk.echoscu(receiver.port).ok


def test_a_peer_that_begins_with_nonsense_is_disconnected(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.read()[0] in (ABORT, 0)
    with RawPeer(receiver.port) as peer:
        peer.send(0x01, b"\0\1" + bytes(66) + b"\x10\xff")
        assert peer.read()[0] == REJECT
    assert dcmtk.echoscu(receiver.port).ok


def test_a_command_in_many_fragments_and_pdus_is_one_command(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.echo(cut=1)
        assert peer.read()[0] == 4


def test_several_messages_in_one_pdu_are_all_answered(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        command = echo_command()
        peer.send(4, 3 * (struct.pack(">LBB", 2 + len(command), 1, 3) + command))
        assert [peer.read()[0] for _ in range(3)] == [4, 4, 4]


def test_a_flood_of_requests_is_answered_one_by_one(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        for _ in range(200):
            peer.echo()
        peer.send(5, bytes(4))
        assert [peer.read()[0] for _ in range(201)] == [4] * 200 + [RELEASE_RESPONSE]


def test_a_connection_on_which_nothing_is_asked_is_closed(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        assert peer.is_closed()


def test_an_association_that_falls_silent_is_aborted(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        assert peer.read()[0] == ABORT


@pytest.mark.parametrize("associated", [False, True])
def test_a_peer_that_sends_its_pdu_byte_by_byte_without_end_is_let_go(receiver: Running, associated: bool) -> None:
    with RawPeer(receiver.port) as peer:
        if associated:
            peer.associate()
        peer.send(4 if associated else 1, b"", declared=10_000)
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            peer.trickle(1000)  # longer than any time limit
    wait_until(lambda: not associations(), "the association is over")


@pytest.mark.parametrize("sent", [3, 6, 20])
def test_an_association_that_falls_silent_within_a_pdu_is_ended(receiver: Running, sent: int) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.socket.sendall((struct.pack(">BxL", 4, 1000) + bytes(1000))[:sent])
        assert peer.read()[0] in (ABORT, 0)
    wait_until(lambda: not associations(), "the association is over")


def test_a_peer_that_vanishes_ends_its_association_at_once(receiver: Running) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
    begun = time.monotonic()
    wait_until(lambda: not associations(), "the association is over")
    assert time.monotonic() - begun < 1


def test_an_association_that_is_over_leaves_no_thread_and_no_descriptor(receiver: Running) -> None:
    dcmtk.echoscu(receiver.port).check()
    wait_until(lambda: not associations(), "the association is over")
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        dcmtk.echoscu(receiver.port).check()
        dcmtk.echoscu(receiver.port, "--abort")
        with RawPeer(receiver.port) as peer:
            peer.associate()
    wait_until(lambda: not associations(), "the associations are over")
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_an_idle_association_costs_no_processor_time(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver, RawPeer(receiver.port) as peer:
        peer.associate()
        before = time.process_time()
        threading.Event().wait(1.0)
        assert time.process_time() - before < 0.05


def associations() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, Association | dul.DULServiceProvider)]


# Requests that we make ourselves


@pytest.mark.parametrize("maximum", [4096, 16384, 131072])
def test_a_data_set_reaches_a_peer_of_any_maximum_length_bit_for_bit(tmp_path: Path, maximum: int) -> None:
    encoded = ct_series(1, 256)[0]
    port = free_port()
    with dcmtk.storescp(port, tmp_path, "--max-pdu", str(maximum)):
        requested = request_association(entity(), "127.0.0.1", port, "STORESCP", [build_context(CT_IMAGE)])
        assert requested.is_established
        assert send_object(requested, encoded) == 0x0000
        requested.release()
    (file,) = tmp_path.iterdir()
    header = part10.locate(file.read_bytes())
    assert header is not None
    assert file.read_bytes()[header.dataset_offset :] == encoded.dataset
    assert associations() == []


def test_a_request_that_is_rejected_or_not_even_heard_is_not_established(tmp_path: Path) -> None:
    with running_receiver(tmp_path, maximum_associations=1) as receiver, storage_user(receiver.port, ct_series(1)):
        rejected = request_association(entity(), "127.0.0.1", receiver.port, "THINFILM", [build_context(VERIFICATION)])
        assert rejected.is_rejected
    unheard = request_association(entity(), "127.0.0.1", free_port(), "NOBODY", [build_context(VERIFICATION)])
    assert not unheard.is_established


@pytest.mark.parametrize("ending", ["closes", "resets", "stays silent", "takes a little now and then", "is aborted"])
def test_a_peer_that_stops_reading_holds_little_memory_and_nobody_for_ever(ending: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened: list[Association] = []
        requesting = threading.Thread(target=lambda: opened.append(request(listener.getsockname()[1])))
        requesting.start()
        connection, _ = listener.accept()
        with connection:
            accept_association(connection)
            requesting.join()
            (requested,) = opened
            dataset = memoryview(bytes(64 * MIB))
            sent: list[int] = []
            sender = threading.Thread(target=send_fragments, args=(requested, dataset, sent))
            sender.start()
            wait_until(lambda: stands_still(sent), "the sender waits for the peer")

            assert len(sent) < 40  # of 64: the rest lies in the buffers of the system
            assert requested.dul.to_provider_queue.qsize() <= SEND_QUEUE_PDUS
            begun = time.monotonic()
            if ending == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if ending in ("closes", "resets"):
                connection.close()
            if ending == "takes a little now and then":
                threading.Thread(target=take_a_little, args=(connection, sender)).start()
            if ending == "is aborted":
                requested.abort()
            sender.join(15)
            assert not sender.is_alive()
            assert time.monotonic() - begun < (3 if ending in ("closes", "resets", "is aborted") else 9)
            requested.dul.join(5)
            assert associations() == []
            assert not requested.dul.to_provider_queue.qsize()
            requested.abort()


def entity(network_timeout: float = 30) -> AE:
    made = AE("SENDER")
    made.maximum_pdu_size = MIB
    made.network_timeout = made.dimse_timeout = network_timeout
    made.connection_timeout = made.acse_timeout = 5
    return made


def request(port: int) -> Association:
    return request_association(entity(network_timeout=1), "127.0.0.1", port, "PEER", [build_context(CT_IMAGE)])


def accept_association(connection: socket.socket) -> None:
    """Answer an A-ASSOCIATE-RQ with an A-ASSOCIATE-AC of no maximum length."""
    header = connection.recv(6, socket.MSG_WAITALL)
    asked = pdu.A_ASSOCIATE_RQ()
    asked.decode(header + connection.recv(struct.unpack(">BxL", header)[1], socket.MSG_WAITALL))
    primitive = asked.to_primitive()
    (context,) = primitive.presentation_context_definition_list
    context.transfer_syntax, context.result = [context.transfer_syntax[0]], 0
    primitive.result, primitive.result_source = 0, 1
    primitive.presentation_context_definition_results_list = [context]
    primitive.maximum_length_received = 0
    connection.sendall(pdu.A_ASSOCIATE_AC(primitive).encode())


def send_fragments(requested: Association, dataset: memoryview, sent: list[int]) -> None:
    for fragment in fragments_to_send(1, dataset, 0):
        requested.dul.send_pdu(fragment)
        sent.append(1)


def take_a_little(connection: socket.socket, sender: threading.Thread) -> None:
    """Read what keeps a sender going that only looks whether anything is taken; a PDU of 1 MiB needs 3 s so."""
    with contextlib.suppress(OSError):
        while sender.is_alive() and connection.recv(64 * 1024):
            sender.join(0.2)


def stands_still(sent: list[int]) -> bool:
    before = len(sent)
    threading.Event().wait(0.2)
    return 0 < before == len(sent)


def send_object(requested: Association, encoded: Any) -> int:
    """Send a C-STORE as the retrieve services do: the command by pynetdicom, the data set from a view."""
    store = C_STORE()
    store.MessageID, store.Priority = 1, 2
    store.AffectedSOPClassUID, store.AffectedSOPInstanceUID = encoded.sop_class_uid, encoded.sop_instance_uid
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(store)
    message.command_set.CommandDataSetType = 1
    message._set_command_group_length()
    (context,) = requested.accepted_contexts
    for command in message.encode_msg(context.context_id, 0):
        requested.dul.send_pdu(command)
    maximum = requested.acceptor.maximum_length
    for fragment in fragments_to_send(context.context_id, memoryview(encoded.dataset), maximum):
        requested.dul.send_pdu(fragment)
    _, response = requested.dimse.get_msg(block=True)
    return int(response.Status)


# The cutting of P-DATA


def test_fragments_fill_the_maximum_length_and_end_with_the_last() -> None:
    dataset = memoryview(bytes(range(256)) * 10)
    cut = [fragment.presentation_data_value_list[0] for fragment in fragments_to_send(5, dataset, 1006)]
    assert [context_id for context_id, _ in cut] == [5, 5, 5]
    assert [control for _, (control, _) in cut] == [0, 0, 2]
    assert [len(data) for _, (_, data) in cut] == [1000, 1000, 560]
    assert b"".join(data for _, (_, data) in cut) == dataset


def test_a_command_set_is_cut_too_and_no_maximum_is_too_small_to_end() -> None:
    command = memoryview(bytes(range(100)))
    for maximum in (1, 6, SMALLEST_PDU_BYTES):
        fragments = fragments_to_send(5, command, maximum, is_command=True)
        cut = [fragment.presentation_data_value_list[0] for fragment in fragments]
        assert [control for _, (control, _) in cut] == [1, 3]
        assert b"".join(data for _, (_, data) in cut) == command


def test_a_peer_that_takes_hardly_a_fragment_is_rejected_and_one_that_takes_little_is_served(receiver: Running) -> None:
    def call(maximum: int) -> Any:
        return AE().associate(
            "127.0.0.1",
            receiver.port,
            [build_context(StudyRootQueryRetrieveInformationModelFind)],
            "THINFILM",
            max_pdu=maximum,
        )

    assert call(SMALLEST_PDU_BYTES - 1).is_rejected
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", ""
    association = call(SMALLEST_PDU_BYTES)
    answers = association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind)
    assert [answer.Status for answer, _ in answers] == [0x0000]
    association.release()


def test_items_of_a_pdu_are_views_of_it() -> None:
    body = struct.pack(">LBB", 5, 1, 1) + b"abc" + struct.pack(">LBB", 2, 3, 2)
    first, second = _fragments(memoryview(body))
    assert (first.context_id, first.is_command, first.is_last, bytes(first.data)) == (1, True, False, b"abc")
    assert (second.context_id, second.is_command, second.is_last, bytes(second.data)) == (3, False, True, b"")
    for end in range(1, len(body)):
        if end != 9:
            with pytest.raises(InvalidPdu):
                _fragments(memoryview(body[:end]))


# What we rely on in pynetdicom


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (association.Association, "_bind_defaults _serve_request _run_reactor _abort_blocking run_reactor kill abort"),
        (transport.AssociationSocket, "_shutdown_socket connect close send ready event_queue"),
        (transport.AssociationServer, "_bind_defaults server_bind active_associations service_actions server_close"),
        (transport.RequestHandler, "_create_association handle local remote"),
        (dul.DULServiceProvider, "_process_recv_primitive _read_pdu_data _send run_reactor kill_dul"),
        (dul.DULServiceProvider, "send_pdu receive_pdu idle_timer_expired"),
        (acse.ACSE, "_negotiate_as_acceptor send_reject negotiate_association"),
        (acse.ACSE, "negotiate_release send_abort is_aborted is_release_requested"),
        (dimse.DIMSEServiceProvider, "receive_primitive get_msg send_msg maximum_pdu_size"),
        (dimse_messages.DIMSEMessage, "decode_msg message_to_primitive encode_msg"),
        (timer.Timer, "expired remaining restart start stop timeout"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_pynetdicom_still_has_what_we_override_or_call(owner: type, names: str) -> None:
    missing = [name for name in names.split() if not hasattr(owner, name)]
    assert not missing, f"pynetdicom {pynetdicom.__version__} has no {missing} in {owner.__name__}; adapt dimse/."


def test_instances_of_pynetdicom_still_have_the_attributes_that_we_use() -> None:
    made = association.Association(AE(), "acceptor")
    missing = [
        f"{owner}.{name}"
        for owner, instance_, names in (
            (
                "Association",
                made,
                "_kill _is_paused _accepted_cx _rejected_cx _dul_ready _server dul dimse acse requestor acceptor",
            ),
            ("DUL", made.dul, "_idle_timer artim_timer _kill_thread _recv_pdu event_queue to_provider_queue"),
            ("DUL", made.dul, "to_user_queue state_machine socket"),
            ("DIMSE", made.dimse, "msg_queue cancel_req"),
            ("Timer", made.dul.artim_timer, "_start_time _end_time"),
            ("P_DATA", P_DATA(), "_presentation_data_value_list"),
            ("A_ASSOCIATE", A_ASSOCIATE(), "_called_ae_title _calling_ae_title"),
            ("ServiceUser", made.requestor, "_ae_title"),
            ("PresentationContext", build_context(VERIFICATION), "_context_id _as_scu _as_scp"),
            ("P_DATA_TF", pdu.P_DATA_TF(), "presentation_data_value_items pdu_type"),
        )
        for name in names.split()
        if not hasattr(instance_, name)
    ]
    assert not missing, f"pynetdicom {pynetdicom.__version__} has no {missing}; adapt dimse/."


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (fsm.DT_1, r"to_provider_queue\.get\(False\).*dul\._send\(P_DATA_TF\(primitive\)\)"),
        (fsm.AR_7, r"to_provider_queue\.get\(False\).*dul\._send\(P_DATA_TF\(primitive\)\)"),
        (fsm.DT_2, r"_recv_pdu\.get\(False\).*dimse\.receive_primitive\(.*pdu\.to_primitive\(\)"),
        (pdu.P_DATA_TF.from_primitive, r"presentation_data_value = item\[1\]"),
        (acse.ACSE.negotiate_association, r"is_acceptor:\s+self\._negotiate_as_acceptor\(\)"),
        (acse.ACSE._negotiate_as_requestor, r"negotiate_as_requestor\(\s+self\.requestor\.requested_contexts,\s+rsp\."),
        (fsm.AE_6, r"_recv_pdu\.get\(False\).*to_primitive\(\).*protocol_version.*to_user_queue\.put\(primitive\)"),
        (dul.DULServiceProvider._process_recv_primitive, r"self\.to_provider_queue\.queue\[0\]"),
        (dul.DULServiceProvider._process_recv_primitive, r"T_CONNECT\):\s+# [^\n]*\s+event = primitive\.result"),
        (transport.AssociationSocket.connect, r'primitive\.result = "Evt2"\s+self\.provider_queue\.put\(primitive\)'),
        (transport.AssociationServer.active_associations.fget, r'"AcceptorThread" in tt\.name'),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_pynetdicom_still_works_as_our_parts_fit_into_it(function: Any, expected: str) -> None:
    source = inspect.getsource(function)
    assert re.search(expected, source, re.DOTALL), f"{function.__qualname__} changed in {pynetdicom.__version__}."


@pytest.mark.parametrize(
    ("state", "event", "action"),
    [
        ("Sta4", "Evt17", "AA-4"),
        ("Sta6", "Evt10", "DT-2"),
        ("Sta6", "Evt17", "AA-4"),
        ("Sta6", "Evt19", "AA-8"),
        ("Sta13", "Evt18", "AA-2"),
    ],
)
def test_the_state_machine_knows_the_events_that_we_raise(state: str, event: str, action: str) -> None:
    assert fsm.TRANSITION_TABLE[(event, state)] == action
    assert messages._INVALID_PDU == "Evt19"
