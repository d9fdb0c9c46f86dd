"""A-ASSOCIATE-RQ PDUs, item by item, right or wrong (PS3.8 9.3.2, PS3.7 D.3.3), and what a receiver answers to them."""

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

APPLICATION_CONTEXT, CONTEXT, ABSTRACT, TRANSFER, INFORMATION = 0x10, 0x20, 0x30, 0x40, 0x50
MAXIMUM_LENGTH, CLASS_UID, WINDOW, ROLE, VERSION_NAME, EXTENDED, COMMON, IDENTITY = range(0x51, 0x59)
DICOM = b"1.2.840.10008.3.1.1.1"
VERIFICATION, IMPLICIT, EXPLICIT = b"1.2.840.10008.1.1", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
ACCEPT, REJECT, DATA, RELEASE, RELEASED, ABORT = 2, 3, 4, 5, 6, 7


def item(kind: int, value: bytes, declared: int | None = None) -> bytes:
    """Encode an item or sub-item, with another length than its own if given."""
    return struct.pack(">BxH", kind, len(value) if declared is None else declared) + value


def context(number: int, abstract: bytes = VERIFICATION, transfer: Sequence[bytes] = (IMPLICIT,)) -> bytes:
    """Encode a proposed presentation context."""
    names = item(ABSTRACT, abstract) + b"".join(item(TRANSFER, name) for name in transfer)
    return item(CONTEXT, bytes([number, 0, 0, 0]) + names)


def role(sop_class: bytes, scu: int, scp: int) -> bytes:
    """Encode a role selection."""
    return item(ROLE, struct.pack(">H", len(sop_class)) + sop_class + bytes([scu, scp]))


@dataclass(frozen=True)
class Request:
    """An A-ASSOCIATE-RQ; as it stands, a good one for Verification in context 1."""

    called: bytes = b"THINFILM".ljust(16)
    calling: bytes = b"SCANNER".ljust(16)
    version: int = 1
    application: bytes = item(APPLICATION_CONTEXT, DICOM)
    contexts: bytes = context(1)
    information: bytes = item(MAXIMUM_LENGTH, struct.pack(">L", 16384)) + item(CLASS_UID, b"1.2.3")
    further: bytes = b""  # items behind all others

    def pdu(self) -> bytes:
        """Encode it."""
        fixed = struct.pack(">HH", self.version, 0) + self.called[:16] + self.calling[:16] + bytes(32)
        body = fixed + self.application + self.contexts + item(INFORMATION, self.information) + self.further
        return struct.pack(">BxL", 1, len(body)) + body


class Caller:
    """A connection on which PDUs are written and read by hand."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def send(self, pdu: bytes) -> None:
        """Send a PDU."""
        self.socket.sendall(pdu)

    def read(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; (0, b"") at the end of the connection."""
        header = self._read(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", header)
        return kind, self._read(length)

    def echo(self, command: bytes, number: int = 1) -> bytes:
        """Send a command set without a data set; return that of the response."""
        self.send(struct.pack(">BxLLBB", DATA, 6 + len(command), 2 + len(command), number, 3) + command)
        kind, body = self.read()
        assert kind == DATA, f"A PDU of type {kind} came: {body!r}."
        return body[6:]

    def release(self) -> None:
        """Release the association."""
        self.send(struct.pack(">BxL4x", RELEASE, 4))
        assert self.read()[0] == RELEASED

    def _read(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            try:
                part = self.socket.recv(length - len(received))
            except ConnectionResetError:
                break
            if not part:
                break
            received += part
        return received


@contextlib.contextmanager
def caller(port: int, source: str = "127.0.0.1") -> Iterator[Caller]:
    """Open a connection to a receiver."""
    with socket.create_connection(("127.0.0.1", port), 60, (source, 0)) as connection:
        yield Caller(connection)


def command(**values: bytes) -> bytes:
    """Encode a command set of elements named by number, as e0002=b"1.2.3"; the group length is left out."""
    elements = ((int(name[1:], 16), value) for name, value in values.items())
    return b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in sorted(elements))


def echo_request(**values: bytes) -> bytes:
    """Encode the command set of a C-ECHO, with other or further elements if given."""
    plain = {"e0002": VERIFICATION + b"\0", "e0100": b"\x30\0", "e0110": b"\x07\0", "e0800": b"\x01\x01"}
    return command(**{**plain, **values})


def status(response: bytes) -> int:
    """Return the status in the command set of a response."""
    at = response.index(b"\0\0\0\x09\x02\0\0\0") + 8
    return int.from_bytes(response[at : at + 2], "little")
