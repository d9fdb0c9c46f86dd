"""The mark of a volume: a file by which a folder is known to be the one that the index means.

Where a volume is not mounted, its mount point is an empty folder that can often be written. Without a mark the gateway
would begin a second archive there, and find the first one missing.
"""

import secrets
from collections.abc import Callable
from pathlib import Path

from thinfilm_gateway.archive.store import StorageAway, sync

FILE_NAME = ".thinfilm"


def read(folder: Path) -> str | None:
    """Return the mark of a folder, None if there is none. Raises OSError."""
    try:
        return (folder / FILE_NAME).read_text(encoding="ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(folder: Path) -> str:
    """Mark a folder, durably, and return the mark. Raises OSError."""
    mark = secrets.token_hex(16)
    path = folder / FILE_NAME
    part = path.with_suffix(".part")
    part.write_text(f"{mark}\n", encoding="ascii")
    sync(part)
    part.rename(path)
    sync(folder)
    return mark


def files_beside(folder: Path) -> list[Path]:
    """Return all files below a folder, half ones too, but for its mark."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != FILE_NAME]


def complaint(folder: Path, expected: str | None) -> str | None:
    """Return the sentence that says that this is not the folder of the mark `expected`, and names the mend.

    None where it is, or where no mark is expected.
    """
    if expected is None:
        return None
    try:
        found = read(folder)
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror}); mount its volume."
    if found == expected:
        return None
    what = "has no mark" if found is None else "has the mark of another gateway"
    return (
        f"{folder} {what}; mount its volume, or, if this is the right one, restored perhaps, write {expected} "
        f"into {folder / FILE_NAME}."
    )


class MarkCheck:
    """Looks, before every write, whether the folder is the right one: it reads one small file.

    expected: returns the mark, None for a folder that was never marked; asked until it answers. Raises StorageAway.
    """

    def __init__(self, folder: Path, expected: Callable[[], str | None]) -> None:
        self._folder = folder
        self._ask = expected
        self._is_known = False
        self._expected: str | None = None

    def __call__(self) -> None:
        """Raise StorageAway, with a sentence that names the mend, unless the folder has its mark."""
        if not self._is_known:
            self._expected = self._ask()
            self._is_known = True
        sentence = complaint(self._folder, self._expected)
        if sentence:
            raise StorageAway(sentence)
