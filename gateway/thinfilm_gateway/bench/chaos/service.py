"""A gateway that is killed and started again, as a service manager does it, and its processes by what they are."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from thinfilm_gateway.client.gateway import DidNotRun, RunningGateway, start_gateway, stop
from thinfilm_gateway.client.network import Node

RECEIVER = "receiver"
WORKER = "worker"
WORKER_PROCESS = "worker process"
SUPERVISOR = "supervisor"
ROLES = (RECEIVER, WORKER, WORKER_PROCESS, SUPERVISOR)

COMING_UP_SECONDS = 180.0


class Service:
    """`thinfilm serve` on one DICOM port, with its data and a log for each start in a folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self._settings = settings
        self._starts = 0
        self._gateway: RunningGateway | None = None

    @property
    def gateway(self) -> RunningGateway:
        """The gateway as it was last started."""
        assert self._gateway is not None, "It was not started."
        return self._gateway

    def node(self) -> Node:
        """Where its DICOM services are."""
        return self.gateway.node

    def start(self) -> None:
        """Start it, again and again while what is left of the last one still holds the port. Raises DidNotRun."""
        deadline = time.monotonic() + COMING_UP_SECONDS
        while True:
            self._starts += 1
            try:
                self._gateway = start_gateway(
                    self._folder, self._folder / f"serve-{self._starts:04d}.log", **self._settings
                )
            except DidNotRun:
                if time.monotonic() > deadline:
                    raise
            else:
                self._settings["dicom_port"] = self._gateway.settings.dicom_port
                return

    def stop(self) -> None:
        """Stop it in order. Raises DidNotRun."""
        if not stop(self.gateway.process):
            raise DidNotRun(f"The gateway did not stop in order; its log is {self.gateway.log}.")

    def end(self) -> None:
        """Stop it if it still runs, in order or not."""
        if self._gateway is not None and self._gateway.process.poll() is None:
            stop(self._gateway.process)

    def count(self, event: str) -> int:
        """Return how often the log has said this since the last start."""
        return self.gateway.log.read_text("utf-8").count(f'"event": "{event}"')

    def kill(self, role: str) -> int | None:
        """Kill a process of that role, the one that started last, as if the power had gone; None while there is none.

        Whoever kills the supervisor starts it again.
        """
        living = self.living(role)
        if not living:
            return None
        os.kill(living[-1], signal.SIGKILL)
        if role == SUPERVISOR:
            self.gateway.process.wait()
        return living[-1]

    def living(self, role: str) -> list[int]:
        """Return the processes of that role that run, in the order of their starts."""
        supervisor = self.gateway.process.pid
        if role == SUPERVISOR:
            return [supervisor] if self.gateway.process.poll() is None else []
        started = [json.loads(line) for line in self.gateway.log.read_text("utf-8").splitlines() if '"pid": ' in line]
        if role == WORKER_PROCESS:
            parents = self.living(WORKER)
            pids = [line["pid"] for line in started if line["event"] == "worker_started"]
        else:
            parents = [supervisor]
            children = [line for line in started if line["event"] == "process_started"]
            pids = [line["pid"] for line in children if line["process"].startswith(role)]
        return [pid for pid in pids if _parent(pid) in parents]


def _parent(pid: int) -> int | None:
    """Return the parent of a process that runs; None if it does not."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)
