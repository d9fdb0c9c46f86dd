"""The proof after the harm: what was acknowledged comes back byte for byte, and nothing half is left."""

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinfilm_gateway.bench.chaos.remains import half_objects, remains, unlisted
from thinfilm_gateway.client.archived import NotArchived, await_archived
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.client.gateway import environment, running_gateway
from thinfilm_gateway.client.network import Node, PeerRefused, get
from thinfilm_gateway.config import Settings

SETTLE_SECONDS = 1200.0
END_SECONDS = 120.0  # for what is left to do once everything is archived
LOOK_EVERY_SECONDS = 0.25
GETTERS = 4
_SWEEP_EVENTS = ("spool_file_adopted", "container_attached", "container_removed", "temporary_file_removed")


@dataclass(frozen=True)
class Proof:
    """returned: instances with their SHA-256. wrong, brought_back: as in Outcome."""

    returned: int
    wrong: tuple[str, ...]
    brought_back: Mapping[str, int]


def prove(folder: Path, acknowledged: Sequence[DicomFile], **settings: Any) -> Proof:
    """Let a gateway settle on a data folder that none uses, and get back by C-GET all that was acknowledged.

    A start alone must leave no half object; only then the sweep runs, which looks at files of any age. Nothing stays in
    the spool meanwhile, so that all that comes back was decoded. Raises DidNotRun.
    """
    data = Settings(**({"data_dir": folder / "data"} | settings))
    with running_gateway(folder, **(settings | {"receivers": 1, "local_workers": 0})):
        wrong = half_objects(data)
    brought_back = _tidy(data)
    with running_gateway(folder, **(settings | {"cache_bytes": 0, "decoded_cache_bytes": 0})) as gateway:
        try:
            await_archived(gateway.settings, lambda: None, SETTLE_SECONDS)
        except NotArchived as error:
            wrong.append(str(error))
        retrieved = get_all(gateway.node, acknowledged)
        left = _await_end(data)
    brought_back += _tidy(data)
    wrong += [*retrieved.sentences(), *left, *unlisted(data)]
    scrubbed = json.loads(thinfilm(data, "scrub", "--json").stdout)
    wrong += [f"thinfilm scrub: {damage}" for damage in scrubbed["damages"]]
    returned = len(acknowledged) - len(retrieved.missing) - len(retrieved.changed)
    return Proof(returned, tuple(wrong), brought_back)


@dataclass(frozen=True)
class Retrieved:
    """What did not come back as it was sent, each with the reason."""

    missing: Mapping[str, str]
    changed: Mapping[str, str]

    def sentences(self) -> list[str]:
        """Say so."""
        return [f"{uid} {what}" for uid, what in [*self.missing.items(), *self.changed.items()]]


def get_all(node: Node, files: Sequence[DicomFile]) -> Retrieved:
    """C-GET instances, series by series."""
    series: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        series[file.series_instance_uid].append(file)
    missing: dict[str, str] = {}
    changed: dict[str, str] = {}
    with ThreadPoolExecutor(GETTERS) as pool:
        for one, (came, reason) in zip(
            series.values(), pool.map(lambda s: _get(node, s), series.values()), strict=True
        ):
            for file in one:
                uid = file.sop_instance_uid
                if uid not in came:
                    missing[uid] = f"is missing: {reason}"
                elif came[uid] != file.sha256:
                    changed[uid] = f"came back with SHA-256 {came[uid]}, not {file.sha256}."
    return Retrieved(missing, changed)


def _get(node: Node, files: Sequence[DicomFile]) -> tuple[dict[str, str], str]:
    """C-GET one series; return the SHA-256 of what came, by SOP Instance UID, and why the rest did not."""
    came: dict[str, str] = {}
    try:
        get(node, files, lambda uid, syntax, dataset: came.update({uid: hashlib.sha256(dataset).hexdigest()}))
    except PeerRefused as error:
        return came, str(error)
    return came, "it was not sent."


def _await_end(settings: Settings) -> list[str]:
    """Wait until nothing half is left, jobs that have nothing to do any more among it; return what stays."""
    deadline = time.monotonic() + END_SECONDS
    while (left := remains(settings)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS)
    return left


def thinfilm(settings: Settings, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line on a data folder, whatever its exit status."""
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "thinfilm_gateway", *command],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )


def _tidy(settings: Settings) -> Counter[str]:
    """Let the sweep look at files of any age; return what it did, by the names of the log."""
    done = thinfilm(settings, "tidy")
    done.check_returncode()
    events = [json.loads(line)["event"] for line in done.stderr.splitlines() if line.startswith("{")]
    return Counter(event for event in events if event in _SWEEP_EVENTS)
