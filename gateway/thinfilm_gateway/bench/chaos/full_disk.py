"""The scenario of the full disk: spool and archive on small file systems of their own, filled to the last byte."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import prove
from thinfilm_gateway.bench.chaos.senders import Senders
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.gateway import DidNotRun, RunningGateway, running_gateway
from thinfilm_gateway.dimse import status

SCENARIO = "disk full"
DISK_BYTES = 32 * 1024 * 1024
OBJECTS = 12  # of each phase, at least
NOTICE_SECONDS = 120.0

SETTINGS = {"series_quiet_seconds": 0.5, "cache_bytes": 0, "lossless_codecs": ("jpegls",), "local_workers": 1}


class CannotMount(Exception):
    """This user may not mount file systems; the message is one sentence."""


def fill_disks(folder: Path, seed: int) -> Outcome:
    """Fill the spool's disk, then the archive's, under load, and make room again.

    While the spool is full, objects are refused with A700; while the archive is, they are taken. Raises DidNotRun,
    PeerRefused or NotArchived.
    """
    with contextlib.ExitStack() as mounted:
        spool, archive = folder / "data" / "spool", folder / "data" / "archive"
        try:
            for place in (spool, archive):
                mounted.enter_context(_small_disk(place))
        except CannotMount as error:
            return Outcome(SCENARIO, skipped=f"not run: {error}")
        with (
            running_gateway(folder, **SETTINGS) as gateway,
            Senders(lambda: gateway.node, folder / "sent", seed) as senders,
        ):
            senders.await_acknowledged(OBJECTS)
            with _full(spool):
                senders.await_refused(status.OUT_OF_RESOURCES)
            senders.await_acknowledged(OBJECTS)
            with _full(archive):
                senders.await_acknowledged(OBJECTS)
                _await_event(gateway, "job_postponed")
            senders.await_acknowledged(OBJECTS)
        acknowledged = list(senders.acknowledged.values())
        with running_gateway(folder, **SETTINGS) as gateway:
            await_archived(gateway.settings, lambda: None)
        proof = prove(folder, acknowledged, **SETTINGS)
    faults = {"spool filled": 1, "archive filled": 1}
    return Outcome(SCENARIO, faults, len(acknowledged), proof.returned, proof.brought_back, proof.wrong)


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    """Mount a file system in memory at a folder until the block ends. Raises CannotMount."""
    place.mkdir(parents=True)
    options = f"size={DISK_BYTES},mode=0700"
    try:
        subprocess.run(  # noqa: S603
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],  # noqa: S607
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        raise CannotMount("only root may mount a small file system") from None
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)  # noqa: S603, S607


@contextlib.contextmanager
def _full(place: Path) -> Iterator[None]:
    """Leave no room on the disk of a folder until the block ends."""
    filler = place / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
        yield
    finally:
        filler.unlink(missing_ok=True)


def _await_event(gateway: RunningGateway, event: str) -> None:
    """Wait for a line of the log."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while f'"event": "{event}"' not in gateway.log.read_text("utf-8"):
        if time.monotonic() > deadline:
            raise DidNotRun(f"In {NOTICE_SECONDS:g} s the log did not say {event}.")
        time.sleep(0.1)
