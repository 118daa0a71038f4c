"""What a core listens on, and who may connect."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import ANY

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.hub_certificates import Identity, make_identity
from tests.support.scripted_cluster import WAIT_SECONDS

from cluster_gateway_core.errors import InternalError
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.server.endpoints import add_endpoints, server_options, serving_fault
from cluster_gateway_core.settings import ServingSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_AUTHORITY = make_identity("gateway ca")
_HUB = make_identity("hub client ca")
_SERVER_NAME = "core.example"


class Trust:
    """Anchors that a test may change."""

    def __init__(self, client_ca: bytes) -> None:
        self.client_ca = client_ca

    def __call__(self) -> TrustAnchors:
        return TrustAnchors(client_ca_pem=self.client_ca)


def make_server_identity() -> Identity:
    return make_identity("core", issuer=_AUTHORITY, usages=(), hosts=(_SERVER_NAME,))


def write(folder: Path, identity: Identity) -> ServingSettings:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(identity.certificate_pem)
    key.write_bytes(identity.key_pem)
    return ServingSettings(certificate_file=str(certificate), private_key_file=str(key))


@pytest.fixture
def settings(tmp_path: Path) -> ServingSettings:
    return write(tmp_path, make_server_identity())


@pytest.fixture
def trust() -> Trust:
    return Trust(_HUB.certificate_pem)


@asynccontextmanager
async def serve(settings: ServingSettings, trust: Trust) -> AsyncIterator[list[str]]:
    server = grpc.aio.server(options=server_options(settings))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    addresses = add_endpoints(server, settings, trust)
    await server.start()
    try:
        yield addresses
    finally:
        await server.stop(0)


async def call(target: str, client: Identity | None = None, *, ca: Identity = _AUTHORITY) -> grpc.StatusCode:
    """Status of one call over TLS, or over the private socket."""
    if target.startswith("unix:"):
        channel = grpc.aio.insecure_channel(target)
    else:
        credentials = grpc.ssl_channel_credentials(
            ca.certificate_pem,
            client.key_pem if client else None,
            client.certificate_pem if client else None,
        )
        options = [("grpc.ssl_target_name_override", _SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    async with channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def test_private_socket_is_for_this_user_alone(tmp_path: Path, trust: Trust) -> None:
    path = tmp_path / "core.sock"
    async with serve(ServingSettings(unix_socket=str(path)), trust) as addresses:
        assert addresses == [f"unix:{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await call(f"unix:{path}") is grpc.StatusCode.OK


async def test_network_endpoint_demands_a_certificate_of_a_known_authority(
    settings: ServingSettings, trust: Trust, tmp_path: Path
) -> None:
    facade_ca = make_identity("facade ca")
    (tmp_path / "facade-ca.crt").write_bytes(facade_ca.certificate_pem)
    settings = replace(settings, address="127.0.0.1:0", facade_ca_file=str(tmp_path / "facade-ca.crt"))
    async with serve(settings, trust) as (address,):
        assert address.startswith("127.0.0.1:")
        assert await call(address) is grpc.StatusCode.UNAVAILABLE
        stranger = make_identity("x", issuer=make_identity("another ca"))
        assert await call(address, stranger) is grpc.StatusCode.UNAVAILABLE
        assert await call(address, make_identity("old", issuer=_HUB, expired=True)) is grpc.StatusCode.UNAVAILABLE
        assert await call(address, make_identity("jane", issuer=_HUB)) is grpc.StatusCode.OK
        assert await call(address, make_identity("facade", issuer=facade_ca)) is grpc.StatusCode.OK


async def test_token_endpoint_needs_no_certificate(settings: ServingSettings, trust: Trust) -> None:
    async with serve(replace(settings, token_address="127.0.0.1:0"), trust) as (address,):
        assert await call(address) is grpc.StatusCode.OK
        assert await call(address, ca=_HUB) is grpc.StatusCode.UNAVAILABLE


async def test_endpoint_without_any_authority_yet_refuses_all_and_learns_it(settings: ServingSettings) -> None:
    trust = Trust(b"")
    async with serve(replace(settings, address="127.0.0.1:0"), trust) as (address,):
        assert await call(address) is grpc.StatusCode.UNAVAILABLE
        assert await call(address, make_identity("jane", issuer=_HUB)) is grpc.StatusCode.UNAVAILABLE

        trust.client_ca = _HUB.certificate_pem

        assert await call(address, make_identity("jane", issuer=_HUB)) is grpc.StatusCode.OK


async def test_changed_certificate_and_authority_are_taken_up(
    settings: ServingSettings, trust: Trust, tmp_path: Path
) -> None:
    """G10."""
    async with serve(replace(settings, address="127.0.0.1:0"), trust) as (address,):
        jane = make_identity("jane", issuer=_HUB)
        assert await call(address, jane) is grpc.StatusCode.OK

        rotated = make_identity("new ca")
        write(tmp_path, make_identity("core", issuer=rotated, usages=(), hosts=(_SERVER_NAME,)))
        trust.client_ca = rotated.certificate_pem

        assert await call(address, make_identity("joe", issuer=rotated), ca=rotated) is grpc.StatusCode.OK
        assert await call(address, jane, ca=rotated) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_session_is_not_resumed_once_the_authority_has_changed(
    settings: ServingSettings, trust: Trust, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A client of a withdrawn authority must not come back by what it was given before (F10)."""
    async with serve(replace(settings, address="127.0.0.1:0"), trust) as (address,):
        tls = ssl.create_default_context(cadata=_AUTHORITY.certificate_pem.decode())
        tls.maximum_version = version
        tls.set_alpn_protocols(["h2"])
        jane = make_identity("jane", issuer=_HUB)
        path = tmp_path / "jane.pem"
        path.write_bytes(jane.certificate_pem + jane.key_pem)
        tls.load_cert_chain(path)
        port = int(address.rpartition(":")[2])
        session, resumed, answer = await asyncio.to_thread(resume, tls, port, None)
        assert (resumed, bool(answer)) == (False, True)
        assert await asyncio.to_thread(resume, tls, port, session) == (ANY, True, answer)  # else this proves nothing
        trust.client_ca = make_identity("new ca").certificate_pem
        assert await asyncio.to_thread(resume, tls, port, session) == (ANY, False, b"")


def resume(tls: ssl.SSLContext, port: int, session: ssl.SSLSession | None) -> tuple[object, bool, bytes]:
    """Begin HTTP/2; returns the session, whether it was resumed, and what the server sent, which is b"" for nothing."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as raw,
            tls.wrap_socket(raw, server_hostname=_SERVER_NAME, session=session) as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            # TLS 1.3 servers refuse a certificate, and give sessions, after the client's handshake.
            answer = secured.recv(9)
            return secured.session, bool(secured.session_reused), answer
    except OSError:
        return None, False, b""


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("", ""),
        ("gone", "cannot be read"),
        ("junk", "cannot be used"),
        ("another's key", "another certificate's"),
        ("junk authority", "cannot be used"),
    ],
)
def test_broken_files_are_told_before_a_handshake_meets_them(tmp_path: Path, damage: str, told: str) -> None:
    """TOK-2."""
    settings = replace(
        write(tmp_path, make_server_identity()), address="127.0.0.1:0", facade_ca_file=str(tmp_path / "facade-ca.crt")
    )
    (tmp_path / "facade-ca.crt").write_bytes(b"junk" if damage == "junk authority" else _AUTHORITY.certificate_pem)
    key = tmp_path / "tls.key"
    match damage:
        case "gone":
            key.unlink()
        case "junk":
            key.write_bytes(b"junk")
        case "another's key":
            key.write_bytes(make_server_identity().key_pem)
        case _:
            pass
    fault = serving_fault(settings)
    assert told in fault
    assert bool(told) == bool(fault)
    assert serving_fault(ServingSettings(unix_socket="x")) == ""


@pytest.mark.parametrize("fault", ["gone", "empty", "garbage", "another key"])
async def test_broken_certificate_leaves_the_last_in_force(
    settings: ServingSettings, trust: Trust, tmp_path: Path, fault: str
) -> None:
    async with serve(replace(settings, token_address="127.0.0.1:0"), trust) as (address,):
        assert await call(address) is grpc.StatusCode.OK
        key = tmp_path / "tls.key"
        match fault:
            case "gone":
                key.unlink()
            case "empty":
                key.write_bytes(b"")
            case "garbage":
                key.write_bytes(b"garbage")
            case _:
                key.write_bytes(make_server_identity().key_pem)

        assert await call(address) is grpc.StatusCode.OK

        write(tmp_path, make_identity("core", issuer=_HUB, usages=(), hosts=(_SERVER_NAME,)))
        assert await call(address, ca=_HUB) is grpc.StatusCode.OK


async def test_network_endpoint_needs_a_certificate(trust: Trust) -> None:
    with pytest.raises(InternalError, match="needs a certificate"):
        add_endpoints(grpc.aio.server(), ServingSettings(address="127.0.0.1:0"), trust)
