"""Certificate authorities and what they issue: P-256, in PEM, keys readable by their owner only."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LIFETIME = dt.timedelta(days=30)
"""Control planes live for hours; a month forgives a forgotten one."""

_CLOCK_SKEW = dt.timedelta(minutes=5)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, never readable by others even for a moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key.

    Attributes:
        certificate: PEM.
        key: PEM, PKCS #8, not encrypted; left out of the representation.
    """

    certificate: bytes
    key: bytes = field(repr=False)

    def write(self, directory: Path, stem: str) -> None:
        """Write `stem.crt` and, with mode 0600, `stem.key`."""
        (directory / f"{stem}.crt").write_bytes(self.certificate)
        write_private(directory / f"{stem}.key", self.key)


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def render_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Render a private key as PEM (PKCS #8, not encrypted)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def render_public_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Render the public half of a key as PEM (SubjectPublicKeyInfo)."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class CertificateAuthority:
    """A self-signed authority that issues server and client certificates.

    Kubernetes reads a client certificate as a user: the common name is the user name and each
    organization a group (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates).
    """

    def __init__(self, common_name: str) -> None:
        self._key = generate_key()
        self._name = _subject(common_name, ())
        builder = _builder(self._name, self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pair(self) -> KeyPair:
        """The authority's own certificate and key."""
        return KeyPair(certificate=self.certificate, key=render_key(self._key))

    def issue_server(self, common_name: str, names: Iterable[str]) -> KeyPair:
        """Issue a serving certificate for DNS names and IP addresses, valid for `LIFETIME`."""
        return self._issue(common_name, names=names, usages=[ExtendedKeyUsageOID.SERVER_AUTH])

    def issue_client(self, common_name: str, organizations: Iterable[str] = ()) -> KeyPair:
        """Issue a client certificate, valid for `LIFETIME`."""
        return self._issue(common_name, organizations=organizations, usages=[ExtendedKeyUsageOID.CLIENT_AUTH])

    def issue_peer(self, common_name: str, names: Iterable[str]) -> KeyPair:
        """Issue a certificate that serves and also identifies a client, as etcd members use."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(common_name, names=names, usages=usages)

    def _issue(
        self,
        common_name: str,
        *,
        usages: list[x509.ObjectIdentifier],
        organizations: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> KeyPair:
        key = generate_key()
        builder = _builder(_subject(common_name, organizations), self._name, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        # Python 3.13 and later refuse, by default, a leaf that does not name its authority's key.
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority_key, critical=False)
        alternatives = [_general_name(name) for name in names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate=certificate.public_bytes(serialization.Encoding.PEM), key=render_key(key))


def _subject(common_name: str, organizations: Iterable[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _CLOCK_SKEW,
        not_valid_after=now + LIFETIME,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
