"""Peers that misbehave, for as long as one wants: what a gateway must live with while it serves the others."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Generator, Iterator

from pydicom import Dataset
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind

from thinfilm_gateway.client.network import Node, PeerRefused
from thinfilm_gateway.dimse.association import Association, request_association

AE_TITLE = "HOSTILE"
PDU_BYTES = 16384

Steps = Generator[None, None, None]
"""Does a little with every step, and gives everything back when it is closed."""

_A_ASSOCIATE_HEADER = struct.pack(">BxL", 0x01, 1024)  # PS3.8 9.3.2
_P_DATA_HEADER = struct.pack(">BxLLBB", 0x04, PDU_BYTES, PDU_BYTES - 4, 1, 0x01)  # PS3.8 9.3.5, a command's fragment
_PAUSE_SECONDS = 0.05  # between two of those that break off
_PATIENCE_SECONDS = 1.0


@contextlib.contextmanager
def hostile_peers(node: Node, tls_port: int) -> Iterator[int]:
    """Let peers misbehave until the block ends; their number is yielded once they have all begun.

    One stalls in the TLS handshake, one requests an association at a byte a second, one sends so within an association,
    one breaks off within a PDU again and again, one floods with C-FIND.
    Raises PeerRefused if the node does not even let them begin.
    """
    stop = threading.Event()
    failures: list[Exception] = []

    def run(misbehave: Callable[[], Steps]) -> None:
        try:
            with contextlib.closing(misbehave()) as steps:
                next(steps)
                begun.wait()
                while not stop.is_set():
                    next(steps)
        except Exception as error:
            failures.append(error)
            begun.abort()

    kinds: tuple[Callable[[], Steps], ...] = (
        lambda: _stall_in_handshake(node.host, tls_port),
        lambda: _drip_request(node, stop),
        lambda: _drip(node, stop),
        lambda: _break_off(node, stop),
        lambda: _flood(node),
    )
    begun = threading.Barrier(len(kinds) + 1, timeout=60)  # they and we
    threads = [threading.Thread(target=run, args=(kind,), name="hostile", daemon=True) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        with contextlib.suppress(threading.BrokenBarrierError):
            begun.wait()
        _raise_first(failures)
        yield len(threads)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    _raise_first(failures)


def _raise_first(failures: list[Exception]) -> None:
    if failures:
        raise PeerRefused(f"A hostile peer could not go on: {failures[0]}") from failures[0]


def _stall_in_handshake(host: str, tls_port: int) -> Steps:
    """Connect for TLS and say nothing; again when that was noticed."""
    while True:
        with socket.create_connection((host, tls_port), _PATIENCE_SECONDS) as connection:
            ended = False
            while not ended:
                yield
                try:
                    ended = connection.recv(1) == b""
                except TimeoutError:
                    continue
                except OSError:
                    ended = True


def _drip_request(node: Node, stop: threading.Event) -> Steps:
    """Request an association at a byte a second; another when the connection was ended."""
    while True:
        with socket.create_connection((node.host, node.port), _PATIENCE_SECONDS) as connection:
            connection.sendall(_A_ASSOCIATE_HEADER)
            ended = False
            while not ended:
                yield
                stop.wait(1.0)
                try:
                    connection.sendall(b"\0")
                except OSError:
                    ended = True


def _drip(node: Node, stop: threading.Event) -> Steps:
    """Send a PDU at a byte a second; another when the association was ended."""
    while True:
        association = _associate(node)
        try:
            _send(association, _P_DATA_HEADER)
            while association.dul.is_alive():
                yield
                stop.wait(1.0)
                _send(association, b"\0")
        finally:
            association.abort()


def _break_off(node: Node, stop: threading.Event) -> Steps:
    """Break the connection in the middle of a PDU, again and again."""
    while True:
        association = _associate(node)
        _send(association, _P_DATA_HEADER + bytes(PDU_BYTES // 2))
        association.dul.socket.break_off()
        association.abort()
        yield
        stop.wait(_PAUSE_SECONDS)


def _flood(node: Node) -> Steps:
    """Ask for all studies, without a pause."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientName = "*"
    keys.StudyInstanceUID = ""
    contexts = [build_context(StudyRootQueryRetrieveInformationModelFind)]
    association = AE(AE_TITLE).associate(node.host, node.port, contexts, node.ae_title)
    _check(association, node)
    try:
        while True:
            for answer, _ in association.send_c_find(keys, StudyRootQueryRetrieveInformationModelFind):
                if "Status" not in answer:
                    raise PeerRefused(f"{node.ae_title} ended the association in the middle of a C-FIND.")
            yield
    finally:
        association.release()


def _associate(node: Node) -> Association:
    association = request_association(
        AE(AE_TITLE), node.host, node.port, node.ae_title, [build_context(CTImageStorage)]
    )
    _check(association, node)
    return association


def _check(association: Association, node: Node) -> None:
    if not association.is_established:
        raise PeerRefused(f"{node.ae_title} at {node.host} port {node.port} did not accept an association.")


def _send(association: Association, data: bytes) -> None:
    """Send bytes past the state machine."""
    connection = association.dul.socket.socket
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.sendall(data)
