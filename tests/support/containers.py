"""Containers in memory, and readers that watch or spoil what is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from thinfilm_gateway.archive.container.pack import PackReport, Source, pack
from thinfilm_gateway.archive.container.reader import Container, open_container
from thinfilm_gateway.policy.lossless import treatment

CODECS = ("jpegls",)
PLAIN = treatment(CODECS)


class BytesReader:
    """A RangeReader of bytes that notes the ranges that are read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.ranges: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.ranges.append((offset, length))
        return self.data[offset : offset + length]

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_bytes(data: bytes) -> Container:
    """Open a container that lies in memory."""
    return open_container(BytesReader(data))


def pack_files(paths: Sequence[Path], destination: Path, codecs: Sequence[str] = CODECS) -> PackReport:
    """Pack files under their own names; the codecs that can try harder do not."""
    return pack([Source(path, path.name) for path in paths], destination, treatment(codecs, "fast"))
