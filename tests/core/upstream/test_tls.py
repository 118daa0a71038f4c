from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from tests.support.hub_certificates import make_identity
from tests.support.scripted_cluster import Receive, ScriptedCluster, Send, serving_context
from tests.support.upstreams import AUTHORITY, SERVER, fetch, make_cluster, make_settings

from cluster_gateway_core.errors import ClusterMisconfiguredError
from cluster_gateway_core.model.cluster import Credential, CredentialType, Endpoint, EndpointType
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.tls import make_client_context
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    from pathlib import Path

_CLIENT = make_identity("gateway", issuer=AUTHORITY)


def make_endpoint(*, ca: bytes | None = AUTHORITY.certificate_pem, insecure: bool = False) -> Endpoint:
    return Endpoint(type=EndpointType.CONST, address="https://h", ca_bundle_pem=ca, insecure=insecure)


def make_credential(certificate: bytes = _CLIENT.certificate_pem, key: bytes = _CLIENT.key_pem) -> Credential:
    return Credential(type=CredentialType.X509_CERTIFICATE, certificate_pem=certificate, private_key_pem=key)


def test_verification_is_on_unless_the_endpoint_says_insecure() -> None:
    verified = make_client_context("c", make_endpoint(), None)
    assert (verified.verify_mode, verified.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert verified.minimum_version is ssl.TLSVersion.TLSv1_2

    without_ca = make_client_context("c", make_endpoint(ca=None), None)
    assert (without_ca.verify_mode, without_ca.check_hostname) == (ssl.CERT_REQUIRED, True)

    insecure = make_client_context("c", make_endpoint(insecure=True), None)
    assert insecure.verify_mode is ssl.CERT_NONE


def test_bundle_may_hold_comments() -> None:
    bundle = "# Autorité\n".encode() + AUTHORITY.certificate_pem

    assert make_client_context("c", make_endpoint(ca=bundle), None).cert_store_stats()["x509"] == 1


def test_client_certificate_is_loaded_without_leaving_a_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    make_client_context("c", make_endpoint(), make_credential())

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert not list(tmp_path.iterdir())


def test_client_certificate_can_be_loaded_where_there_is_no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")

    make_client_context("c", make_endpoint(), make_credential())


_ENCRYPTED_KEY = _CLIENT.key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
)


@pytest.mark.parametrize(
    ("ca", "credential"),
    [
        (b"no certificate", None),
        (b"\xff\xfe", None),
        (AUTHORITY.certificate_pem, make_credential(certificate=b"no certificate")),
        (AUTHORITY.certificate_pem, make_credential(key=b"no key")),
        (AUTHORITY.certificate_pem, make_credential(key=make_identity("x").key_pem)),
        (AUTHORITY.certificate_pem, make_credential(key=_ENCRYPTED_KEY)),
    ],
    ids=["ca", "binary ca", "certificate", "key", "another's key", "encrypted key"],
)
def test_material_that_cannot_be_used_is_told_without_it(ca: bytes, credential: Credential | None) -> None:
    """An encrypted key must not ask the terminal for its password."""
    with pytest.raises(ClusterMisconfiguredError, match="TLS material of cluster c ") as caught:
        make_client_context("c", make_endpoint(ca=ca), credential)
    assert "no " not in caught.value.message
    assert "BEGIN" not in repr(caught.value.__cause__)


async def test_cluster_sees_the_client_certificate_and_an_intermediate_is_an_anchor() -> None:
    intermediate = make_identity("cluster", issuer=AUTHORITY, usages=(), hosts=("cluster.example",))
    tls = serving_context(intermediate, client_ca=AUTHORITY)
    ok = (Receive(), Send(b"HTTP/1.1 204 No Content\r\n\r\n"))
    async with ScriptedCluster(ok, tls=tls) as cluster:
        # The bundle holds the serving certificate alone, whose issuer is unknown: Go trusts it.
        registered = make_cluster(cluster.address, ca=intermediate)
        object.__setattr__(registered, "credential", make_credential())
        upstream = Upstream(registered, UpstreamContext(make_settings()))

        assert (await fetch(upstream))[0].status == 204

        upstream.retire(cut=True)
        await cluster.wait_all_ended()
    assert b"Authorization" not in cluster.connections[0].received


async def test_server_name_of_the_registration_is_verified() -> None:
    """UP-4."""
    ok = (Receive(), Send(b"HTTP/1.1 204 No Content\r\n\r\n"))
    async with ScriptedCluster(ok, tls=serving_context(SERVER)) as cluster:
        upstream = Upstream(make_cluster(cluster.address), UpstreamContext(make_settings()))

        assert (await fetch(upstream))[0].status == 204

        upstream.retire(cut=True)
        await cluster.wait_all_ended()
