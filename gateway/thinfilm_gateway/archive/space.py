"""What is left on a disk: bytes and, where the file system counts them, files (inodes)."""

import os
from dataclasses import dataclass
from pathlib import Path

LEAST_FREE_FILES = 32
"""With fewer, nothing more is received: index and archive need some to go on, and to make room."""

FEW_FILES_SHARE = 0.05  # of all files that the disk can hold, below which people are warned


@dataclass(frozen=True)
class Space:
    """Free for this user. free_files, files: of how many that the disk can hold; None where it sets no limit."""

    free_bytes: int
    free_files: int | None
    files: int | None

    @property
    def has_no_files(self) -> bool:
        """Whether hardly any further file can be made, however many bytes are free."""
        return self.free_files is not None and self.free_files < LEAST_FREE_FILES

    @property
    def has_few_files(self) -> bool:
        """Whether that will soon be so."""
        return self.free_files is not None and self.files is not None and self.free_files < FEW_FILES_SHARE * self.files


def space(place: Path | int) -> Space:
    """Look at the disk of a folder or an open file. Raises OSError."""
    disk = os.statvfs(place)
    files = disk.f_files or None  # 0 where files take their room from that of the bytes
    return Space(disk.f_bavail * disk.f_frsize, None if files is None else disk.f_favail, files)
