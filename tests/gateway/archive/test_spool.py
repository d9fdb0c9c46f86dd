"""The spool keeps objects whole, durable and nameless."""

import contextlib
import datetime as dt
import errno
import hashlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinfilm_gateway.archive.spool import Spool, SpoolWriter, promised_sha256

HEADER = b"header"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def written(spool: Spool, *parts: bytes) -> SpoolWriter:
    writer = spool.create()
    writer.write(HEADER)
    writer.begin_dataset()
    for part in parts:
        writer.write(part)
    return writer


def files(spool: Spool) -> list[Path]:
    return [path for path in spool.path("0" * 96).parent.parent.rglob("*") if path.is_file()]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_object_comes_out_of_the_spool_as_it_went_in(spool: Spool) -> None:
    writer = written(spool, b"data", b"", b"set")
    spool.commit([writer])

    assert writer.name is not None
    assert spool.path(writer.name).read_bytes() == b"headerdataset"
    assert writer.sha256 == hashlib.sha256(b"dataset").hexdigest()
    assert (writer.dataset_offset, writer.dataset_bytes) == (6, 7)
    assert list(spool.names()) == [writer.name]


@given(st.lists(st.integers(0, 700_000), max_size=8))
def test_the_checksum_is_of_the_data_set_however_it_was_cut(tmp_path_factory, lengths: list[int]) -> None:
    spool = Spool(tmp_path_factory.getbasetemp() / "cuts")
    parts = [bytes([number]) * length for number, length in enumerate(lengths)]
    writer = written(spool, *map(memoryview, parts))
    with writer.mapped_dataset() as dataset:
        assert bytes(dataset) == b"".join(parts)
    assert writer.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    assert writer.dataset_bytes == sum(lengths)
    writer.discard()


def test_an_object_of_any_size_is_held_in_memory_up_to_one_mebibyte_only(spool: Spool) -> None:
    writer = written(spool)
    for _ in range(40):
        writer.write(bytes(100_000))
        on_disk = sum(path.stat().st_size for path in files(spool))
        assert writer.dataset_bytes + len(HEADER) - on_disk < 1024 * 1024
    writer.discard()


def test_an_object_has_no_name_before_it_is_committed(spool: Spool) -> None:
    writer = written(spool, b"data set")
    assert writer.name is None
    assert list(spool.names()) == []
    writer.discard()


def test_a_discarded_object_leaves_nothing_whenever_it_is_discarded(spool: Spool) -> None:
    early, late = written(spool, b"early"), written(spool, b"late")
    early.discard()
    spool.commit([late])
    late.discard()
    late.discard()
    assert files(spool) == []


def test_a_group_is_synced_before_it_is_named_and_its_folder_once_after(spool: Spool, monkeypatch) -> None:
    writers = [written(spool, bytes([number]) * 10) for number in range(5)]
    writers[0].sync()
    writers[1].sync()
    writers[1].write(b"more, which is not synced yet")
    steps: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def spied_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def spied_rename(source: Path, target: Path) -> Path:
        steps.append(("name", str(source)))
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(Path, "rename", spied_rename)
    spool.commit(writers)

    named = [path for kind, path in steps if kind == "name"]
    first_named = steps.index(("name", named[0]))
    assert [path for kind, path in steps[:first_named] if kind == "sync"] == named[1:]
    folders = {str(spool.path(str(writer.name)).parent) for writer in writers}
    assert len(named) == 5
    assert [steps[-1]] == [("sync", folder) for folder in folders]


def test_objects_of_a_group_keep_their_own_bytes_and_names(spool: Spool) -> None:
    writers = [written(spool, bytes([number]) * number) for number in range(20)]
    spool.commit(writers)
    assert sorted(spool.names()) == sorted(str(writer.name) for writer in writers)
    for number, writer in enumerate(writers):
        assert spool.path(str(writer.name)).read_bytes() == HEADER + bytes([number]) * number


def test_a_disk_that_refuses_bytes_is_an_error_and_leaves_nothing_after_discard(spool: Spool) -> None:
    writer = written(spool)
    with largest_file(100_000), pytest.raises(OSError, match="File too large"):
        writer.write(bytes(2_000_000))
    writer.discard()

    writers = [written(spool, b"small"), written(spool, bytes(500_000))]
    with largest_file(100_000), pytest.raises(OSError, match="File too large"):
        spool.commit(writers)
    for writer in writers:
        writer.discard()
    assert files(spool) == []


def test_a_name_keeps_the_checksum_that_its_data_set_was_received_with(spool: Spool) -> None:
    writers = [written(spool, b"one"), written(spool, b"two")]
    spool.commit(writers)
    for writer, dataset in zip(writers, (b"one", b"two"), strict=True):
        assert promised_sha256(str(writer.name)) == hashlib.sha256(dataset).hexdigest()


def test_an_object_can_be_discarded_while_its_last_bytes_are_being_written(spool: Spool, monkeypatch) -> None:
    writer = written(spool, b"data set")

    def refuse(descriptor: int, data: memoryview) -> int:
        writer.discard()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        _ = writer.sha256
    assert files(spool) == []


def test_a_removed_object_is_gone_and_removing_it_again_is_no_error(spool: Spool) -> None:
    writer = written(spool, b"x")
    spool.commit([writer])
    spool.remove(str(writer.name))
    spool.remove(str(writer.name))
    assert list(spool.names()) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 96, "0" * 32, "0" * 95, "0" * 97, "0" * 95 + "\n"])
def test_a_name_that_is_none_of_the_spool_is_refused(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a spool file"):
        spool.path(name)


def test_a_strange_file_in_a_shard_is_no_object(spool: Spool) -> None:
    writer = written(spool, b"x")
    spool.commit([writer])
    (spool.path(str(writer.name)).parent / "notes.txt").write_text("someone was here")
    assert list(spool.names()) == [writer.name]


def test_the_sweep_takes_old_halves_and_leaves_fresh_ones_and_objects(spool: Spool) -> None:
    old, fresh, whole = written(spool, bytes(2**20)), written(spool, bytes(2**20)), written(spool, b"whole")
    spool.commit([whole])
    half = next(path for path in files(spool) if path.stat().st_size > 2**20)
    os.utime(half, (0, 0))
    os.utime(spool.path(str(whole.name)), (0, 0))

    assert spool.sweep_temporary(dt.timedelta(hours=1)) == 1
    assert not half.exists()
    assert len(files(spool)) == 2
    old.discard()
    fresh.discard()


def test_free_space_is_that_of_the_disk(spool: Spool, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert abs(spool.space().free_bytes - disk.f_bavail * disk.f_frsize) < 2**30


def test_two_spools_on_one_folder_see_the_same_objects(spool: Spool, tmp_path: Path) -> None:
    writer = written(spool, b"shared")
    spool.commit([writer])
    assert list(Spool(tmp_path / "spool").names()) == [writer.name]
