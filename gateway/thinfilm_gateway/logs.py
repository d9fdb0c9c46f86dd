"""The form of the logs: coloured lines on a terminal, one JSON object a line elsewhere, all on standard error."""

import contextlib
import io
import logging
import sys
from typing import Any, BinaryIO, cast

import structlog
from structlog.typing import Processor

from thinfilm_gateway.terminal import printable_line

LIBRARIES = ("pynetdicom", "pydicom", "sqlalchemy", "alembic", "celery", "kombu", "amqp", "PIL", "uvicorn")
"""Libraries that log for themselves: below error they say what our own lines say already, and may quote data sets."""


def configure(level: str) -> None:
    """Set up structlog and, in the same form, the standard library's logging; `level` as in Settings.log_level.

    A line that standard error does not take, because it is closed or lies on a full disk, is lost: no log call raises.
    """
    terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    standard_error = cast("BinaryIO", _StandardError())
    stream = io.TextIOWrapper(standard_error, encoding="utf-8", errors="backslashreplace", write_through=True)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    shared.append(structlog.processors.format_exc_info)
    if terminal:  # JSON has no control characters
        shared.append(printable_line)
    # Plain, because structlog's own tracebacks show local variables, and those hold data sets.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Processor = console if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)


class _StandardError(io.BufferedIOBase):
    """Standard error as it is now, which drops what it cannot write.

    Past Python's buffer: what that could not get rid of would fail again when the process ends, and be its exit status.
    """

    def __init__(self) -> None:
        buffer: Any = getattr(sys.stderr, "buffer", None)  # without a stream if it was closed from the start
        self._raw = getattr(buffer, "raw", buffer)

    def writable(self) -> bool:
        """Say so."""
        return True

    def write(self, data: Any, /) -> int:
        """Write, or do not."""
        if self._raw is not None:
            with contextlib.suppress(OSError, ValueError):
                self._raw.write(data)
        return len(data)
