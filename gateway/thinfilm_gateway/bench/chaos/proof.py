"""The proof after the harm: what was acknowledged comes back byte for byte, and nothing half is left."""

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinfilm_gateway.bench.chaos.remains import remains
from thinfilm_gateway.client.archived import NotArchived, await_archived
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.client.gateway import environment, running_gateway
from thinfilm_gateway.client.network import Node, PeerRefused, get
from thinfilm_gateway.config import Settings

SETTLE_SECONDS = 1200.0
GETTERS = 4
_SWEEP_EVENTS = ("spool_file_adopted", "container_removed", "temporary_file_removed", "incoming_files_removed")


@dataclass(frozen=True)
class Proof:
    """returned: instances with their SHA-256. wrong, brought_back: as in Outcome."""

    returned: int
    wrong: tuple[str, ...]
    brought_back: Mapping[str, int]


def prove(folder: Path, acknowledged: Sequence[DicomFile], **settings: Any) -> Proof:
    """Sweep a data folder that no gateway uses, let one settle on it, and get back by C-GET all that was acknowledged.

    Nothing stays in the spool meanwhile, so that all that comes back was decoded. Raises DidNotRun.
    """
    wrong: list[str] = []
    data = Settings(**({"data_dir": folder / "data"} | settings))
    brought_back = _tidy(data)
    with running_gateway(folder, **(settings | {"cache_bytes": 0, "decoded_cache_bytes": 0})) as gateway:
        try:
            await_archived(gateway.settings, lambda: None, SETTLE_SECONDS)
        except NotArchived as error:
            wrong.append(str(error))
        returned, lost = get_all(gateway.node, acknowledged)
    wrong += [*lost, *remains(data)]
    scrubbed = thinfilm(data, "scrub")
    if scrubbed.returncode:
        wrong.append(f"thinfilm scrub: {scrubbed.stderr.strip().splitlines()[-1]}")
    return Proof(returned, tuple(wrong), brought_back)


def get_all(node: Node, files: Sequence[DicomFile]) -> tuple[int, list[str]]:
    """C-GET instances, series by series; return how many came back as they were sent, and a sentence for each other."""
    series: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        series[file.series_instance_uid].append(file)
    with ThreadPoolExecutor(GETTERS) as pool:
        wrong = [sentence for part in pool.map(lambda one: _get(node, one), series.values()) for sentence in part]
    return len(files) - len(wrong), wrong


def _get(node: Node, files: Sequence[DicomFile]) -> list[str]:
    """C-GET one series; return a sentence for each of the files that did not come back as it was sent."""
    came: dict[str, str] = {}
    reason = "it was not sent"
    try:
        get(node, files, lambda uid, syntax, dataset: came.update({uid: hashlib.sha256(dataset).hexdigest()}))
    except PeerRefused as error:
        reason = str(error)
    return [
        f"{file.sop_instance_uid} is missing ({reason})."
        if file.sop_instance_uid not in came
        else f"{file.sop_instance_uid} came back changed."
        for file in files
        if came.get(file.sop_instance_uid) != file.sha256
    ]


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
