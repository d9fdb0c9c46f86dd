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
BACK_SECONDS = 300.0  # in which what was killed must be back at work

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
            for _ in range(kills):
                _await_work(service, senders)
                time.sleep(moments.uniform(0, LONGEST_PAUSE_SECONDS))  # the moment is what is tried, not a condition
                role = moments.choice(ROLES)
                _kill(service, role)
                killed[role] += 1
                advance()
            _await_work(service, senders)
        service.stop()
    finally:
        service.end()
    acknowledged = list(senders.acknowledged.values())
    proof = prove(folder, acknowledged, **SETTINGS)
    return Outcome("kill -9", dict(killed), len(acknowledged), proof.returned, proof.brought_back, proof.wrong)


def _await_work(service: Service, senders: Senders) -> None:
    """Wait until objects are acknowledged and jobs begun that were not before, so that the next kill hits work."""
    begun = service.count("job_started")
    senders.await_acknowledged(1, BACK_SECONDS)
    _await(lambda: service.count("job_started") > begun, "no job was begun")


def _kill(service: Service, role: str) -> None:
    """Kill a process of that role, once there is one."""
    _await(lambda: service.kill(role) is not None, f"no {role} was started")
    if role == SUPERVISOR:
        service.start()


def _await(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + BACK_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DidNotRun(f"In {BACK_SECONDS:g} s {otherwise} after a kill.")
        time.sleep(0.02)
