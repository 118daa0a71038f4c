"""Certificates made on the spot, for tests of trust anchors, Secrets and callers."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_NOW = dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_identity(  # noqa: PLR0913 - each is a keyword, and most tests give two
    common_name: str,
    *,
    issuer: Identity | None = None,
    organizations: tuple[str, ...] = (),
    usages: tuple[x509.ObjectIdentifier, ...] | None = None,
    expired: bool = False,
    hosts: tuple[str, ...] = (),
    authority: bool = False,
    days: int = 10,
) -> Identity:
    """Make a leaf of `issuer`, with `authority` an intermediate one, or without an issuer a certificate authority."""
    if usages is None:
        usages = () if authority else (ExtendedKeyUsageOID.CLIENT_AUTH,)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations),
        ]
    )
    start = _NOW - dt.timedelta(days=10)
    end = _NOW + dt.timedelta(days=-1 if expired else days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=issuer is None or authority, path_length=None), critical=True)
    )
    if issuer is not None and usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
    return Identity(certificate=builder.sign(issuer.key if issuer else key, hashes.SHA256()), key=key)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
