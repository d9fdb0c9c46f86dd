"""What TLS must be like (PS3.15 B.12, the profile of BCP 195): versions, cipher suites, certificates."""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinfilm_gateway.config import Settings

CIPHER_SUITES = (  # of TLS 1.2, RFC 9325 4.2; those of TLS 1.3 are OpenSSL's, all of them good
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)

Subject = frozenset[tuple[str, str]]
"""The attributes of a certificate's subject, such as ("commonName", "ct1.example.org")."""

_LONG_NAMES = {
    "CN": "commonName",
    "O": "organizationName",
    "OU": "organizationalUnitName",
    "L": "localityName",
    "ST": "stateOrProvinceName",
    "C": "countryName",
}
_VERIFY_MODES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


class UnusableTls(Exception):
    """TLS is asked for and cannot be had; the message is one sentence that names the setting."""


def check(settings: Settings) -> None:
    """Raise UnusableTls unless TLS can be had wherever the settings ask for it."""
    for peer in settings.peers:
        parse_subject(peer.certificate_subject)
    if any(peer.tls for peer in settings.peers):
        requestor_context(settings, check_hostname=True)
    if settings.dicom_tls_port is not None:
        acceptor_context(settings)


def acceptor_context(settings: Settings) -> ssl.SSLContext:
    """Return the context of connections to dicom_tls_port. Raises UnusableTls."""
    if settings.tls_certificate is None or settings.tls_key is None:
        raise UnusableTls("dicom_tls_port needs tls_certificate and tls_key, the gateway's own.")
    if settings.tls_client_certificate != "none" and settings.tls_ca is None:
        raise UnusableTls(
            f'tls_client_certificate = "{settings.tls_client_certificate}" needs tls_ca, to verify certificates with; '
            'name the file, or set it to "none" for connections that are encrypted only.'
        )
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = _VERIFY_MODES[settings.tls_client_certificate]
    context.options |= ssl.OP_NO_TICKET  # every handshake looks at the certificate; TLS 1.2
    context.num_tickets = 0  # TLS 1.3
    _load_files(context, settings)
    return context


def requestor_context(settings: Settings, *, check_hostname: bool) -> ssl.SSLContext:
    """Return the context of connections to peers, which must show a valid certificate. Raises UnusableTls.

    Without tls_ca, the authorities that the system trusts count.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname
    if settings.tls_ca is None:
        context.load_default_certs()
    _load_files(context, settings)
    return context


def parse_subject(text: str | None) -> Subject:
    """Read attributes as the settings have them: CN=ct1.example.org, O=Hospital. Raises UnusableTls."""
    if text is None:
        return frozenset()
    attributes = [part.partition("=") for part in re.split(r"(?<!\\),", text)]
    named = [(name.strip(), value.replace("\\,", ",").strip()) for name, _, value in attributes]
    if not all(name.isalpha() and value for name, value in named):
        raise UnusableTls(f"certificate_subject is a list like CN=ct1.example.org, O=Hospital; {text!r} is none.")
    return frozenset((_LONG_NAMES.get(name, name), value) for name, value in named)


def subject_of(certificate: Mapping[str, Any]) -> Subject:
    """Return the subject of a certificate that Python decoded."""
    return frozenset(attribute for names in certificate["subject"] for attribute in names)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # 1.3 is taken where the other side has it
    context.set_ciphers(":".join(CIPHER_SUITES))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def _load_files(context: ssl.SSLContext, settings: Settings) -> None:
    for setting, file in (
        ("tls_certificate", settings.tls_certificate),
        ("tls_key", settings.tls_key),
        ("tls_ca", settings.tls_ca),
    ):
        if file is not None:
            _check_readable(setting, file)
    try:
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
    except ssl.SSLError:
        raise UnusableTls(f"tls_ca {settings.tls_ca} holds no certificate in PEM.") from None
    try:
        if settings.tls_certificate is not None and settings.tls_key is not None:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise UnusableTls(
            f"tls_certificate {settings.tls_certificate} and tls_key {settings.tls_key} are no pair of a certificate "
            f"and its unencrypted private key in PEM ({getattr(error, 'reason', None) or error})."
        ) from None


def _check_readable(setting: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise UnusableTls(f"{setting} {file} cannot be read: {error.strerror}.") from None


def _no_password() -> str:
    """Keep OpenSSL from asking for one on the terminal."""
    return ""
