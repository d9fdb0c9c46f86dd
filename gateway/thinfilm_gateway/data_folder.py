"""The data folder: there or not, held by one process at a time, and whether it takes further objects."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinfilm_gateway.config import Settings


class UnusableDataFolder(Exception):
    """The data folder is missing, no folder, or in use by another process; the message is one sentence."""


@dataclass(frozen=True)
class Room:
    """How it stands with the place for further objects.

    free_bytes: on the disk of the spool, None if it cannot be reached. refusal: one sentence that says why C-STORE is
    refused, None while objects are taken. obstacle: one that says why nothing is compressed meanwhile, else None.
    """

    free_bytes: int | None
    refusal: str | None
    obstacle: str | None = None


def make(folder: Path) -> None:
    """Make the folder if it is missing. Raises UnusableDataFolder."""
    _refuse_file(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableDataFolder(f"The data folder {folder} cannot be made: {error.strerror}.") from None
    if not _writable(folder):
        raise UnusableDataFolder(f"The data folder {folder} cannot be written by this user.")


def require(folder: Path) -> None:
    """Raise UnusableDataFolder if there is no such folder."""
    _refuse_file(folder)
    if not folder.is_dir():
        raise UnusableDataFolder(f"The data folder {folder} does not exist; give the right one by --data-dir.")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder with an embedded index.

    Raises UnusableDataFolder if another process has it.
    """
    with (folder / "serve.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UnusableDataFolder(
                f"Another `thinfilm serve`, `tidy` or `reindex` (process {file.read().strip()}) uses the data folder "
                f"{folder}; stop it, or give another --data-dir."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def room(settings: Settings) -> Room:
    """Tell whether the folders take further objects."""
    folders = [settings.spool_dir, settings.spool_dir / "incoming"]
    archive = settings.archive_dir
    if not any(folder.exists() for folder in (*folders, archive)):  # never served yet: the receivers make them
        folders, archive = [settings.data_dir], settings.data_dir
    try:
        disk = os.statvfs(folders[0])
    except OSError as error:
        return Room(None, f"C-STORE is refused: {folders[0]} cannot be reached ({error.strerror}).")
    free_bytes = disk.f_bavail * disk.f_frsize
    for folder in folders:
        if not _writable(folder):
            return Room(free_bytes, f"C-STORE is refused: {folder} cannot be written.")
    if free_bytes < settings.minimum_free_bytes:
        wanted = f"minimum_free_bytes is {settings.minimum_free_bytes:,}"
        return Room(free_bytes, f"C-STORE is refused: {free_bytes:,} bytes are free, {wanted}.")
    if not _writable(archive):
        return Room(free_bytes, None, f"Nothing is compressed: {archive} cannot be written. Objects wait in the spool.")
    return Room(free_bytes, None)


def _refuse_file(folder: Path) -> None:
    if folder.is_file():
        raise UnusableDataFolder(f"The data folder {folder} is a file; give a folder by --data-dir.")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
