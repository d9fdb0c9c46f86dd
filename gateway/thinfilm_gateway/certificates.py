"""Whether the certificates of the settings are valid, and for how long (X.509: RFC 5280 4.1)."""

import datetime as dt
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinfilm_gateway.config import Settings
from thinfilm_gateway.health_warning import HealthWarning

SOON = dt.timedelta(days=30)

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17
_MENDS = {
    "tls_certificate": "have a new one signed, put it there and restart the gateway.",
    "tls_ca": "put the authority's new one there and restart the gateway.",
}


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate holds."""

    begins: dt.datetime
    ends: dt.datetime


def warnings(settings: Settings, now: dt.datetime) -> list[HealthWarning]:
    """Return what is to be said of the certificates that are in use: none without TLS."""
    if settings.dicom_tls_port is None and not any(peer.tls for peer in settings.peers):
        return []
    files = {"tls_certificate": settings.tls_certificate, "tls_ca": settings.tls_ca}
    return [warning for setting, file in files.items() if file for warning in _of_file(setting, file, now)]


def validities(file: Path) -> list[Validity]:
    """Return the validity of each certificate in a PEM file. Raises OSError, ValueError for what is none."""
    found = _PEM.findall(file.read_text(encoding="latin-1"))
    if not found:
        raise ValueError("it holds no certificate in PEM")
    return [_validity(ssl.PEM_cert_to_DER_cert(one)) for one in found]


def _of_file(setting: str, file: Path, now: dt.datetime) -> Iterator[HealthWarning]:
    try:
        found = validities(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        sentence = f"{setting} {file} cannot be read ({reason}); put it back before the gateway is started again."
        yield HealthWarning(f"certificate_unreadable {setting}", sentence)
        return
    ends, begins = min(one.ends for one in found), max(one.begins for one in found)
    if ends <= now:
        yield HealthWarning(
            f"certificate_ended {setting}",
            f"The certificate in {setting} {file} ended on {ends:%Y-%m-%d}, and TLS is refused; {_MENDS[setting]}",
        )
    elif ends <= now + SOON:
        yield HealthWarning(
            f"certificate_ends {setting}",
            f"The certificate in {setting} {file} ends on {ends:%Y-%m-%d}; {_MENDS[setting]}",
        )
    if begins > now:
        yield HealthWarning(
            f"certificate_begins {setting}",
            f"The certificate in {setting} {file} holds from {begins:%Y-%m-%d} only; set the clock of this host right, "
            "or take one that holds already.",
        )


def _validity(certificate: bytes) -> Validity:
    """Read Certificate.tbsCertificate.validity. Raises ValueError."""
    try:
        signed = next(_values(next(_values(certificate))[1]))[1]
        parts = [part for part in _values(signed) if part[0] != _VERSION]
        _serial, _algorithm, _issuer, (tag, validity) = parts[:4]
        if tag != _SEQUENCE:
            raise ValueError("its validity is no sequence")
        begins, ends = (_time(kind, text) for kind, text in _values(validity))
    except (IndexError, StopIteration) as error:
        raise ValueError("it is no certificate") from error
    return Validity(begins, ends)


def _values(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Give tag and content of the values that stand one after the other (X.690 8.1, single-byte tags)."""
    position = 0
    while position < len(encoded):
        tag, length = encoded[position], encoded[position + 1]
        position += 2
        if length & 0x80:
            digits = length & 0x7F
            length = int.from_bytes(encoded[position : position + digits], "big")
            position += digits
        yield tag, encoded[position : position + length]
        position += length


def _time(tag: int, text: bytes) -> dt.datetime:
    """Read UTCTime, whose years are of 1950 to 2049, or GeneralizedTime (RFC 5280 4.1.2.5)."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return dt.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
