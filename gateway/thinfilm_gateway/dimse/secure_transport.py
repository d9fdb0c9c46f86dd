"""TLS between the upper layer and TCP (PS3.8 9.1, PS3.15 B.12): the same PDUs over an encrypted connection."""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import structlog

from thinfilm_gateway.dimse.tls import Subject, subject_of
from thinfilm_gateway.dimse.transport import AssociationSocket, NotSecured

log = structlog.get_logger()

HANDSHAKE_SECONDS = 10.0

_CONNECTION_CONFIRMED, _CONNECTION_CLOSED = "Evt2", "Evt17"


@dataclass(frozen=True)
class Encryption:
    """How a connection is encrypted, and whom it must lead to."""

    context: ssl.SSLContext
    server_hostname: str | None = None  # of a peer that is called
    subject: Subject = frozenset()  # what the certificate of a peer that is called must say


class SecureAssociationSocket(AssociationSocket):
    """A connection over TLS. Only the thread of the upper layer reads, writes and shakes hands."""

    def __init__(
        self, assoc: Any, encryption: Encryption, client_socket: socket.socket | None = None, address: Any = None
    ) -> None:
        super().__init__(assoc, client_socket, address)
        self.peer_subject: Subject | None = None  # of the peer's certificate, once it was verified
        self._encryption = encryption
        self._first = b""  # of the next PDU

    def secure(self) -> None:
        """Shake hands with the peer that called. Raises NotSecured."""
        if self.assoc.is_acceptor:
            self._shake_hands()

    def connect(self, primitive: Any) -> None:
        """Open the connection and shake hands, as requestor."""
        super().connect(primitive)
        if primitive.result == _CONNECTION_CONFIRMED:
            try:
                self._shake_hands()
            except NotSecured as error:
                log.warning("tls_handshake_failed", peer=self.assoc.peer, error=str(error))
                self._shutdown_socket()
                self.socket, self._is_connected = None, False
                primitive.result = _CONNECTION_CLOSED

    @property
    def holds_data(self) -> bool:
        """Whether decrypted data waits."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def begins_pdu(self) -> bool:
        """Tell whether a PDU begins, or the connection ends; what else can be read is TLS's own, and is taken."""
        assert isinstance(self.socket, ssl.SSLSocket), "Shakes hands before it reads."
        self.socket.settimeout(0)
        try:
            self._first = self.socket.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # which `fill` meets again
            return True
        finally:
            self.socket.settimeout(self.assoc.network_timeout)
        return True

    def fill(self, buffer: memoryview) -> int:
        """Read until the buffer is full; returns fewer bytes only where the connection ended. Raises OSError."""
        received = len(self._first)
        buffer[:received] = self._first
        self._first = b""
        return self.fill_from(buffer, received)

    def receive_some(self, buffer: memoryview) -> int:
        """Read and decrypt what there is; returns how many bytes, 0 at the end. Raises OSError."""
        assert self.socket is not None, "Is connected."
        return self.socket.recv_into(buffer)

    def send_parts(self, parts: list[memoryview]) -> None:
        """Send a PDU that lies in several places, as one, so that it takes no record of TLS more than it needs."""
        super().send_parts([memoryview(b"".join(parts))])

    def send_some(self, parts: list[memoryview]) -> int:
        """Encrypt and send the beginning of a PDU; returns how many bytes. Raises OSError."""
        assert self.socket is not None, "Is connected."
        return self.socket.send(parts[0])

    def _shake_hands(self) -> None:
        """Encrypt the connection, and see who is there. Raises NotSecured."""
        try:
            assert self.socket is not None, "Is connected."
            self.socket.settimeout(HANDSHAKE_SECONDS)  # Python's: it is for the whole of the handshake
            encrypted = self._encryption.context.wrap_socket(
                self.socket,
                server_side=self.assoc.is_acceptor,
                server_hostname=self._encryption.server_hostname,
                do_handshake_on_connect=False,
            )
            self.socket = encrypted
            encrypted.do_handshake()
            encrypted.settimeout(self.assoc.network_timeout)
        except OSError as error:
            raise NotSecured(str(error)) from error
        certificate = encrypted.getpeercert()
        self.peer_subject = subject_of(certificate) if certificate else None
        if not self._encryption.subject <= (self.peer_subject or frozenset()):
            raise NotSecured("The subject of the peer's certificate is another one than the settings say.")

    def _shutdown_socket(self) -> None:
        """Say that nothing more comes, without waiting for the peer to say so too, and close the connection."""
        if isinstance(self.socket, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):  # whatever state it is in
                self.socket.settimeout(0)
                self.socket.unwrap()
        super()._shutdown_socket()
