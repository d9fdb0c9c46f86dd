"""The scenario of the descriptors: processes of a gateway may open no further file while they are at work."""

import contextlib
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.bench.chaos.senders import Senders
from thinfilm_gateway.bench.chaos.service import RECEIVER, SUPERVISOR, WORKER_PROCESS, Service
from thinfilm_gateway.client.gateway import DidNotRun

SCENARIO = "descriptors used up"
OBJECTS = 12  # of each phase, at least
LONGEST_SECONDS = 3.0  # without descriptors
BACK_SECONDS = 300.0

SETTINGS = {
    "series_quiet_seconds": 0.5,
    "cache_bytes": 0,
    "lossless_codecs": ("jpegls",),
    "local_workers": 1,
    "receivers": 1,
    "max_attempts": 1000,  # a job that can open no file is not given up
}


def use_up_descriptors(folder: Path, seed: int) -> Outcome:
    """Take the descriptors from receiver, worker process and supervisor under load, one after the other.

    While the supervisor has none, its receiver is killed, and must be started again. Raises DidNotRun, PeerRefused or
    NotArchived. Linux only.
    """
    moments = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    service = Service(folder, **SETTINGS)
    service.start()
    try:
        with Senders(service.node, folder / "sent", seed) as senders:
            for role in (RECEIVER, WORKER_PROCESS, SUPERVISOR):
                senders.await_acknowledged(OBJECTS, BACK_SECONDS)
                with _without_descriptors(service, role):
                    if role == SUPERVISOR:
                        service.kill(RECEIVER)
                    time.sleep(moments.uniform(0, LONGEST_SECONDS))  # how long it lasts is what is tried
            senders.await_acknowledged(OBJECTS, BACK_SECONDS)
        service.stop()
    finally:
        service.end()
    acknowledged = list(senders.acknowledged.values())
    proof = prove(folder, acknowledged, **SETTINGS)
    faults = {RECEIVER: 1, WORKER_PROCESS: 1, SUPERVISOR: 1}
    return Outcome(SCENARIO, faults, len(acknowledged), proof.returned, proof.brought_back, proof.wrong)


@contextlib.contextmanager
def _without_descriptors(service: Service, role: str) -> Iterator[None]:
    """Let a process of that role open no further file until the block ends, if it lives so long."""
    deadline = time.monotonic() + BACK_SECONDS
    while not (living := service.living(role)):
        if time.monotonic() > deadline:
            raise DidNotRun(f"In {BACK_SECONDS:g} s no {role} was started.")
        time.sleep(0.02)
    pid = living[-1]
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))  # these stay; with fewer, it could not even wait for them
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
