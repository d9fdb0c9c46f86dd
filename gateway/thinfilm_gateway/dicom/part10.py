"""The Part 10 header: preamble, prefix and File Meta Information (PS3.10 section 7.1)."""

import datetime as dt
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from thinfilm_gateway.dicom.elements import LONG_VRS, Octets

IMPLEMENTATION_CLASS_UID = "2.25.206415338906812571934962203514730587402"
IMPLEMENTATION_VERSION_NAME = "THINFILM_1"

# Our Private Information is the time of receipt: ISO 8601 with its offset from UTC.
_PRIVATE_INFORMATION_CREATOR_UID = IMPLEMENTATION_CLASS_UID

_PREFIX_END = 132
_GROUP_LENGTH = struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)


@dataclass(frozen=True)
class Part10:
    """What a Part 10 header says, and where the data set behind it begins. A text that is absent is empty."""

    dataset_offset: int
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    source_ae_title: str
    source_address: str = ""
    received_at: dt.datetime | None = None


def build(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str = "",
    source_address: str = "",
    received_at: dt.datetime | None = None,
) -> bytes:
    """Return preamble, prefix and group 0002 of a file: the data set follows directly.

    source_address, and received_at with its time zone, say how the object came: an index is rebuilt from files alone.
    """
    elements = b"".join(
        (
            _long_element(0x0001, b"OB", b"\x00\x01"),
            _short_element(0x0002, b"UI", sop_class_uid, b"\0"),
            _short_element(0x0003, b"UI", sop_instance_uid, b"\0"),
            _short_element(0x0010, b"UI", transfer_syntax_uid, b"\0"),
            _short_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _short_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
            _short_element(0x0016, b"AE", source_ae_title, b" ") if source_ae_title else b"",
            _long_element(0x0026, b"UR", _padded(source_address, b" ")) if source_address else b"",
            _receipt(received_at) if received_at else b"",
        )
    )
    return bytes(128) + b"DICM" + _GROUP_LENGTH + struct.pack("<L", len(elements)) + elements


def locate(buffer: Octets) -> Part10 | None:
    """Read the header at the start of a file. None: there is no Part 10 header, or it is damaged.

    The group length says where the data set of our own files begins, which may have elements of group 0002 itself. In
    the files of others it is often wrong, so that the end of group 0002 is found element by element.
    """
    with memoryview(buffer) as view:
        if bytes(view[128:_PREFIX_END]) != b"DICM":
            return None
        found = _own_meta(view) or _meta(view)
    if found is None:
        return None
    values, dataset_offset = found
    return Part10(
        dataset_offset=dataset_offset,
        transfer_syntax_uid=_text(values, 0x0010),
        sop_class_uid=_text(values, 0x0002),
        sop_instance_uid=_text(values, 0x0003),
        source_ae_title=_text(values, 0x0016),
        source_address=_text(values, 0x0026),
        received_at=_received_at(values),
    )


def _own_meta(view: memoryview) -> tuple[dict[int, bytes], int] | None:
    """Read group 0002 up to where its group length says; None if that fits no element, or we did not write it."""
    begin = _PREFIX_END + len(_GROUP_LENGTH)
    if bytes(view[_PREFIX_END:begin]) != _GROUP_LENGTH:
        return None
    end = begin + 4 + int.from_bytes(view[begin : begin + 4], "little")
    with view[:end] as claimed:
        found = _meta(claimed)
    if found is None or found[1] != end or _text(found[0], 0x0012) != IMPLEMENTATION_CLASS_UID:
        return None
    return found


def _meta(view: memoryview) -> tuple[dict[int, bytes], int] | None:
    """Return the short values of group 0002 and where it ends; None if there is none, or it is cut off."""
    values: dict[int, bytes] = {}
    offset = _PREFIX_END
    try:
        for element, value_offset, end in _meta_elements(view):
            if end - value_offset <= 1024:
                values[element] = bytes(view[value_offset:end])
            offset = end
    except (struct.error, ValueError):
        return None
    return (values, offset) if values else None


def _meta_elements(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield (element number, value offset, value end) of group 0002; ValueError or struct.error where it is cut off."""
    offset = _PREFIX_END
    while bytes(view[offset : offset + 2]) == b"\x02\x00":
        element, vr, length = struct.unpack_from("<H2sH", view, offset + 2)
        offset += 8
        if vr.decode("latin_1") in LONG_VRS:
            (length,) = struct.unpack_from("<L", view, offset)
            offset += 4
        if offset + length > len(view):
            raise ValueError("group 0002 ends beyond the file")
        yield element, offset, offset + length
        offset += length


def _receipt(received_at: dt.datetime) -> bytes:
    text = received_at.isoformat(timespec="microseconds")
    return _short_element(0x0100, b"UI", _PRIVATE_INFORMATION_CREATOR_UID, b"\0") + _long_element(
        0x0102, b"OB", _padded(text, b" ")
    )


def _received_at(values: dict[int, bytes]) -> dt.datetime | None:
    if _text(values, 0x0100) != _PRIVATE_INFORMATION_CREATOR_UID:
        return None
    try:
        received_at = dt.datetime.fromisoformat(_text(values, 0x0102))
    except ValueError:
        return None
    return received_at if received_at.tzinfo else None


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _short_element(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = _padded(text, padding)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _long_element(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHL", 0x0002, element, vr, 0, len(value)) + value


def _text(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("ascii", "replace").strip(" \0")
