"""The certificate that a gateway makes for itself."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import socket
import ssl
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cluster_gateway.errors import ConfigurationError
from cluster_gateway.serving_certificate import CertificateNames, ensure_certificate, find_names

if TYPE_CHECKING:
    from pathlib import Path

_NOW = dt.datetime.now(tz=dt.UTC)
_NAMES = CertificateNames(dns_names=("localhost", "gw"), addresses=(ipaddress.ip_address("127.0.0.1"),))


def _sans(path: Path) -> tuple[set[str], set[str]]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(value.get_values_for_type(x509.DNSName)), {
        str(address) for address in value.get_values_for_type(x509.IPAddress)
    }


def test_certificate_covers_its_names_and_its_key_is_private(tmp_path: Path) -> None:
    files = ensure_certificate(tmp_path / "new" / "certs", _NAMES)
    assert files.certificate == tmp_path / "new" / "certs" / "apiserver.crt"
    assert _sans(files.certificate) == ({"localhost", "gw"}, {"127.0.0.1"})
    assert stat.S_IMODE(files.private_key.stat().st_mode) == 0o600
    assert sorted(path.name for path in files.certificate.parent.iterdir()) == [
        "apiserver.crt",
        "apiserver.key",
    ]


def test_certificate_is_verified_by_its_own_file(tmp_path: Path) -> None:
    files = ensure_certificate(tmp_path, _NAMES)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.certificate, files.private_key)
    client_context = ssl.create_default_context(cafile=str(files.certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(incoming, outgoing, server_hostname="gw")
    server = server_context.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.getpeercert() is not None


def test_certificate_is_reused_while_it_fits(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, _NAMES).certificate.read_bytes()
    assert ensure_certificate(tmp_path, _NAMES).certificate.read_bytes() == first
    fewer = dataclasses.replace(_NAMES, dns_names=("gw",))
    assert ensure_certificate(tmp_path, fewer).certificate.read_bytes() == first


@pytest.mark.parametrize(("days_later", "renewed"), [(300, False), (340, True), (400, True)])
def test_certificate_is_renewed_before_it_ends(tmp_path: Path, days_later: int, renewed: bool) -> None:  # noqa: FBT001
    first = ensure_certificate(tmp_path, _NAMES, now=_NOW).certificate.read_bytes()
    later = _NOW + dt.timedelta(days=days_later)
    assert (ensure_certificate(tmp_path, _NAMES, now=later).certificate.read_bytes() != first) is renewed


def test_certificate_is_replaced_when_a_name_is_missing(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, _NAMES)
    files = ensure_certificate(tmp_path, dataclasses.replace(_NAMES, dns_names=("other",)))
    assert _sans(files.certificate)[0] == {"other"}


@pytest.mark.parametrize("name", ["apiserver.crt", "apiserver.key"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_broken_pair_is_replaced(tmp_path: Path, name: str, content: bytes | None) -> None:
    files = ensure_certificate(tmp_path, _NAMES)
    first = files.certificate.read_bytes()
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert ensure_certificate(tmp_path, _NAMES).certificate.read_bytes() != first


def test_key_of_another_certificate_is_replaced(tmp_path: Path) -> None:
    files = ensure_certificate(tmp_path / "a", _NAMES)
    other = ensure_certificate(tmp_path / "b", _NAMES)
    files.private_key.write_bytes(other.private_key.read_bytes())
    first = files.certificate.read_bytes()
    assert ensure_certificate(tmp_path / "a", _NAMES).certificate.read_bytes() != first


def test_directory_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write a self-signed certificate to --cert-dir"):
        ensure_certificate(tmp_path / "file" / "certs", _NAMES)


def test_names_are_those_of_host_address_and_service(tmp_path: Path) -> None:
    namespace_file = tmp_path / "namespace"
    names = find_names("0.0.0.0", environment={}, namespace_file=namespace_file)
    assert names.dns_names == ("localhost", socket.gethostname())
    assert [str(address) for address in names.addresses] == ["127.0.0.1", "::1"]
    namespace_file.write_text("vela-system\n")
    names = find_names("10.1.2.3", environment={}, namespace_file=namespace_file)
    assert {"gateway-service.vela-system.svc", "cluster-gateway.vela-system.svc"} <= set(names.dns_names)
    assert ipaddress.ip_address("10.1.2.3") in names.addresses


def test_environment_names_the_service(tmp_path: Path) -> None:
    environment = {"SERVICE_NAME": "gw", "POD_NAMESPACE": "ns"}
    names = find_names("::", environment=environment, namespace_file=tmp_path / "none")
    assert names.dns_names[2:] == ("gw", "gw.ns", "gw.ns.svc")
    assert "gateway-service.ns.svc" not in names.dns_names
