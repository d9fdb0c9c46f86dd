"""The peers of the settings: who may ask for what, and how each is called (PS3.8 9.3.4, PS3.15 B.12)."""

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pynetdicom.presentation import PresentationContext

from thinfilm_gateway.config import OPERATIONS, Operation, Peer, Settings
from thinfilm_gateway.dimse.association import Association, request_association
from thinfilm_gateway.dimse.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    Rejected,
)
from thinfilm_gateway.dimse.secure_transport import Encryption, SecureAssociationSocket
from thinfilm_gateway.dimse.tls import Subject, parse_subject, requestor_context

log = structlog.get_logger()

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Caller:
    """Who requests an association, as far as can be told.

    subject: of the certificate that it showed and that was verified.
    """

    ae_title: str
    called_ae_title: str
    address: IPAddress
    encrypted: bool = False
    subject: Subject = frozenset()


class Peers:
    """What the settings say of the other application entities."""

    def __init__(self, settings: Settings) -> None:
        """Read the certificates for calls to peers. Raises UnusableTls."""
        self._settings = settings
        self._contexts: dict[bool, ssl.SSLContext] = {}  # by whether the host's name must be in the certificate
        hosts = {peer.host for peer in settings.peers if peer.host is not None}
        self._addresses_of_peers = {_address(host) for host in hosts if _is_address(host)}  # names come as they call
        self._subjects = {peer: parse_subject(peer.certificate_subject) for peer in settings.peers}
        if any(peer.tls for peer in settings.peers):
            for check_hostname in (False, True):
                self._contexts[check_hostname] = requestor_context(settings, check_hostname=check_hostname)

    def admit(self, association: Association) -> Collection[Operation]:
        """Say what a peer that requests an association may ask for. Raises Rejected."""
        connection, request = association.dul.socket, association.requestor.primitive
        encrypted = isinstance(connection, SecureAssociationSocket)
        caller = Caller(
            request.calling_ae_title,
            request.called_ae_title,
            _address(association.requestor.address_info.address),
            encrypted,
            (connection.peer_subject if encrypted else None) or frozenset(),
        )
        return self.operations(caller)

    def operations(self, caller: Caller) -> Collection[Operation]:
        """Say what a caller may ask for. Raises Rejected.

        A title that the settings know counts only from where, and over what, they say; of several entries with one
        title, the first that fits.
        """
        settings = self._settings
        if settings.check_called_ae_title and caller.called_ae_title != settings.ae_title:
            raise Rejected(
                CALLED_AE_TITLE_NOT_RECOGNIZED, f"It called {caller.called_ae_title}, not {settings.ae_title}."
            )
        known = [peer for peer in settings.peers if peer.ae_title == caller.ae_title]
        for peer in known:
            if self._speaks_as(peer, caller) and _calls_from(peer, caller.address):
                if peer.host is not None or peer.network is not None:
                    self._addresses_of_peers.add(caller.address)
                return peer.allow
        if known:
            sentence = "A peer of this title may not call from there, or not without TLS or with this certificate."
            raise Rejected(CALLING_AE_TITLE_NOT_RECOGNIZED, sentence)
        if settings.unknown_peers == "all" or (settings.unknown_peers == "loopback" and caller.address.is_loopback):
            return OPERATIONS
        raise Rejected(CALLING_AE_TITLE_NOT_RECOGNIZED, "It is none of the peers in the settings.")

    def knows(self, address: str) -> bool:
        """Tell whether a configured peer calls from an address, as far as can be told without looking up names."""
        caller = _address(address)
        networks = [peer.network for peer in self._settings.peers if peer.network is not None]
        return caller in self._addresses_of_peers or any(caller in network for network in networks)

    def destination(self, ae_title: str) -> Peer | None:
        """Return the peer of this title that can be called."""
        return next((peer for peer in self._settings.peers if peer.ae_title == ae_title and peer.port), None)

    def request(
        self, ae: Any, peer: Peer, proposed: Sequence[PresentationContext], negotiation_items: Sequence[Any] = ()
    ) -> Association:
        """Request an association with a peer that can be called; look at `is_established` for how it ended.

        Over TLS if it says so; then it must show a certificate for its host, or with its certificate_subject. Raises
        OSError or UnicodeError if its host has no address. For the rest see `request_association`.
        """
        assert peer.host is not None, "A peer with a port has a host."
        assert peer.port is not None, "A peer that is called has a port."
        encryption = None
        if peer.tls:
            subject = self._subjects[peer]
            encryption = Encryption(self._contexts[not subject], peer.host, subject)
        return request_association(ae, peer.host, peer.port, peer.ae_title, proposed, negotiation_items, encryption)

    def _speaks_as(self, peer: Peer, caller: Caller) -> bool:
        """Tell whether the connection is as this peer's must be: encrypted, with its certificate."""
        return (caller.encrypted or not peer.tls) and self._subjects[peer] <= caller.subject


def _calls_from(peer: Peer, address: IPAddress) -> bool:
    if peer.network is not None:
        return address in peer.network
    return peer.host is None or address in _addresses(peer.host)


def _addresses(host: str) -> set[IPAddress]:
    """Return what a host's name means now."""
    try:
        return {_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
        log.warning("host_not_found", host=host, error=str(error))
        return set()


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _address(text: str) -> IPAddress:
    """Read an address; one of IPv4 in the clothes of IPv6 is one of IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
