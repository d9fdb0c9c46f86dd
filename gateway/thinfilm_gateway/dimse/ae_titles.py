"""Application entity titles as other implementations write them (PS3.8 9.3.2, PS3.5 6.2)."""

import re

_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e]")


def is_printable(field: bytes) -> bool:
    """Tell whether the title in a field is printable ASCII, as a title must be."""
    return _NOT_PRINTABLE.search(_unpadded(field)) is None


def read(field: bytes) -> str:
    """Return the title in a field: without padding, be it blanks or NUL, and with ? for what is not printable ASCII."""
    return _NOT_PRINTABLE.sub(b"?", _unpadded(field)).decode("ascii")


def _unpadded(field: bytes) -> bytes:
    return field.partition(b"\0")[0].strip(b" ")
