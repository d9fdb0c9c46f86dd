"""Where containers are kept: the interface of an object store, and the store that is a local folder."""

import contextlib
import datetime as dt
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}\.tfa")


class StorageAway(Exception):
    """What is stored cannot be judged now: a store is away, or what decodes it; nothing there may be called lost."""


def check_mounted(names: Iterator[str], place: str) -> None:
    """Raise StorageAway if `names`, those of all objects of a store in which one is missing, are none at all."""
    try:
        empty = next(names, None) is None
    except FileNotFoundError:  # not even its folder is there
        empty = True
    if empty:
        raise StorageAway(f"The {place} is empty although objects should lie in it; is its volume mounted?")


class RangeReader(Protocol):
    """An object opened for reads of byte ranges; many threads may read at a time."""

    @property
    def size(self) -> int:
        """Size of the object in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end of the object. Raises OSError."""

    def close(self) -> None:
        """Let the object go."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ObjectStore(Protocol):
    """Keeps immutable objects under keys."""

    def put(self, key: str, source: Path) -> None:
        """Move the file `source` into the store; the object is durable on return, and is read from storage after that.

        Raises FileExistsError for a key that is taken, ValueError for one that is not of new_key's form, StorageAway,
        OSError.
        """

    def open(self, key: str) -> RangeReader:
        """Open an object. Raises FileNotFoundError, ValueError for a key that is not of new_key's form, OSError."""

    def delete(self, key: str) -> None:
        """Remove an object. Raises FileNotFoundError, ValueError for a key that is not of new_key's form, OSError."""

    def stored_at(self, key: str) -> dt.datetime:
        """Return when an object came into the store, in UTC. Raises as `open` does."""

    def keys(self) -> Iterator[str]:
        """Give the keys of all objects, in order."""

    def check(self) -> None:
        """Raise StorageAway while nothing may be written."""

    def check_mounted(self) -> None:
        """Raise StorageAway if a missing object means that the whole store is away."""


def new_key() -> str:
    """Return a key for a new container: random, so that it tells nothing of the patient, with a folder to spread it."""
    name = secrets.token_hex(16)
    return f"{name[:2]}/{name}.tfa"


class FileReader:
    """A RangeReader of a file."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end of the file. Raises OSError."""
        parts = []
        while length > 0:
            part = os.pread(self._file, length, offset)  # the system gives 2 GiB at most at a time
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FolderStore:
    """An object store in a local folder; what was put is on the disk before put returns."""

    def __init__(self, root: Path, check: Callable[[], None] = lambda: None) -> None:
        """Use `root`, which is made where it is missing. check: raises StorageAway while nothing may be written."""
        self._root = root
        self._check = check
        self._folders: set[str] = set()  # whose names are on the disk
        with contextlib.suppress(StorageAway):
            check()
            make_folder(root)

    def put(self, key: str, source: Path) -> None:
        """Move the file `source` into the store; see ObjectStore."""
        self._check()
        target = self._path(key)
        if target.exists():
            raise FileExistsError(errno.EEXIST, "The archive already has an object of this key", key)
        if target.parent.name not in self._folders:  # made by another process perhaps, which has not synced it yet
            make_folder(target.parent)
            self._folders.add(target.parent.name)
        try:
            sync(source)
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
            source.unlink()
        sync(target.parent)
        _drop_cached_pages(target)

    def open(self, key: str) -> FileReader:
        """Open an object; see ObjectStore."""
        return FileReader(self._path(key))

    def delete(self, key: str) -> None:
        """Remove an object; see ObjectStore."""
        path = self._path(key)
        path.unlink()
        sync(path.parent)

    def stored_at(self, key: str) -> dt.datetime:
        """Return when an object was written; see ObjectStore."""
        return dt.datetime.fromtimestamp(self._path(key).stat().st_mtime, dt.UTC)

    def keys(self) -> Iterator[str]:
        """Give the keys of all objects, in order."""
        for folder in sorted(self._root.iterdir()):
            if folder.is_dir():
                names = (f"{folder.name}/{path.name}" for path in sorted(folder.iterdir()))
                yield from (name for name in names if _KEY.fullmatch(name))

    def check(self) -> None:
        """See ObjectStore."""
        self._check()

    def check_mounted(self) -> None:
        """See ObjectStore."""
        self._check()
        check_mounted(self.keys(), "archive")

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the archive.")
        return self._root / key


def make_folder(folder: Path) -> None:
    """Make a folder that only this user may enter, and its parents where they are missing, durably. Raises OSError.

    The name of one that is there is synced too: whoever made it may not have come to that.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(PermissionError):  # a parent that only its owner reads, who made the folder
        sync(folder.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop_cached_pages(path: Path) -> None:
    """Let the system forget the bytes of a synced file, so that whoever proves it next reads the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    """Bring a file over from another file system: whole under its name, or not at all."""
    part = target.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        shutil.copyfile(source, part)
        sync(part)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
