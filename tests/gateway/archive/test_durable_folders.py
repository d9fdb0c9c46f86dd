"""No folder is made whose name a power cut could take, with all that lies in it."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from thinfilm_gateway import data_folder, volumes
from thinfilm_gateway.archive.spool import Spool
from thinfilm_gateway.archive.store import FolderStore, make_folder, new_key
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.database import Database
from thinfilm_workers.context import Context


class Disk:
    """What was made and what was synced, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._events: list[tuple[str, Path]] = []
        self.listening = True
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            self._events.append(("synced", Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if self.listening and event in ("os.mkdir", "os.rename"):
                path = Path(os.fsdecode(arguments[0 if event == "os.mkdir" else 1]))
                self._events.append((event, path))

        monkeypatch.setattr(os, "fsync", noted)
        sys.addaudithook(note)

    def lost(self) -> set[Path]:
        """Names that would not be there after a power cut."""
        self.listening = False
        lost: set[Path] = set()
        for event, path in self._events:
            if event == "synced":
                lost = {name for name in lost if name.parent != path}
            else:
                lost.add(path)
        return lost


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_the_names_of_all_folders_of_a_gateway_are_on_the_disk_before_they_are_used(tmp_path: Path, disk: Disk) -> None:
    settings = Settings(data_dir=tmp_path / "srv" / "deep" / "thinfilm")
    data_folder.make(settings.data_dir)
    database = Database(settings.index_url)
    database.upgrade()
    volumes.settle(settings, database)
    context = Context.over(settings, database)
    source = context.work_dir / "made.tfa"
    source.write_bytes(b"container")
    context.store.put(new_key(), source)
    writer = context.spool.create()
    writer.begin_dataset()
    writer.write(b"object")
    context.spool.commit([writer])
    database.dispose()
    assert disk.lost() == set()


def test_a_folder_that_another_process_made_and_did_not_sync_is_synced_by_who_uses_it(
    tmp_path: Path, disk: Disk
) -> None:
    """It may have been killed in between."""
    spool, archive, key = tmp_path / "spool", tmp_path / "archive", new_key()
    for folder in (spool, spool / "incoming", *(spool / f"{n:02x}" for n in range(256)), archive, archive / key[:2]):
        folder.mkdir()
    assert len(disk.lost()) == 260
    disk.listening = True
    source = tmp_path / "made.tfa"
    source.write_bytes(b"container")
    FolderStore(archive).put(key, source)
    Spool(spool).create().discard()
    assert disk.lost() == set()


def test_folders_are_made_for_this_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]
