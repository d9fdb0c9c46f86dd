"""The scenarios of the restores: last night's index, last night's archive, or both, beside what came since."""

import enum
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinfilm_gateway.bench.chaos import indexes
from thinfilm_gateway.bench.chaos.indexes import Index
from thinfilm_gateway.bench.chaos.load import await_returned, store_all, write_series
from thinfilm_gateway.bench.chaos.outcome import Outcome
from thinfilm_gateway.bench.chaos.proof import get_all, prove, thinfilm
from thinfilm_gateway.client.archived import await_archived
from thinfilm_gateway.client.files import DicomFile
from thinfilm_gateway.client.gateway import running_gateway
from thinfilm_gateway.client.network import Node
from thinfilm_gateway.config import Settings

SLICES = 4
NIGHT_SECONDS = 2 * 24 * 3600.0  # so much older than now is what lies there when the backup is put back

SETTINGS = {"series_quiet_seconds": 0.5, "cache_bytes": 0, "lossless_codecs": ("jpegls",), "local_workers": 1}
KEEPING_COPIES = {"cache_bytes": 10**9}


class Restored(enum.Enum):
    """What is put back from the backup."""

    INDEX = "old index"
    ARCHIVE = "old archive"
    BOTH = "old index and archive"


@dataclass(frozen=True)
class _Night:
    """What was acknowledged, by what became of it.

    before: archived before the backup. waiting: in the spool at the backup, archived and evicted after it. after: came,
    was archived and evicted after the backup. copied: came after it too, but has its copy in the spool yet.
    """

    before: Sequence[DicomFile]
    waiting: Sequence[DicomFile]
    after: Sequence[DicomFile]
    copied: Sequence[DicomFile]

    @property
    def all(self) -> list[DicomFile]:
        return [*self.before, *self.waiting, *self.after, *self.copied]


def restore_on_sqlite(folder: Path, what: Restored) -> Outcome:
    """Try it on the embedded index. Raises DidNotRun, PeerRefused or NotArchived."""
    return _restore(folder, what, indexes.Sqlite(folder / "data"), what.value)


def restore_on_postgresql(folder: Path, what: Restored) -> Outcome:
    """Try it on a PostgreSQL of one's own. Raises DidNotRun, PeerRefused or NotArchived."""
    scenario = f"{what.value}, PostgreSQL"
    try:
        with indexes.postgres() as index:
            indexes.upgrade(Settings.model_validate({"data_dir": folder / "data", **index.settings}))
            return _restore(folder, what, index, scenario)
    except indexes.NotInstalled as error:
        return Outcome(scenario, skipped=f"not run: {error}")


def _restore(folder: Path, what: Restored, index: Index, scenario: str) -> Outcome:
    """Put the backup back, look at what `serve` alone brings back, and send again only what has no copy any more."""
    settings = SETTINGS | dict(index.settings)
    night = _pass_a_night(folder, what, index, settings)
    kept = night.all if what is Restored.INDEX else [*night.before, *night.copied]
    wrong: list[str] = []
    with running_gateway(folder, **settings) as gateway:
        wrong += await_returned(gateway.node, kept)
        lost = get_all(gateway.node, night.all).missing
    if what is not Restored.INDEX:
        wrong += _heal(folder, settings, [file for file in night.all if file.sop_instance_uid in lost])
    proof = prove(folder, night.all, **settings)
    faults = {f"{what.value} restored": 1}
    if lost:
        faults["sent again"] = len(lost)
    return Outcome(scenario, faults, len(night.all), proof.returned, proof.brought_back, (*wrong, *proof.wrong))


def _pass_a_night(folder: Path, what: Restored, index: Index, settings: dict[str, Any]) -> _Night:
    """Store objects before and after a backup, then put that back."""
    data, backup = folder / "data", folder / "backup"
    backup.mkdir()
    with running_gateway(folder, **settings) as gateway:
        before = _store(gateway.node, folder / "before")
        await_archived(gateway.settings, lambda: None)
    with running_gateway(folder, **(settings | {"local_workers": 0})) as gateway:
        waiting = _store(gateway.node, folder / "waiting")
    index.back_up(backup / "index")
    shutil.copytree(data / "archive", backup / "archive")
    with running_gateway(folder, **settings) as gateway:
        after = _store(gateway.node, folder / "after")
        await_archived(gateway.settings, lambda: None)
    with running_gateway(folder, **(settings | KEEPING_COPIES)) as gateway:
        copied = _store(gateway.node, folder / "copied")
        await_archived(gateway.settings, lambda: None, kept_copies=True)
    if what is not Restored.ARCHIVE:
        index.restore(backup / "index")
    if what is not Restored.INDEX:
        shutil.rmtree(data / "archive")
        shutil.copytree(backup / "archive", data / "archive")
    _age(data / "archive")
    _age(data / "spool")
    return _Night(before, waiting, after, copied)


def _store(node: Node, folder: Path) -> list[DicomFile]:
    files = write_series(folder, SLICES)
    store_all(node, files)
    return files


def _age(folder: Path) -> None:
    """Let all files below a folder have been written long ago."""
    then = time.time() - NIGHT_SECONDS
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def _heal(folder: Path, settings: dict[str, Any], lost: Sequence[DicomFile]) -> list[str]:
    """Let the scrub say what is lost, and send that again; return a sentence if it says nothing."""
    scrubbed = thinfilm(Settings.model_validate({"data_dir": folder / "data"} | settings), "scrub")
    with running_gateway(folder, **settings) as gateway:
        store_all(gateway.node, lost)
        wrong = await_returned(gateway.node, lost)
    return wrong if scrubbed.returncode else ["The scrub said nothing of what was lost.", *wrong]
