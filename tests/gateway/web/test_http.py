"""The HTTP side from real sockets: it answers beside callers who only hold connections, and harms nobody else."""

import contextlib
import json
import os
import resource
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.datasets import ct_series
from support.gateway import running_gateway
from support.receiver import wait_until
from support.scu import store_all
from thinfilm_gateway.client.gateway import RunningGateway
from thinfilm_gateway.client.network import echo
from thinfilm_gateway.web import limits

SMALL: dict[str, Any] = {"receivers": 1, "local_workers": 0, "series_quiet_seconds": 3600.0}
ENOUGH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), **SMALL) as running:
        yield running


def _connect(gateway: RunningGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.settings.http_port), timeout=30)


def _child(gateway: RunningGateway, name: str) -> int | None:
    """The id of a child process by the name that it shows."""
    pid = gateway.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text().strip() == name:
                return int(child)
    return None


def _read_to_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes, in order or not."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def _drip(connection: socket.socket, data: bytes) -> float:
    """Send byte by byte until the other side has had enough; return after how many seconds."""
    began = time.monotonic()
    connection.settimeout(0.1)
    for number in range(10_000):
        try:
            connection.sendall(data[number % len(data) :][:1])
            if connection.recv(65536) == b"":
                break
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
    return time.monotonic() - began


def test_it_answers_head_and_knows_no_other_page_or_method(gateway: RunningGateway) -> None:
    url = f"http://127.0.0.1:{gateway.settings.http_port}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/health?verbose=1", method="HEAD"), timeout=30) as answer:
        assert (answer.status, answer.read(), answer.headers["Cache-Control"]) == (200, b"", "no-store")
        assert answer.headers["Content-Type"] == "application/json"
        assert "Server" not in answer.headers
    for path, method, code in (("/nothing", "GET", 404), ("/health", "POST", 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(url + path, method=method), timeout=30)
        with caught.value as error:
            assert error.code == code


def test_400_idle_connections_and_slow_requests_hold_up_neither_health_nor_a_peer(gateway: RunningGateway) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(400):
            connection = stack.enter_context(_connect(gateway))
            if number % 4 == 0:  # the headers never end
                connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
            elif number % 4 == 1:  # the body never ends
                connection.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n")
        assert gateway.health()["status"] == "ok"
        assert [answer.status for answer in store_all(gateway.settings.dicom_port, ct_series(1))] == [0]
        assert gateway.health()["instances"] == 1


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET /health HTTP/1.1\r\nX-Slow: ",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n",
        ENOUGH + b"GET /health HTTP/1.1\r\nX-Slow: ",
    ],
    ids=["first line", "headers", "body", "chunks", "second request"],
)
def test_a_request_that_drips_is_cut_after_its_deadline(gateway: RunningGateway, begin: bytes) -> None:
    with _connect(gateway) as connection:
        connection.sendall(begin)
        assert _drip(connection, b"x") < limits.REQUEST_SECONDS + 10


def test_a_connection_that_sends_nothing_is_closed(gateway: RunningGateway) -> None:
    with _connect(gateway) as connection:
        assert _read_to_end(connection) == b""


def test_a_connection_serves_several_requests_and_is_closed_when_no_more_come(gateway: RunningGateway) -> None:
    with _connect(gateway) as connection:
        connection.sendall(ENOUGH)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        connection.sendall(ENOUGH * 3)
        assert _read_to_end(connection).count(b"HTTP/1.1 200 OK") >= 3


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nX: " + b"x" * (limits.LARGEST_HEADER_BYTES + 1), b"no request at all\r\n\r\n", b"\0" * 64],
    ids=["header too large", "no request", "zeroes"],
)
def test_what_is_no_request_or_too_large_is_refused_at_once(gateway: RunningGateway, sent: bytes) -> None:
    with _connect(gateway) as connection:
        connection.sendall(sent)
        assert _read_to_end(connection).startswith(b"HTTP/1.1 400")
    assert gateway.health()["status"] == "ok"


def test_it_survives_having_no_descriptor_left(gateway: RunningGateway) -> None:
    process_id = _child(gateway, "http")
    assert process_id is not None
    assert gateway.health()["status"] == "ok"  # it has what descriptors it needs for its work
    before = resource.prlimit(process_id, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{process_id}/fd").iterdir()))
    resource.prlimit(process_id, resource.RLIMIT_NOFILE, (used + 8, before[1]))
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(_connect(gateway))
        assert echo(gateway.node)
    resource.prlimit(process_id, resource.RLIMIT_NOFILE, before)
    assert gateway.health()["status"] == "ok"
    assert _child(gateway, "http") == process_id


def test_a_process_that_hangs_or_dies_over_http_keeps_nobody_from_working(tmp_path: Path) -> None:
    with running_gateway(tmp_path, **SMALL) as gateway:
        process_id, receiver = _child(gateway, "http"), _child(gateway, "receiver 1")
        assert process_id
        assert receiver
        os.kill(process_id, signal.SIGSTOP)
        os.kill(receiver, signal.SIGKILL)
        wait_until(lambda: _child(gateway, "receiver 1") not in (None, receiver), "the receiver is started again")
        assert echo(gateway.node)
        os.kill(process_id, signal.SIGKILL)
        wait_until(lambda: _child(gateway, "http") not in (None, process_id), "so is the process that hung")
        assert gateway.health()["processes"]["receivers_alive"] == 1


def test_it_stops_in_order_while_connections_are_open(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with running_gateway(tmp_path, **SMALL) as gateway:
            for begin in (b"", b"GET /health HTTP/1.1\r\n", ENOUGH):
                stack.enter_context(_connect(gateway)).sendall(begin)
            wait_until(lambda: gateway.health()["status"] == "ok", "it answers")
        assert gateway.process.returncode == 0
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
        assert not [line for line in lines if line["event"] in ("process_killed", "process_died")]
