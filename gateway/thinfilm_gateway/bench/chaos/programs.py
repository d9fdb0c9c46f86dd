"""Programs beside the gateway, each of one's own, until a block ends."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from thinfilm_gateway.client.gateway import DidNotRun

START_SECONDS = 60.0
STOP_SECONDS = 90.0


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool] = lambda: True,
    env: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """Run a program; enter the block when it answers. Raises DidNotRun."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, cwd=log.parent, stdout=output, stderr=output)  # noqa: S603
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DidNotRun(f"{Path(command[0]).name} did not start; its log is {log}.")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
