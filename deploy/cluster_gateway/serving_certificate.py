"""The certificate that a gateway makes for itself when it is given none.

Each replica then has its own, which nobody can verify: the original's manifests skip verification for that
reason. Shared certificates come with `--tls-cert-file`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

CERTIFICATE_NAME = "apiserver.crt"
KEY_NAME = "apiserver.key"

_VALIDITY = dt.timedelta(days=365)
"""k8s.io/client-go, util/cert, GenerateSelfSignedCertKey."""
_RENEWAL = dt.timedelta(days=30)
"""A certificate with less left is replaced at start, as a process may well run for a month."""
_BACKDATING = dt.timedelta(hours=1)
"""Likewise from client-go: clocks differ."""
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SERVICE_NAMES = ("gateway-service", "cluster-gateway")
"""Services of the original's manifests and of its add-on manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Paths of a certificate chain and its key."""

    certificate: Path
    private_key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateNames:
    """What a certificate is for."""

    dns_names: tuple[str, ...]
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]


def find_names(
    bind_address: str,
    *,
    environment: Mapping[str, str] = os.environ,
    namespace_file: Path = _NAMESPACE_FILE,
) -> CertificateNames:
    """Collect the names under which this gateway may be reached.

    Args:
        bind_address: Where it listens; counted when it is one address.
        environment: `SERVICE_NAME` names the Service in front of it (both of the original's if unset), and
            `POD_NAMESPACE` its namespace.
        namespace_file: Where to read the namespace if the environment has none.

    Returns:
        localhost, both loopback addresses, the host's name, and the Service's names if its
        namespace is known.
    """
    dns_names = ["localhost", socket.gethostname()]
    namespace = environment.get("POD_NAMESPACE") or _read_namespace(namespace_file)
    if namespace:
        services = [environment["SERVICE_NAME"]] if environment.get("SERVICE_NAME") else _SERVICE_NAMES
        for service in services:
            dns_names += [service, f"{service}.{namespace}", f"{service}.{namespace}.svc"]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    listening = ipaddress.ip_address(bind_address)
    if not listening.is_unspecified:
        addresses.append(listening)
    return CertificateNames(
        dns_names=tuple(dict.fromkeys(name for name in dns_names if name)),
        addresses=tuple(dict.fromkeys(addresses)),
    )


def ensure_certificate(directory: Path, names: CertificateNames, *, now: dt.datetime | None = None) -> CertificateFiles:
    """Find a fitting certificate in a directory, or make one there.

    Args:
        directory: Made if missing.
        names: What the certificate must cover.
        now: The moment to judge validity by; None is the present.

    Returns:
        Where certificate and key are. The key's file has mode 0600. The chain ends with the one-time CA that
        signed it, whose key is kept nowhere, so that file can serve as a caBundle too.

    Raises:
        ConfigurationError: The directory cannot be written.
    """
    now = now or dt.datetime.now(tz=dt.UTC)
    files = CertificateFiles(certificate=directory / CERTIFICATE_NAME, private_key=directory / KEY_NAME)
    if _is_fitting(files, names, now):
        return files
    chain, key = _make_certificate(names, now)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Key first: a reader that sees a pair that does not match tries again.
        _write(files.private_key, key, mode=0o600)
        _write(files.certificate, chain, mode=0o644)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write a self-signed certificate to --cert-dir {directory}: {error.strerror}; make that "
            "directory writable, or pass --tls-cert-file and --tls-private-key-file"
        ) from error
    return files


def _read_namespace(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _is_fitting(files: CertificateFiles, names: CertificateNames, now: dt.datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.private_key.read_bytes(), password=None)
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        certificate.public_key() == key.public_key()
        and certificate.not_valid_before_utc <= now
        and now + _RENEWAL < certificate.not_valid_after_utc
        and set(names.dns_names) <= set(alternative.get_values_for_type(x509.DNSName))
        and set(names.addresses) <= set(alternative.get_values_for_type(x509.IPAddress))
    )


def _make_certificate(names: CertificateNames, now: dt.datetime) -> tuple[bytes, bytes]:
    """Make a chain of leaf and CA, and the leaf's key, as PEM.

    P-256: a handshake costs a tenth of what RSA 2048 costs, and the hub makes many.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _common_name(f"cluster-gateway-ca@{int(now.timestamp())}")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), authority_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    alternative = [
        *(x509.DNSName(name) for name in names.dns_names),
        *(x509.IPAddress(address) for address in names.addresses),
    ]
    leaf = (
        _builder(_common_name("cluster-gateway"), authority_name, key.public_key(), authority_key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    chain = leaf.public_bytes(encoding) + authority.public_bytes(encoding)
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return chain, pem


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATING)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file in one step; its content is never readable under a wider mode than asked for."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
