"""The scenario of the broker: it is stopped under load and comes back empty."""

import contextlib
import shutil
import socket
import sys
from pathlib import Path

from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.programs import free_port, running
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.bench.chaos.senders import Senders
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import environment, running_gateway
from thinfilm_gateway.config import Settings

SCENARIO = "broker stopped and wiped"
OBJECTS = 12  # of each phase, at least

SETTINGS = {"series_quiet_seconds": 0.5, "cache_bytes": 0, "lossless_codecs": ("jpegls",), "local_workers": 1}


def wipe_broker(folder: Path, seed: int) -> Outcome:
    """Stop a Redis of one's own under load, start it again, empty, and wait for Celery to do what was asked meanwhile.

    Raises DidNotRun, PeerRefused or NotArchived.
    """
    program = shutil.which("redis-server")
    if program is None:
        return Outcome(SCENARIO, skipped="not run: redis-server is not installed")
    port = free_port()
    settings = SETTINGS | {"broker_url": f"redis://127.0.0.1:{port}/0"}
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(contextlib.ExitStack())
        broker.enter_context(_redis(program, port, folder))
        gateway = stack.enter_context(running_gateway(folder, **settings))
        for arguments in (("worker", "--concurrency=1"), ("beat",)):
            stack.enter_context(_celery(gateway.settings, folder, *arguments))
        with Senders(lambda: gateway.node, folder / "sent", seed) as senders:
            senders.await_acknowledged(OBJECTS)
            broker.close()
            senders.await_acknowledged(OBJECTS)
            stack.enter_context(_redis(program, port, folder))
            senders.await_acknowledged(OBJECTS)
        await_archived(gateway.settings, lambda: None)
    acknowledged = list(senders.acknowledged.values())
    proof = prove(folder, acknowledged, **SETTINGS)
    return Outcome(SCENARIO, {"wiped": 1}, len(acknowledged), proof.returned, proof.brought_back, proof.wrong)


def _redis(program: str, port: int, folder: Path) -> contextlib.AbstractContextManager[None]:
    """Run an empty Redis until the block ends; enter the block when it answers."""
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    return running([*command, "--appendonly", "no"], folder / "redis.log", lambda: _answers(port))


def _celery(settings: Settings, folder: Path, *arguments: str) -> contextlib.AbstractContextManager[None]:
    command = [sys.executable, "-m", "thinfilm_gateway", "celery", *arguments]
    return running(command, folder / f"celery-{arguments[0]}.log", env=environment(settings))


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
