"""The form of the logs: coloured lines on a terminal, one JSON object a line elsewhere, all on standard error."""

import logging
import sys

import structlog
from structlog.typing import Processor

LIBRARIES = ("pynetdicom", "pydicom", "sqlalchemy", "alembic", "celery", "kombu", "amqp", "PIL")
"""Libraries that log for themselves: below error they say what our own lines say already, and may quote data sets."""


def configure(level: str) -> None:
    """Set up structlog and, in the same form, the standard library's logging; `level` as in Settings.log_level."""
    terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not terminal:
        shared.append(structlog.processors.format_exc_info)
    # Plain, because structlog's own tracebacks show local variables, and those hold data sets.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Processor = console if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

    handler = logging.StreamHandler(sys.stderr)
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
