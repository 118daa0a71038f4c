"""Certificates are what TLS and Kubernetes expect, and keys stay private."""

import contextlib
import ssl
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cluster_gateway.control_planes import CertificateAuthority, write_private


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Complete a TLS handshake in memory and return the server's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return sides[1]


def test_server_and_client_certificates_pass_strict_verification(tmp_path: Path) -> None:
    authority = CertificateAuthority("test-ca")
    authority.issue_server("server", ["127.0.0.1", "gateway.default.svc"]).write(tmp_path, "server")
    authority.issue_client("jane", ["team", "system:masters"]).write(tmp_path, "client")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.certificate.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    client.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    for name in ("127.0.0.1", "gateway.default.svc"):
        seen = shake_hands(server, client, name).getpeercert()
        assert seen is not None
        subject = {value for pairs in seen["subject"] for value in pairs}
        assert subject == {
            ("commonName", "jane"),
            ("organizationName", "team"),
            ("organizationName", "system:masters"),
        }


def test_keys_are_p256() -> None:
    certificate = x509.load_pem_x509_certificate(CertificateAuthority("test-ca").issue_client("jane").certificate)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_private_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_do_not_show_in_representations() -> None:
    assert "PRIVATE" not in repr(CertificateAuthority("test-ca").issue_client("jane"))
