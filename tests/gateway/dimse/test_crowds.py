"""Connections that ask for nothing: a configured peer is served beside any number of them."""

import contextlib
import itertools
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pynetdicom import AE, build_context

from support.association_requests import ACCEPT, REJECT, Request, caller
from support.certificates import Certificates
from support.datasets import ct_series
from support.receiver import receiver_process, running_receiver, wait_until
from support.scu import Answer, storage_user
from support.servers import free_port
from thinfilm_gateway.dimse import server

IDLE = 400
OBJECTS = ct_series(2, 32)
PEERS = ({"ae_title": "STORE-USER", "host": "127.0.0.1"},)
CLOSED = {"dicom_host": "0.0.0.0", "peers": PEERS, "unknown_peers": "none"}
SAME, OTHERS = ["127.0.0.1"], [f"127.0.0.{number}" for number in range(2, 250)]
STORED = Answer(0, "")


@contextlib.contextmanager
def idle(port: int, addresses: Sequence[str], number: int = IDLE, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Hold connections from these addresses in turn, on which nothing comes but these first bytes."""
    with contextlib.ExitStack() as held:
        connections = []
        for address in itertools.islice(itertools.cycle(addresses), number):
            connection = socket.create_connection(("127.0.0.1", port), 60, (address, 0))
            connections.append(held.enter_context(connection))
            with contextlib.suppress(OSError):
                connection.sendall(first)
        yield connections


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("addresses", "first"),
    [
        pytest.param(SAME, b"", id="from its own address"),
        pytest.param(OTHERS[:2], b"", id="from two other addresses"),
        pytest.param(OTHERS, b"", id="from an address each"),
        pytest.param(OTHERS[:9], Request().pdu()[:40], id="that begin a request"),
        pytest.param(OTHERS[:9], Request().pdu(), id="that were rejected and stay"),
    ],
)
def test_a_configured_peer_is_served_beside_400_connections(
    tmp_path: Path, addresses: Sequence[str], first: bytes
) -> None:
    with receiver_process(tmp_path, **CLOSED) as running, idle(running.port, addresses, first=first) as held:
        for one in OBJECTS:
            with storage_user(running.port, [one]) as user:
                assert user.store(one) == STORED
        limit = running.settings.maximum_associations
        wait_until(lambda: sum(map(is_open, held)) <= limit, "the connections are no more than have a place")


def test_a_configured_peer_is_served_beside_400_handshakes_that_hang(
    tmp_path: Path, certificates: Certificates
) -> None:
    port = free_port()
    tls = {**certificates.settings, "dicom_tls_port": port}
    with (
        receiver_process(tmp_path, **CLOSED, **tls) as running,
        idle(port, OTHERS[:3], first=b"\x16\x03\x01\x02\0"),
        storage_user(running.port, OBJECTS) as user,
    ):
        assert user.store(OBJECTS[0]) == STORED


def test_an_open_association_is_never_turned_away_for_connections_that_ask_nothing(tmp_path: Path) -> None:
    settings = {**CLOSED, "maximum_associations": 4, "maximum_associations_per_host": 3}
    with running_receiver(tmp_path, **settings) as running, storage_user(running.port, OBJECTS) as user:
        for addresses in (SAME, OTHERS):
            with idle(running.port, addresses, 40):
                assert user.store(OBJECTS[0]) == STORED


def test_an_unknown_host_has_less_time_to_ask_than_a_known_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNKNOWN_ARTIM_SECONDS", 0.2)
    with (
        running_receiver(tmp_path, **CLOSED) as running,
        idle(running.port, SAME, 1) as known,
        idle(running.port, OTHERS, 1) as unknown,
    ):
        wait_until(lambda: not is_open(unknown[0]), "the unknown one is told to go")
        assert is_open(known[0])


def test_places_for_associations_are_counted_by_associations_alone(tmp_path: Path) -> None:
    settings = {"dicom_host": "0.0.0.0", "unknown_peers": "all", "maximum_associations_per_host": 2}
    with running_receiver(tmp_path, **settings) as running, contextlib.ExitStack() as held:
        held.enter_context(idle(running.port, SAME, 2))
        for _ in range(2):
            one = held.enter_context(caller(running.port))
            one.send(Request().pdu())
            assert one.read()[0] == ACCEPT
        third = held.enter_context(caller(running.port))
        third.send(Request().pdu())
        assert third.read() == (REJECT, b"\0\2\3\2")


def test_two_addresses_that_hold_all_their_connections_do_not_shut_out_a_third(tmp_path: Path) -> None:
    settings = {**CLOSED, "maximum_associations": 6, "maximum_associations_per_host": 3}
    with running_receiver(tmp_path, **settings) as running, idle(running.port, OTHERS[:2], 24):
        entity = AE("STORE-USER")
        for _ in range(4):
            association = entity.associate("127.0.0.1", running.port, [build_context("1.2.840.10008.1.1")])
            assert association.is_established
            association.release()
