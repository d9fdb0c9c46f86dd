"""Certificates made by openssl: an authority, those it signed, and some that nobody should trust."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, each a PEM file."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """authority signed gateway, scanner and expired; stranger signed itself."""

    authority: Pair
    gateway: Pair
    scanner: Pair
    expired: Pair
    stranger: Pair

    @property
    def settings(self) -> dict[str, object]:
        """What a gateway needs for TLS."""
        return {
            "dicom_tls_port": 0,
            "tls_certificate": self.gateway.certificate,
            "tls_key": self.gateway.key,
            "tls_ca": self.authority.certificate,
        }

    def options(self, pair: Pair | None) -> list[str]:
        """What a client of DCMTK needs to trust the authority and to show a certificate, or none."""
        shown = ["--anonymous-tls"] if pair is None else ["--enable-tls", str(pair.key), str(pair.certificate)]
        return [*shown, "--add-cert-file", str(self.authority.certificate)]


def make_certificates(folder: Path, days: int = 2) -> Certificates:
    """Make them all in a folder; the gateway's holds for so many days."""
    authority = _self_signed(folder, "authority", "/CN=Authority")
    return Certificates(
        authority,
        _signed(folder, authority, "gateway", "/CN=gateway.example.org", "DNS:localhost,IP:127.0.0.1", days),
        _signed(folder, authority, "scanner", "/C=CH/O=Hospital, North/CN=ct1.example.org", "DNS:ct1.example.org"),
        _signed(folder, authority, "expired", "/CN=ct1.example.org", "DNS:ct1.example.org", days=-1),
        _self_signed(folder, "stranger", "/O=Hospital, North/CN=ct1.example.org"),
    )


def _self_signed(folder: Path, name: str, subject: str) -> Pair:
    pair = _new_key(folder, name)
    _openssl("req", "-new", "-x509", "-key", pair.key, "-subj", subject, "-days", "2", "-out", pair.certificate)
    return pair


def _signed(folder: Path, authority: Pair, name: str, subject: str, names: str, days: int = 2) -> Pair:
    pair = _new_key(folder, name)
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={names}\n", encoding="ascii")
    _openssl("req", "-new", "-key", pair.key, "-subj", subject, "-out", request)
    issuer = ("-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial")
    validity = ("-days", str(days), "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *issuer, *validity, "-out", pair.certificate)
    return pair


def _new_key(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", pair.key)
    return pair


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
