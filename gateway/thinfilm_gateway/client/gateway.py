"""A gateway of one's own: `thinfilm serve` as a child process on free ports, for demo, bench and tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinfilm_gateway.client.network import Node
from thinfilm_gateway.config import ENVIRONMENT_PREFIX, Settings

START_SECONDS = 90.0
STOP_SECONDS = 90.0


class DidNotRun(Exception):
    """The gateway did not start or did not stop as it should; the message ends with its log."""


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that answers.

    settings: with the ports that it took.
    """

    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def node(self) -> Node:
        """Where its DICOM services are."""
        return Node("127.0.0.1", self.settings.dicom_port, self.settings.ae_title)

    def health(self) -> dict[str, Any]:
        """Return what its health page says."""
        url = f"http://127.0.0.1:{self.settings.http_port}/health"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:  # 503 has a document too
            document = json.load(error)
        assert isinstance(document, dict)
        return document


@contextlib.contextmanager
def running_gateway(folder: Path, **settings: Any) -> Iterator[RunningGateway]:
    """Run a gateway with its data and its log in `folder` until the block ends.

    It listens on the loopback interface, on free ports unless `settings` say otherwise. Raises DidNotRun.
    """
    gateway = start_gateway(folder, folder / "serve.log", **settings)
    try:
        yield gateway
    finally:
        stopped = stop(gateway.process)
    if not stopped:
        raise DidNotRun(f"The gateway did not stop in order:\n{_tail(gateway.log)}")


def start_gateway(folder: Path, log: Path, **settings: Any) -> RunningGateway:
    """Start a gateway as `running_gateway` does, and leave it to the caller to stop. Raises DidNotRun."""
    places: dict[str, Any] = {
        "data_dir": folder / "data",
        "dicom_host": "127.0.0.1",
        "dicom_port": 0,
        "http_port": 0,
        "minimum_free_bytes": 0,
        "warning_free_bytes": 0,
    }
    wanted = Settings(**(places | settings))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "thinfilm_gateway", "serve"],
            env=environment(wanted),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        ports = _await_ports(process, log)
    except BaseException:
        stop(process)
        raise
    return RunningGateway(wanted.model_copy(update=ports), process, log)


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a command that shall run with these settings and no others of ours."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    return others | settings.to_environment()


def _await_ports(process: subprocess.Popen[bytes], log: Path) -> dict[str, int | None]:
    """Wait for the line in which the gateway says that it is ready, and return the ports it names."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"event": "ready"' in line and f'"pid": {process.pid}' in line:
                ready = json.loads(line)
                return {name: ready[name] for name in ("dicom_port", "dicom_tls_port", "http_port")}
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise DidNotRun(f"The gateway did not start:\n{_tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> bool:
    """Ask a program to stop by SIGTERM; return whether it did so by itself, with status 0."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_SECONDS) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
