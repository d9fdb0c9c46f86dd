"""Room for further objects: bytes and files (inodes), looked at before an object comes and while it grows."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.datasets import XA_IMAGE, EncodedDataSet, ct_series, finish, instance, with_pixels
from support.disks import small_disk
from support.gateway import running_gateway
from support.receiver import running_receiver, wait_until
from support.scu import Answer, store_all
from thinfilm_gateway import data_folder
from thinfilm_gateway.archive import space as space_module
from thinfilm_gateway.archive.space import LEAST_FREE_FILES, space
from thinfilm_gateway.archive.spool import Spool, SpoolWriter
from thinfilm_gateway.config import Settings
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.storage import FULL, NO_FILES
from thinfilm_gateway.index.volumes import KnownVolumes

MIB = 1024 * 1024
(CT,) = ct_series(1)
STORED = Answer(status.SUCCESS, "")
PLAIN: dict[str, Any] = {"minimum_free_bytes": 0, "warning_free_bytes": 0}


def _large(size: int) -> EncodedDataSet:
    return finish(with_pixels(instance(XA_IMAGE, "XA"), np.zeros((size // MIB, 1024, 1024), np.uint8)))


def _fill(writer: SpoolWriter) -> None:
    for _ in range(64):
        writer.write(bytes(MIB))


@contextlib.contextmanager
def _no_files_left(folder: Path) -> Iterator[None]:
    """Take all inodes of a disk until the block ends."""
    taken = folder / "taken"
    taken.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            (taken / str(number)).touch()
    yield
    for file in taken.iterdir():
        file.unlink()
    taken.rmdir()


def _counted(monkeypatch: pytest.MonkeyPatch, free_files: int, files: int) -> None:
    """Let every disk have so many files, as statvfs tells them."""

    def statvfs(place: Any) -> os.statvfs_result:
        found = list(statvfs_of_the_system(place))
        found[5], found[7] = files, free_files
        return os.statvfs_result(found)

    statvfs_of_the_system = os.statvfs
    monkeypatch.setattr(space_module.os, "statvfs", statvfs)


@pytest.mark.parametrize(
    ("free_files", "files", "refused", "obstacle", "warned"),
    [
        (LEAST_FREE_FILES, 10**6, None, None, "files (inodes) are free"),
        (LEAST_FREE_FILES - 1, 10**6, "files (inodes) are free", None, "files (inodes) are free"),
        (3, 10**6, "files (inodes) are free", "files (inodes) are free", "files (inodes) are free"),
        (60_000, 10**6, None, None, None),
        (0, 0, None, None, None),  # a file system that does not count them
    ],
)
def test_people_are_told_of_a_disk_that_can_hold_no_further_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_files: int,
    files: int,
    refused: str | None,
    obstacle: str | None,
    warned: str | None,
) -> None:
    _counted(monkeypatch, free_files, files)
    room = data_folder.room(Settings(data_dir=tmp_path, **PLAIN), KnownVolumes())
    for sentence, expected in ((room.refusal, refused), (room.obstacle, obstacle), (room.warning, warned)):
        assert sentence is None if expected is None else expected in str(sentence)


def test_an_object_is_refused_before_it_is_read_while_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_receiver(tmp_path) as receiver:
        with monkeypatch.context() as patched:
            _counted(patched, LEAST_FREE_FILES - 1, 10**6)
            assert store_all(receiver.port, [CT]) == [Answer(status.OUT_OF_RESOURCES, NO_FILES)]
        receiver.assert_nothing_kept()
        assert store_all(receiver.port, [CT]) == [STORED]


def test_a_gateway_whose_disk_has_no_inode_left_refuses_says_so_and_goes_on_by_itself(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "data", "nr_inodes=700,size=64m"),
        running_gateway(tmp_path, receivers=1, local_workers=0, series_quiet_seconds=3600) as gateway,
    ):
        assert gateway.health()["status"] == "ok"
        with _no_files_left(gateway.settings.spool_dir):
            assert space(gateway.settings.spool_dir).free_files == 0
            assert store_all(gateway.settings.dicom_port, [CT]) == [Answer(status.OUT_OF_RESOURCES, NO_FILES)]
            told = gateway.health()
            assert told["status"] == "degraded"
            assert "C-STORE is refused: 0 files (inodes) are free" in told["reason"]
            wait_until(lambda: '"storage_refused"' in gateway.log.read_text(), "the log says so")
        assert store_all(gateway.settings.dicom_port, [CT]) == [STORED]
        assert gateway.health()["status"] == "ok"


def test_a_spool_file_stops_growing_before_the_space_that_is_to_stay_free_is_taken(tmp_path: Path) -> None:
    with small_disk(tmp_path / "spool", "size=32m"):
        spool = Spool(tmp_path / "spool", minimum_free_bytes=8 * MIB)
        writer = spool.create()
        with pytest.raises(OSError, match="would stay free"):
            _fill(writer)
        assert 8 * MIB <= spool.space().free_bytes < 10 * MIB
        writer.discard()
        assert spool.space().free_bytes > 30 * MIB


def test_an_object_that_would_take_the_last_space_is_refused_and_nothing_half_stays(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "data", "size=48m"),
        running_receiver(tmp_path, minimum_free_bytes=24 * MIB, large_object_bytes=MIB) as receiver,
    ):
        assert store_all(receiver.port, [_large(30 * MIB), CT]) == [
            Answer(status.OUT_OF_RESOURCES, FULL),
            STORED,
        ]
        assert space(receiver.settings.spool_dir).free_bytes >= 24 * MIB
