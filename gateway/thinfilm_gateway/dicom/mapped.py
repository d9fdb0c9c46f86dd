"""Bytes of mapped files: what was read of them need not stay in memory."""

import mmap
from collections.abc import Iterator

PIECE_BYTES = 16 * 1024 * 1024


def let_go(view: memoryview) -> None:
    """Let the pages of a file go that is mapped under `view`, if one is; they come back when they are read."""
    if isinstance(view.obj, mmap.mmap):
        view.obj.madvise(mmap.MADV_DONTNEED)


def pieces(view: memoryview) -> Iterator[memoryview]:
    """Give the bytes piece by piece; the pages of each are let go behind it."""
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]
        let_go(view)
