"""Deflated data sets (PS3.5 A.5), inflated on disk and never whole in memory, whatever few bytes grow to."""

import errno
import mmap
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from thinfilm_gateway.dicom.elements import Octets

DEFLATED = frozenset(("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))
"""Transfer syntaxes whose whole data set is deflated."""

_MAX_INFLATED_BYTES = 1 << 31
_DEFLATED_CHUNK = 4 * 1024  # grows to 4 MiB at most
_LOOK_EVERY_BYTES = 16 * 1024 * 1024  # written between two looks at the free space


class DamagedDeflation(Exception):
    """The bytes cannot be inflated, or grow beyond all bounds; the message is one sentence."""


class CannotInflate(OSError):
    """There is no place for the inflated data set, whatever the data set is; `strerror` is one sentence."""


@dataclass(frozen=True)
class Scratch:
    """Where bytes lie for a while that are too many for memory.

    folder: None takes the system's. minimum_free_bytes: so many stay free on its disk.
    """

    folder: Path | None = None
    minimum_free_bytes: int = 0

    def check(self, file: IO[bytes]) -> None:
        """Raise OSError once `file`, which lies here, has taken what must stay free."""
        if not self.minimum_free_bytes:
            return
        disk = os.fstatvfs(file.fileno())
        if disk.f_bavail * disk.f_frsize < self.minimum_free_bytes:
            raise OSError(errno.ENOSPC, f"fewer than {self.minimum_free_bytes:,} bytes would stay free")


SYSTEM_SCRATCH = Scratch()


def inflated(dataset: Octets, scratch: Scratch = SYSTEM_SCRATCH) -> mmap.mmap | bytes:
    """Return the data set inside a deflated one, mapped; its file goes with its last view.

    Raises DamagedDeflation, also above 2 GiB, and CannotInflate.
    """
    try:
        with memoryview(dataset) as view, tempfile.TemporaryFile(dir=scratch.folder) as file:
            size = _inflate_into(file, view, scratch)
            file.flush()
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        place = scratch.folder or "the folder for temporary files"
        sentence = f"A deflated data set cannot be inflated in {place}: {error.strerror}."
        raise CannotInflate(error.errno, sentence) from error


def _inflate_into(file: IO[bytes], view: memoryview, scratch: Scratch) -> int:
    """Inflate into a file; return how many bytes. Raises DamagedDeflation, OSError."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = looked_at = 0
    try:
        for offset in range(0, len(view), _DEFLATED_CHUNK):
            size += file.write(inflater.decompress(view[offset : offset + _DEFLATED_CHUNK]))
            if size - looked_at >= _LOOK_EVERY_BYTES:
                file.flush()
                scratch.check(file)
                looked_at = size
            if inflater.eof or size > _MAX_INFLATED_BYTES:
                break
    except zlib.error as error:
        raise DamagedDeflation(f"The deflated data set is damaged: {error}.") from None
    if size > _MAX_INFLATED_BYTES:
        raise DamagedDeflation(f"The deflated data set grows beyond {_MAX_INFLATED_BYTES} bytes.")
    if not inflater.eof:
        raise DamagedDeflation("The deflated data set is cut off.")
    return size
