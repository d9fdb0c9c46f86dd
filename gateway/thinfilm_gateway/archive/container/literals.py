"""LiteralWriter: gathers the bytes around pixel data, so that the like headers of a series are compressed together."""

import zstandard

from thinfilm_gateway.archive.container.format import (
    LITERAL_LIMIT,
    LITERALS,
    MIB,
    LiteralGroup,
    LiteralRun,
)
from thinfilm_gateway.archive.container.writer import ContainerWriter

_GROUP_BYTES = MIB  # the price of reading one header; like headers gain little beyond

# Level 19 finds the most in headers, at a few MiB/s. What level 3 hardly shrinks is compressed already (JPEG, video).
_QUICK_LEVEL, _THOROUGH_LEVEL = 3, 19
_WORTH_MORE = 0.9


class LiteralWriter:
    """Collects literal bytes into groups and writes each group when it is full."""

    def __init__(self, writer: ContainerWriter) -> None:
        """Start with an empty group."""
        self._writer = writer
        self._open = bytearray()
        self._groups: list[LiteralGroup] = []

    def add(self, data: memoryview) -> list[LiteralRun]:
        """Take bytes and return where they lie. Data of a whole group or more gets groups of its own."""
        if len(data) >= _GROUP_BYTES:
            self._close()
            parts = [data[start : start + LITERAL_LIMIT] for start in range(0, len(data), LITERAL_LIMIT)]
            return [LiteralRun(self._write(part), 0, len(part)) for part in parts]
        if len(self._open) + len(data) > _GROUP_BYTES:
            self._close()
        run = LiteralRun(len(self._groups), len(self._open), len(data))
        self._open += data
        return [run] if data else []

    def finish(self) -> tuple[LiteralGroup, ...]:
        """Write what is left and return all groups."""
        self._close()
        return tuple(self._groups)

    def _close(self) -> None:
        if self._open:
            self._write(self._open)
            self._open = bytearray()

    def _write(self, raw: memoryview | bytearray) -> int:
        """Write a group and return its number."""
        section = self._writer.append(LITERALS, _compress(raw))
        self._groups.append(LiteralGroup(section, len(raw)))
        return len(self._groups) - 1


def _compress(raw: memoryview | bytearray) -> bytes:
    quick = zstandard.ZstdCompressor(level=_QUICK_LEVEL).compress(raw)
    if len(quick) > _WORTH_MORE * len(raw):
        return quick
    # The parameters of level 19 for this size, with a window that reaches over the whole group.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _THOROUGH_LEVEL, source_size=len(raw), window_log=max((len(raw) - 1).bit_length(), zstandard.WINDOWLOG_MIN)
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
