"""CommandError: what a command on files tells its user."""

from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """The command cannot do what it was asked; the message is one sentence."""


@contextmanager
def plainly() -> Iterator[None]:
    """Turn an error of the operating system into a sentence that names the file."""
    try:
        yield
    except OSError as error:
        subject = f"{error.filename}: " if error.filename is not None else ""
        raise CommandError(f"{subject}{error.strerror or error}.") from None
