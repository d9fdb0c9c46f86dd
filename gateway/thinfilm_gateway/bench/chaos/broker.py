"""The scenario of the broker: it is stopped under load and comes back empty."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.bench.chaos.senders import Senders
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import DidNotRun, environment, running_gateway
from thinfilm_gateway.config import Settings

SCENARIO = "broker stopped and wiped"
START_SECONDS = 60.0
STOP_SECONDS = 90.0
OBJECTS = 12  # of each phase, at least

SETTINGS = {"series_quiet_seconds": 0.5, "cache_bytes": 0, "lossless_codecs": ("jpegls",), "local_workers": 1}


def wipe_broker(folder: Path, seed: int) -> Outcome:
    """Stop a Redis of one's own under load, start it again, empty, and wait for Celery to do what was asked meanwhile.

    Raises DidNotRun, PeerRefused or NotArchived.
    """
    program = shutil.which("redis-server")
    if program is None:
        return Outcome(SCENARIO, skipped="not run: redis-server is not installed")
    port = _free_port()
    settings = SETTINGS | {"broker_url": f"redis://127.0.0.1:{port}/0"}
    with contextlib.ExitStack() as running:
        broker = running.enter_context(contextlib.ExitStack())
        broker.enter_context(_redis(program, port, folder))
        gateway = running.enter_context(running_gateway(folder, **settings))
        for arguments in (("worker", "--concurrency=1"), ("beat",)):
            running.enter_context(_celery(gateway.settings, folder, *arguments))
        with Senders(lambda: gateway.node, folder / "sent", seed) as senders:
            senders.await_acknowledged(OBJECTS)
            broker.close()
            senders.await_acknowledged(OBJECTS)
            running.enter_context(_redis(program, port, folder))
            senders.await_acknowledged(OBJECTS)
        await_archived(gateway.settings, lambda: None)
    acknowledged = list(senders.acknowledged.values())
    proof = prove(folder, acknowledged, **SETTINGS)
    return Outcome(SCENARIO, {"wiped": 1}, len(acknowledged), proof.returned, proof.brought_back, proof.wrong)


@contextlib.contextmanager
def _redis(program: str, port: int, folder: Path) -> Iterator[None]:
    """Run an empty Redis until the block ends; enter the block when it answers."""
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with _program([*command, "--appendonly", "no"], folder / "redis.log", None) as process:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DidNotRun(f"redis-server did not start; its log is {folder / 'redis.log'}.")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield


@contextlib.contextmanager
def _celery(settings: Settings, folder: Path, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", "thinfilm_gateway", "celery", *arguments]
    with _program(command, folder / f"celery-{arguments[0]}.log", environment(settings)):
        yield


@contextlib.contextmanager
def _program(command: list[str], log: Path, env: dict[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, cwd=log.parent, stdout=output, stderr=output)  # noqa: S603
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
