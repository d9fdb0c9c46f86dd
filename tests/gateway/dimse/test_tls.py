"""TLS with DCMTK and openssl at the other end: certificates right, wrong and missing, handshakes that stall."""

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE, build_context

from support import dcmtk
from support.certificates import Certificates, Pair
from support.datasets import ct_series, patient
from support.query_retrieve import gateway_with, get, identifier
from support.receiver import Running, running_receiver, wait_until
from support.servers import free_port
from thinfilm_gateway.config import Peer, Settings
from thinfilm_gateway.dicom import part10
from thinfilm_gateway.dimse import secure_transport
from thinfilm_gateway.dimse.association import Association, request_association
from thinfilm_gateway.dimse.rejection import CALLING_AE_TITLE_NOT_RECOGNIZED
from thinfilm_gateway.dimse.secure_transport import Encryption
from thinfilm_gateway.dimse.tls import UnusableTls, check, requestor_context
from thinfilm_gateway.dimse.transport import DULServiceProvider

VERIFICATION = "1.2.840.10008.1.1"
(CT,) = ct_series(1, 256)
STUDY_UID = str(patient()["StudyInstanceUID"])
STUDY_KEYS = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY_UID}"]


@pytest.fixture
def receiver(tmp_path: Path, certificates: Certificates) -> Iterator[Running]:
    """A receiver that wants a certificate of those that call over TLS."""
    with running_receiver(tmp_path, **certificates.settings) as running:
        yield running


def echo(receiver: Running, *options: str) -> dcmtk.Result:
    return dcmtk.echoscu(receiver.tls_port, *options)


# Who gets through


def test_an_object_comes_and_goes_over_tls_bit_for_bit(
    receiver: Running, tmp_path: Path, certificates: Certificates
) -> None:
    (large,) = ct_series(1, 1024)
    file = large.write(tmp_path / "ct.dcm")
    options = certificates.options(certificates.scanner)
    dcmtk.storescu(receiver.tls_port, [file], *options, "--max-send-pdu", "131072").check()
    (row,) = receiver.instances()
    assert receiver.dataset(row) == large.dataset
    keys = identifier("STUDY", StudyInstanceUID=STUDY_UID)
    contexts = [(large.sop_class_uid, [large.transfer_syntax_uid])]
    got = get(receiver.tls_port, keys, contexts, tls=client_context(certificates))
    assert [received.dataset for received in got.received] == [large.dataset]


@pytest.mark.parametrize("wanted", ["optional", "none"])
def test_a_client_without_a_certificate_is_served_where_none_is_required(
    tmp_path: Path, certificates: Certificates, wanted: str
) -> None:
    with running_receiver(tmp_path, **certificates.settings, tls_client_certificate=wanted) as receiver:
        echo(receiver, *certificates.options(None)).check()
        echo(receiver, *certificates.options(certificates.scanner)).check()
        if wanted == "optional":
            assert not echo(receiver, *certificates.options(certificates.stranger)).ok


@pytest.mark.parametrize("who", ["stranger", "expired", None])
def test_a_client_with_a_wrong_an_expired_or_no_certificate_is_refused(
    receiver: Running, certificates: Certificates, who: str | None
) -> None:
    pair: Pair | None = getattr(certificates, who) if who else None
    assert not echo(receiver, *certificates.options(pair)).ok
    echo(receiver, *certificates.options(certificates.scanner)).check()


def test_a_client_that_trusts_another_authority_does_not_go_on(receiver: Running, certificates: Certificates) -> None:
    shown = ["--enable-tls", str(certificates.scanner.key), str(certificates.scanner.certificate)]
    assert not echo(receiver, *shown, "--add-cert-file", str(certificates.stranger.certificate)).ok


def test_a_plain_client_on_the_tls_port_and_the_reverse_fail_at_once(
    receiver: Running, certificates: Certificates
) -> None:
    begun = time.monotonic()
    assert not echo(receiver).ok
    assert not dcmtk.echoscu(receiver.port, *certificates.options(certificates.scanner)).ok
    assert time.monotonic() - begun < 10
    dcmtk.echoscu(receiver.port).check()
    echo(receiver, *certificates.options(certificates.scanner)).check()


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ((), "TLSv1.3"),
        (("-tls1_2",), "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"), None),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), None),
        (("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"), None),
    ],
)
def test_versions_and_cipher_suites_are_those_of_the_profile(
    receiver: Running, certificates: Certificates, offered: tuple[str, ...], agreed: str | None
) -> None:
    shown = ["-cert", str(certificates.scanner.certificate), "-key", str(certificates.scanner.key)]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{receiver.tls_port}", "-brief", *shown, *offered]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)
    if agreed is None:
        assert done.returncode != 0
    else:
        assert done.returncode == 0
        assert agreed in done.stderr


def test_a_peer_is_known_by_the_subject_of_its_certificate(tmp_path: Path, certificates: Certificates) -> None:
    peers = (
        Peer(ae_title="CT1", certificate_subject="CN=ct1.example.org, O=Hospital\\, North"),
        Peer(ae_title="CT2", certificate_subject="CN=ct2.example.org"),
        Peer(ae_title="CT3", tls=True),
    )
    options = certificates.options(certificates.scanner)
    with running_receiver(tmp_path, peers=peers, **certificates.settings) as receiver:
        echo(receiver, *options, "-aet", "CT1").check()
        echo(receiver, *options, "-aet", "CT3").check()
        assert "Calling AE Title Not Recognized" in echo(receiver, *options, "-v", "-aet", "CT2").output
        for ae_title in ("CT1", "CT3"):
            plain = AE(ae_title).associate("127.0.0.1", receiver.port, [build_context(VERIFICATION)])
            said = plain.acceptor.primitive
            assert (said.result, said.result_source, said.diagnostic) == CALLING_AE_TITLE_NOT_RECOGNIZED


# Hostile and slow peers


def test_a_client_stalled_in_the_handshake_holds_nobody_else(
    receiver: Running, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure_transport, "HANDSHAKE_SECONDS", 1.5)
    hello = client_hello()
    stalled = [socket.create_connection(("127.0.0.1", receiver.tls_port), timeout=30) for _ in range(6)]
    for connection in stalled[:3]:
        connection.sendall(hello[:40])
    begun = time.monotonic()
    echo(receiver, *certificates.options(certificates.scanner)).check()
    dcmtk.echoscu(receiver.port).check()
    assert time.monotonic() - begun < 10
    for connection in stalled:
        assert connection.recv(1) == b""  # and after a while they are let go
        connection.close()
    wait_until(lambda: not associations(), "nothing is left of them")


def test_a_handshake_of_a_byte_at_a_time_is_ended(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_transport, "HANDSHAKE_SECONDS", 0.5)
    hello = client_hello()
    begun = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", receiver.tls_port), timeout=30) as connection,
        pytest.raises(OSError, match=r"Broken pipe|reset"),
    ):
        trickle(connection, hello)
    assert time.monotonic() - begun < len(hello) * 0.05
    wait_until(lambda: not associations(), "nothing is left of it")


def test_a_receiver_that_stops_does_not_wait_for_a_handshake(receiver: Running) -> None:
    assert receiver.receiver is not None
    with socket.create_connection(("127.0.0.1", receiver.tls_port), timeout=30) as stalled:
        wait_until(lambda: bool(associations()), "the connection is accepted")
        begun = time.monotonic()
        receiver.receiver.stop(seconds=1)
        assert time.monotonic() - begun < 0.8 * secure_transport.HANDSHAKE_SECONDS
        assert stalled.recv(1) == b""


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_peer_that_sends_a_pdu_a_byte_at_a_time_is_let_go(
    tmp_path: Path, certificates: Certificates, is_encrypted: bool
) -> None:
    with running_receiver(tmp_path, **certificates.settings, network_timeout_seconds=1) as receiver:
        entity = AE()
        tls_args = (client_context(certificates), "localhost") if is_encrypted else None
        port = receiver.tls_port if is_encrypted else receiver.port
        opened = entity.associate("127.0.0.1", port, [build_context(VERIFICATION)], tls_args=tls_args)
        assert opened.is_established
        connection = opened.dul.socket.socket
        with contextlib.suppress(OSError):  # it was let go
            connection.sendall(struct.pack(">BxL", 4, 1000))
            for _ in range(1000):
                connection.sendall(b"\0")
                threading.Event().wait(0.05)
                if not associations():
                    break
        wait_until(lambda: not associations(), "nothing is left of it")
        opened.abort()
        connection.close()  # which pynetdicom leaves open


def test_what_breaks_off_within_tls_leaves_no_thread_and_no_descriptor(
    tmp_path: Path, certificates: Certificates
) -> None:
    with running_receiver(tmp_path, **certificates.settings, network_timeout_seconds=1) as receiver:
        echo(receiver, *certificates.options(certificates.scanner)).check()
        wait_until(lambda: not associations(), "the association is over")
        threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        pdu = struct.pack(">BxL", 1, 1000) + bytes(500)
        for sent in (b"", pdu[:3], pdu, b"GET / HTTP/1.1\r\n\r\n"):
            for ending in ("reset", "close", "silence"):
                with encrypted(receiver, certificates) as connection:
                    connection.sendall(sent)
                    if ending == "reset":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    elif ending == "silence" and sent:
                        assert connection.recv(64)[:1] in (b"", b"\7")  # closed, or an A-ABORT
        wait_until(lambda: not associations(), "the associations are over")
        assert threading.active_count() == threads
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
        echo(receiver, *certificates.options(certificates.scanner)).check()


def test_an_idle_association_over_tls_costs_no_processor_time(receiver: Running, certificates: Certificates) -> None:
    opened = AE().associate(
        "127.0.0.1",
        receiver.tls_port,
        [build_context(VERIFICATION)],
        tls_args=(client_context(certificates), "localhost"),
    )
    assert opened.is_established
    (upper_layer,) = [thread for thread in associations() if isinstance(thread, DULServiceProvider)]
    before = seconds_of(upper_layer)
    threading.Event().wait(1.0)
    assert seconds_of(upper_layer) - before < 0.05
    opened.release()


# Calls that we make


@pytest.mark.parametrize(
    ("host", "subject", "arrives"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("127.0.0.2", None, False),
        ("127.0.0.2", "CN=gateway.example.org", True),
        ("127.0.0.1", "CN=other.example.org", False),
    ],
)
def test_objects_are_moved_over_tls_to_whom_the_settings_name_and_to_nobody_else(
    tmp_path: Path, certificates: Certificates, host: str, subject: str | None, arrives: bool
) -> None:
    port = free_port()
    peer = Peer(ae_title="DEST", host=host, port=port, tls=True, certificate_subject=subject)
    folder = tmp_path / "came"
    folder.mkdir()
    options = certificates.options(certificates.gateway)  # it wants a certificate of whoever calls
    scanner = certificates.options(certificates.scanner)
    with (
        gateway_with(tmp_path, [CT], peers=(peer,), **certificates.settings) as receiver,
        dcmtk.storescp(port, folder, *options, ae_title="DEST", caller=scanner),
    ):
        moved = dcmtk.movescu(receiver.port, STUDY_KEYS, "DEST", "-S")
        assert moved.ok == arrives
    assert [dataset_of(file) for file in folder.iterdir()] == ([CT.dataset] if arrives else [])


@pytest.mark.parametrize("who", ["stranger", "expired"])
def test_objects_are_not_moved_to_a_peer_with_a_wrong_certificate(
    tmp_path: Path, certificates: Certificates, who: str
) -> None:
    port = free_port()
    peer = Peer(ae_title="DEST", host="127.0.0.1", port=port, tls=True, certificate_subject="CN=ct1.example.org")
    pair: Pair = getattr(certificates, who)
    folder = tmp_path / "came"
    folder.mkdir()
    ignoring = ["--anonymous-tls", "--ignore-peer-cert"]
    with (
        gateway_with(tmp_path, [CT], peers=(peer,), **certificates.settings) as receiver,
        dcmtk.storescp(
            port, folder, *certificates.options(pair), "--ignore-peer-cert", ae_title="DEST", caller=ignoring
        ),
    ):
        assert not dcmtk.movescu(receiver.port, STUDY_KEYS, "DEST", "-S").ok
    assert list(folder.iterdir()) == []


def test_a_move_over_tls_to_a_plain_peer_fails(tmp_path: Path, certificates: Certificates) -> None:
    port = free_port()
    peer = Peer(ae_title="DEST", host="127.0.0.1", port=port, tls=True)
    folder = tmp_path / "came"
    folder.mkdir()
    with (
        gateway_with(tmp_path, [CT], peers=(peer,), **certificates.settings) as receiver,
        dcmtk.storescp(port, folder, ae_title="DEST"),
    ):
        assert not dcmtk.movescu(receiver.port, STUDY_KEYS, "DEST", "-S").ok


def test_what_tls_says_for_itself_holds_up_nothing_that_we_send(certificates: Certificates) -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # sends session tickets once it has shaken hands
    theirs.load_cert_chain(certificates.gateway.certificate, certificates.gateway.key)
    ours = requestor_context(Settings(tls_ca=certificates.authority.certificate), check_hostname=True)
    entity = AE()
    entity.acse_timeout = 1
    proposed = [build_context(VERIFICATION)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        opened: list[Association] = []

        def call() -> None:
            encryption = Encryption(ours, "localhost")
            opened.append(request_association(entity, "localhost", port, "PEER", proposed, encryption=encryption))

        calling = threading.Thread(target=call)
        calling.start()
        connection, _ = listener.accept()
        connection.settimeout(20)
        with theirs.wrap_socket(connection, server_side=True) as peer, peer.makefile("rb") as received:
            pdu_types = []
            for _ in range(2):
                pdu_type, length = struct.unpack(">BxL", received.read(6))
                pdu_types.append(pdu_type)
                received.read(length)
        calling.join()
    assert pdu_types == [1, 7]  # the request, and, since nobody answered, an abort
    assert opened[0].is_aborted


# Settings


def test_tls_that_cannot_be_had_is_refused_in_one_sentence(tmp_path: Path, certificates: Certificates) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    missing = tmp_path / "missing.pem"
    whole = certificates.settings
    for changed, complaint in (
        ({"tls_key": None}, r"dicom_tls_port needs tls_certificate and tls_key"),
        ({"tls_ca": None}, r'tls_client_certificate = "required" needs tls_ca'),
        ({"tls_ca": junk}, r"tls_ca .*junk\.pem holds no certificate in PEM"),
        ({"tls_ca": missing}, r"tls_ca .*missing\.pem cannot be read: No such file or directory"),
        ({"tls_key": missing}, r"tls_key .*missing\.pem cannot be read: No such file or directory"),
        ({"tls_key": certificates.scanner.key}, r"tls_certificate .* and tls_key .* are no pair"),
        ({"tls_certificate": junk}, r"tls_certificate .* and tls_key .* are no pair"),
        (
            {"dicom_tls_port": None, "tls_ca": junk, "peers": (Peer(ae_title="A", host="h", port=1, tls=True),)},
            r"tls_ca .*junk\.pem holds no certificate",
        ),
    ):
        with pytest.raises(UnusableTls, match=rf"^{complaint}.*\.$") as caught:
            check(Settings(**{**whole, **changed}))
        assert "\n" not in str(caught.value)
    check(Settings(**whole))
    check(Settings(**{**whole, "tls_ca": None}, tls_client_certificate="none"))


def client_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.authority.certificate))
    context.load_cert_chain(certificates.scanner.certificate, certificates.scanner.key)
    return context


def encrypted(receiver: Running, certificates: Certificates) -> ssl.SSLSocket:
    connection = socket.create_connection(("127.0.0.1", receiver.tls_port), timeout=30)
    return client_context(certificates).wrap_socket(connection, server_hostname="localhost")


def client_hello() -> bytes:
    """Return the first bytes of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def trickle(connection: socket.socket, data: bytes) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        threading.Event().wait(0.05)


def seconds_of(thread: threading.Thread) -> float:
    """Return the processor time that a thread has had."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))


def dataset_of(file: Path) -> bytes:
    raw = file.read_bytes()
    header = part10.locate(raw)
    assert header is not None
    return raw[header.dataset_offset :]


def associations() -> list[threading.Thread]:
    """The threads of the receiver's associations; pynetdicom's own upper layer is the client's."""
    return [thread for thread in threading.enumerate() if isinstance(thread, Association | DULServiceProvider)]
