"""The spool: received objects as Part 10 files, durable before they are acknowledged.

A file grows under a temporary name and gets its real one only once its bytes are on the disk, so that a name in a shard
folder always stands for a whole object. Names carry no patient data: the shard folder and random digits, 32 together,
then the SHA-256 of the data set as it was received, so that a file tells by itself whether it still is that object.
"""

import contextlib
import datetime as dt
import errno
import hashlib
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from thinfilm_gateway.archive.space import Space, space
from thinfilm_gateway.archive.store import StorageAway, check_mounted, make_folder, sync

_BUFFER_BYTES = 1024 * 1024
_RANDOM_DIGITS = 30
_SHA256_DIGITS = 64
_NAME = re.compile(rf"[0-9a-f]{{{2 + _RANDOM_DIGITS + _SHA256_DIGITS}}}")
_TEMPORARY = "incoming"
_RESENT = "resent"
_CLOSED = -1
_SHARDS = tuple(f"{number:02x}" for number in range(256))


class SpoolWriter:
    """One object on its way into the spool; at most 1 MiB of it is held in memory."""

    def __init__(self, path: Path, minimum_free_bytes: int = 0) -> None:
        """minimum_free_bytes: so many stay free on the disk of the file."""
        self.name: str | None = None  # set by Spool.commit
        self.dataset_offset = 0
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._minimum_free_bytes = minimum_free_bytes
        self._buffer = bytearray()
        self._not_hashed = 0  # leading bytes of the buffer that come before the data set
        self._in_dataset = False
        self._is_synced = False
        self._size = 0
        self._hash = hashlib.sha256()

    @property
    def folder(self) -> Path:
        """Where the object grows; what is made of it on the way finds room there, too."""
        return self._path.parent

    @property
    def dataset_bytes(self) -> int:
        """Length of the data set so far."""
        return self._size - self.dataset_offset if self._in_dataset else 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the data set, hexadecimal; writes out what is still held in memory."""
        self._write_out()
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises OSError if the disk refuses them."""
        self._is_synced = False
        self._buffer += data
        self._size += len(data)
        if len(self._buffer) >= _BUFFER_BYTES:
            self._write_out()

    def begin_dataset(self) -> None:
        """Say that everything written from now on is the data set."""
        self.dataset_offset = self._size
        self._not_hashed = len(self._buffer)
        self._in_dataset = True

    @contextlib.contextmanager
    def mapped_dataset(self) -> Iterator[memoryview]:
        """Give the data set as received so far, mapped into memory and never copied."""
        self._write_out()
        with (
            mmap.mmap(self._file, self._size, access=mmap.ACCESS_READ) as mapping,
            memoryview(mapping) as whole,
            whole[self.dataset_offset :] as dataset,
        ):
            yield dataset

    def sync(self) -> None:
        """Make the bytes durable; done already, it costs nothing. Raises OSError if the disk refuses them."""
        if not self._is_synced:
            self._write_out()
            os.fsync(self._file)
            self._is_synced = True

    def discard(self) -> None:
        """Give the object up: nothing of it stays on the disk. Can be called at any time, more than once."""
        self._close()
        self._buffer = bytearray()  # never cleared: a view of it may still live
        self._path.unlink(missing_ok=True)

    def _write_out(self) -> None:
        self._check_space()
        with memoryview(self._buffer) as held:
            if self._in_dataset:
                self._hash.update(held[self._not_hashed :])
                self._not_hashed = 0
            written = 0
            while written < len(held):
                written += os.write(self._file, held[written:])
        self._buffer.clear()

    def _check_space(self) -> None:
        """Raise OSError, as a full disk does, where what is held would take the last space: an object may be large."""
        if not self._minimum_free_bytes or not self._buffer:
            return
        if space(self._file).free_bytes - len(self._buffer) < self._minimum_free_bytes:
            raise OSError(errno.ENOSPC, f"fewer than {self._minimum_free_bytes:,} bytes would stay free")

    def _move(self, name: str, path: Path) -> None:
        self._path.rename(path)
        self._path = path
        self.name = name

    def _close(self) -> None:
        if self._file != _CLOSED:
            os.close(self._file)
            self._file = _CLOSED  # the system gives the number to the next file that is opened


class Spool:
    """A folder of received objects, sharded; several processes may use it at the same time."""

    def __init__(self, root: Path, check: Callable[[], None] = lambda: None, minimum_free_bytes: int = 0) -> None:
        """Use `root`, which is made where it is missing.

        check: raises StorageAway while nothing may be written. minimum_free_bytes: so many stay free.
        """
        self._root = root
        self._minimum_free_bytes = minimum_free_bytes
        self._check = check
        self._temporary = root / _TEMPORARY
        self._resent = root / _RESENT
        self._is_made = False
        with contextlib.suppress(StorageAway):
            self._make()

    def create(self) -> SpoolWriter:
        """Begin an object under a temporary name. Raises StorageAway, OSError."""
        self._make()
        return SpoolWriter(self._temporary / secrets.token_hex(16), self._minimum_free_bytes)

    def commit(self, writers: Sequence[SpoolWriter]) -> None:
        """Make the objects durable, all in one go, and give each its name.

        Every file that is not yet is synced, then all are renamed, then their one folder is synced. Raises OSError when
        the disk refuses; the caller discards the writers then.
        """
        for writer in writers:
            writer.sync()
        shard = secrets.choice(_SHARDS)  # one for the whole group: one folder to sync
        folder = self._root / shard
        for writer in writers:
            name = shard + secrets.token_hex(_RANDOM_DIGITS // 2) + writer.sha256
            writer._move(name, folder / name)
        sync(folder)
        for writer in writers:
            writer._close()

    def path(self, name: str) -> Path:
        """Where the object lies. Raises ValueError if the name is none of the spool's."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a spool file.")
        return self._root / name[:2] / name

    def size(self, name: str) -> int | None:
        """Length of the object's file in bytes; None if it is not there. Raises ValueError as `path` does, OSError."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove an object; one that is gone already is no error."""
        self.path(name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        """Put an object that is kept already apart from the others, until it is known that the other copy is right."""
        self.path(name).rename(self._resent / name)

    def take_back(self, name: str) -> None:
        """Put an object that was set aside among the others again. Raises FileNotFoundError, OSError."""
        path = self.path(name)
        (self._resent / name).rename(path)
        sync(path.parent)

    def resent(self) -> list[str]:
        """Return the names of the objects that were set aside."""
        return [file.name for file in self._resent.iterdir() if _NAME.fullmatch(file.name)]

    def resent_path(self, name: str) -> Path:
        """Where an object lies that was set aside. Raises ValueError as `path` does."""
        return self._resent / self.path(name).name

    def remove_resent(self, name: str) -> None:
        """Remove an object that was set aside; one that is gone already is no error."""
        self.resent_path(name).unlink(missing_ok=True)

    def check_mounted(self) -> None:
        """Raise StorageAway if a missing file means that the whole spool is away."""
        self._check()
        check_mounted(self.names(), "spool")

    def used_bytes(self) -> int:
        """Bytes of all files; looks at every one of them. Raises OSError."""
        return bytes_under(self._root)

    def names(self) -> Iterator[str]:
        """Every object of the spool, in no order; objects that come or go meanwhile may be missing."""
        for shard in _SHARDS:
            for file in (self._root / shard).iterdir():
                if _NAME.fullmatch(file.name):
                    yield file.name

    def space(self) -> Space:
        """Space that is left on the spool's disk. Raises OSError."""
        return space(self._root)

    def sweep_temporary(self, older_than: dt.timedelta) -> int:
        """Remove what a crash left of objects that never became whole; returns how many files.

        A file still being received keeps its time fresh, so `older_than` has only to exceed the network timeout.
        """
        limit = time.time() - older_than.total_seconds()
        swept = 0
        for file in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < limit:
                    file.unlink()
                    swept += 1
        return swept

    def _make(self) -> None:
        """Make all folders, durably and once, so that no commit has to. Raises StorageAway."""
        self._check()
        if self._is_made:
            return
        make_folder(self._temporary)
        make_folder(self._resent)
        present = {folder.name for folder in self._root.iterdir()}
        missing = [shard for shard in _SHARDS if shard not in present]
        for shard in missing:
            (self._root / shard).mkdir(mode=0o700, exist_ok=True)
        sync(self._root)  # always: another process may have made them and not have come to that
        self._is_made = True


def bytes_under(root: Path) -> int:
    """Bytes of all files of the spool at `root`; those that come or go meanwhile may be missing. Raises OSError."""
    used = 0
    for folder in (*_SHARDS, _TEMPORARY, _RESENT):
        with contextlib.suppress(FileNotFoundError), os.scandir(root / folder) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    used += file.stat().st_size
    return used


def promised_sha256(name: str) -> str:
    """Return the SHA-256, hexadecimal, that the data set had when its spool file got this name."""
    return name[-_SHA256_DIGITS:]
