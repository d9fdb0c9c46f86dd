"""The scenario of the kills: receivers, workers and the supervisor die at random moments under load."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.bench.chaos.senders import Senders
from thinfilm_gateway.bench.chaos.service import ROLES, SUPERVISOR, Service
from thinfilm_gateway.client.gateway import DidNotRun

LONGEST_PAUSE_SECONDS = 1.5  # between two kills
RESTART_SECONDS = 120.0  # in which the supervisor must have replaced a process

SETTINGS = {
    "series_quiet_seconds": 0.5,
    "cache_bytes": 0,
    "lossless_codecs": ("jpegls",),
    "local_workers": 1,
    "job_lease_seconds": 10.0,
    "max_attempts": 1000,  # who is killed at random is not killed by its job
}


def kill_under_load(folder: Path, kills: int, seed: int, advance: Callable[[], None]) -> Outcome:
    """Kill a process of a random role at a random moment, again and again; `advance` is called after each.

    Raises DidNotRun if the gateway does not come back.
    """
    moments = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    killed: Counter[str] = Counter(dict.fromkeys(ROLES, 0))
    service = Service(folder, **SETTINGS)
    service.start()
    try:
        with Senders(service.node, folder / "sent", seed) as senders:
            senders.await_acknowledged(1)
            for _ in range(kills):
                time.sleep(moments.uniform(0, LONGEST_PAUSE_SECONDS))  # the moment is what is tried, not a condition
                role = moments.choice(ROLES)
                _kill(service, role)
                killed[role] += 1
                advance()
            senders.await_acknowledged(1)
        service.stop()
    finally:
        service.end()
    acknowledged = list(senders.acknowledged.values())
    proof = prove(folder, acknowledged, **SETTINGS)
    return Outcome("kill -9", killed, len(acknowledged), proof.returned, proof.brought_back, proof.wrong)


def _kill(service: Service, role: str) -> None:
    """Kill a process of that role, once there is one."""
    deadline = time.monotonic() + RESTART_SECONDS
    while service.kill(role) is None:
        if time.monotonic() > deadline:
            raise DidNotRun(f"In {RESTART_SECONDS:g} s no {role} was started again.")
        time.sleep(0.02)
    if role == SUPERVISOR:
        service.start()
