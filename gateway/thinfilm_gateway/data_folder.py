"""The data folder: there or not, held by one process at a time, and whether it takes further objects."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinfilm_gateway.archive import mark
from thinfilm_gateway.archive.space import LEAST_FREE_FILES, Space, space
from thinfilm_gateway.archive.spool import bytes_under
from thinfilm_gateway.archive.store import make_folder
from thinfilm_gateway.config import Settings
from thinfilm_gateway.index.volumes import ARCHIVE, SPOOL, KnownVolumes


class UnusableDataFolder(Exception):
    """The data folder is missing, no folder, or in use by another process; the message is one sentence."""


QUOTA_WARNING_SHARE = 0.9  # of a quota, above which people are warned
_RECEIVE_LOCK = "receive.lock"
_MORE_FILES = "remove what is not needed there, or give it a file system with more of them"
ARCHIVE_RESERVE_SHARE = 0.25
"""Of minimum_free_bytes, and of LEAST_FREE_FILES: below it no container is begun. Objects are refused long before,
since to compress is what makes room; the rest is for the index."""


@dataclass(frozen=True)
class Room:
    """How it stands with the place for further objects.

    free_bytes: on the disk of the spool, None if it cannot be reached. Sentences that name the mend, each None while
    there is no need of it: refusal says why C-STORE is refused, obstacle why nothing is compressed meanwhile, warning
    what will be full soon.
    """

    free_bytes: int | None
    refusal: str | None
    obstacle: str | None = None
    warning: str | None = None


def make(folder: Path) -> None:
    """Make the folder if it is missing. Raises UnusableDataFolder."""
    _refuse_file(folder)
    try:
        make_folder(folder)
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


@contextlib.contextmanager
def receiving(folder: Path) -> Iterator[None]:
    """Show until the block ends that a receiver writes into the spool of a data folder with an embedded index."""
    with (folder / _RECEIVE_LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def is_received_into(folder: Path) -> Iterator[bool]:
    """Tell whether a receiver writes into the spool; if not, none begins to before the block ends.

    Asked by whoever holds the data folder: receivers whose `serve` was killed outlive it by what they have to end.
    """
    with (folder / _RECEIVE_LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield True
        else:
            yield False


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder with an embedded index, with no receiver that still writes into its spool.

    Raises UnusableDataFolder if there is one, or another process has the lock.
    """
    with held(folder), is_received_into(folder) as others_receive:
        if others_receive:
            raise UnusableDataFolder(
                f"Receivers of a `thinfilm serve` that was killed still end what they receive into {folder}; try again "
                "in a moment."
            )
        yield


def room(settings: Settings, known: KnownVolumes) -> Room:
    """Tell whether the folders take further objects. known: what the index knows of them."""
    spool, archive = settings.spool_dir, settings.archive_dir
    folders = [spool, spool / "incoming"]
    if not any(folder.exists() for folder in (*folders, archive)) and not known.marks:  # never served yet
        folders, archive = [settings.data_dir], settings.data_dir
    try:
        free = space(folders[0])
    except OSError as error:
        return Room(None, f"C-STORE is refused: {folders[0]} cannot be reached ({error.strerror}); mount its volume.")
    spool_bytes = _spool_bytes(settings)
    refusal = _refusal(settings, known, folders, free, spool_bytes)
    obstacle = _obstacle(settings, known, archive)
    return Room(free.free_bytes, refusal, obstacle, _warning(settings, known, free, spool_bytes, archive))


def archive_is_full(settings: Settings, archive: Path, container_bytes: int) -> str | None:
    """Return the sentence that says why no container may be begun, None while there is room. Raises OSError."""
    quota = settings.archive_quota_bytes
    if quota is not None and container_bytes >= quota:
        return f"the containers take {container_bytes:,} bytes and archive_quota_bytes is {quota:,}; raise it."
    free = space(archive)
    if free.free_bytes < settings.minimum_free_bytes * ARCHIVE_RESERVE_SHARE:
        return f"{free.free_bytes:,} bytes are free for {archive}; make room there or give it a larger disk."
    if free.free_files is not None and free.free_files < LEAST_FREE_FILES * ARCHIVE_RESERVE_SHARE:
        return f"{free.free_files:,} files (inodes) are free for {archive}; {_MORE_FILES}."
    return None


def _spool_bytes(settings: Settings) -> int:
    """Return what counts towards the quota of the spool, of which every file is looked at; 0 where nobody asks."""
    if settings.spool_quota_bytes is None:
        return 0
    try:
        return bytes_under(settings.spool_dir)
    except OSError:  # of which the refusal tells
        return 0


def _refusal(
    settings: Settings, known: KnownVolumes, folders: Sequence[Path], free: Space, spool_bytes: int
) -> str | None:
    if complaint := mark.complaint(settings.spool_dir, known.marks.get(SPOOL)):
        return f"C-STORE is refused: {complaint}"
    for folder in folders:
        if not _writable(folder):
            return f"C-STORE is refused: {folder} cannot be written; let this user write it."
    if free.free_bytes < settings.minimum_free_bytes:
        wanted = f"minimum_free_bytes is {settings.minimum_free_bytes:,}"
        return f"C-STORE is refused: {free.free_bytes:,} bytes are free under {folders[0]}, {wanted}; make room there."
    if free.has_no_files:
        return f"C-STORE is refused: {free.free_files:,} files (inodes) are free under {folders[0]}; {_MORE_FILES}."
    quota = settings.spool_quota_bytes
    if quota is not None and spool_bytes >= quota:
        return (
            f"C-STORE is refused: the spool takes {spool_bytes:,} bytes and spool_quota_bytes is {quota:,}; raise it, "
            "or see why nothing is compressed."
        )
    return None


def _obstacle(settings: Settings, known: KnownVolumes, archive: Path) -> str | None:
    if complaint := mark.complaint(settings.archive_dir, known.marks.get(ARCHIVE)):
        return f"Nothing is compressed: {complaint} Objects wait in the spool."
    if not _writable(archive):
        return f"Nothing is compressed: {archive} cannot be written; mount it writable. Objects wait in the spool."
    if full := archive_is_full(settings, archive, known.container_bytes):
        return f"Nothing is compressed: {full} Objects wait in the spool."
    return None


def _warning(settings: Settings, known: KnownVolumes, free: Space, spool_bytes: int, archive: Path) -> str | None:
    for folder, left in ((settings.spool_dir, free), (settings.archive_dir, _space_or_none(archive))):
        if left is not None and left.free_bytes < settings.warning_free_bytes:
            return f"Only {left.free_bytes:,} bytes are free for {folder}; make room before objects are refused."
        if left is not None and left.has_few_files:
            return f"Only {left.free_files:,} files (inodes) are free for {folder}; {_MORE_FILES}."
    spool_quota, archive_quota = settings.spool_quota_bytes, settings.archive_quota_bytes
    if spool_quota is not None and spool_bytes >= QUOTA_WARNING_SHARE * spool_quota:
        return f"The spool takes most of its {spool_quota:,} bytes; raise spool_quota_bytes or add workers."
    if archive_quota is not None and known.container_bytes >= QUOTA_WARNING_SHARE * archive_quota:
        return f"The archive takes most of its {archive_quota:,} bytes; raise archive_quota_bytes."
    return None


def _space_or_none(folder: Path) -> Space | None:
    try:
        return space(folder)
    except OSError:
        return None


def _refuse_file(folder: Path) -> None:
    if folder.is_file():
        raise UnusableDataFolder(f"The data folder {folder} is a file; give a folder by --data-dir.")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
