"""What is shown on a terminal: nothing that a peer or a file says can steer it, or pass for a line of ours.

AE titles, host names, UIDs, error comments and whatever else comes from outside are text that anybody may have written,
with control characters that move the cursor, hide a line, or turn the direction of writing.
"""

import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]  # C0, delete, C1
_DIRECTIONS = [0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]  # and other line ends
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in (*_CONTROLS, *_DIRECTIONS)}
_BUT_LINES = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text with its control characters written out by number; lines: line ends and tabs stay as they are."""
    return text.translate(_BUT_LINES if lines else _ESCAPES)


def complain(sentence: str) -> None:
    """Tell what is wrong, on standard error."""
    print(f"thinfilm: {printable(sentence, lines=True)}", file=sys.stderr)  # noqa: T201


class Terminal(Console):
    """A console of rich that writes out control characters in what it is given."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object; the control codes of rich itself are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, lines=True), segment.style)


def printable_line(logger: Any, name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write out control characters in all values of a line of the log; a processor of structlog."""
    del logger, name
    for key, value in line.items():
        line[key] = printable(value, lines=True) if key in ("exception", "stack") else _printable(value)
    return line


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_printable(one) for one in value]
    return value
