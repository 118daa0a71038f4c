"""Addressing and credentials of a channel."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.support.hub_certificates import make_identity

from cluster_gateway_client import CoreClient, CoreEndpoint, CoreError
from cluster_gateway_client.channel import open_channel
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.server.endpoints import add_endpoints, server_options
from cluster_gateway_core.settings import ServingSettings
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse, ResponseEnd, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_AUTHORITY = make_identity("ca")
_SERVER = make_identity("core", issuer=_AUTHORITY, usages=(), hosts=("core.example",))
_CLIENT = make_identity("jane", issuer=_AUTHORITY)


class WhoAmI(routing_service_pb2_grpc.RoutingServiceServicer):
    """Answers with who the caller is by its connection."""

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        await context.read()
        name = context.auth_context().get("x509_common_name", [b""])[0]
        token = dict(context.invocation_metadata()).get("authorization", "").encode()
        await context.write(ExchangeResponse(head=ResponseHead(status=200), body=name + token, end=ResponseEnd()))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    contents = {
        "ca.crt": _AUTHORITY.certificate_pem,
        "core.crt": _SERVER.certificate_pem,
        "core.key": _SERVER.key_pem,
        "jane.crt": _CLIENT.certificate_pem,
        "jane.key": _CLIENT.key_pem,
        "token": b"first\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@asynccontextmanager
async def serve(files: Path, **addresses: str) -> AsyncIterator[str]:
    settings = ServingSettings(
        certificate_file=str(files / "core.crt"), private_key_file=str(files / "core.key"), **addresses
    )
    server = grpc.aio.server(options=server_options(settings))
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(WhoAmI(), server)
    trust = TrustAnchors(client_ca_pem=_AUTHORITY.certificate_pem)
    (address,) = add_endpoints(server, settings, lambda: trust)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


async def ask(core: CoreClient) -> bytes:
    async with core.request("c", "GET", "/") as response:
        return await response.read()


async def test_certificate_says_who_the_client_is(files: Path) -> None:
    async with serve(files, address="127.0.0.1:0") as address:
        endpoint = CoreEndpoint(
            target=address,
            ca_file=str(files / "ca.crt"),
            certificate_file=str(files / "jane.crt"),
            private_key_file=str(files / "jane.key"),
            server_name="core.example",
        )
        async with CoreClient(endpoint) as core:
            assert await ask(core) == b"jane"


async def test_token_is_read_for_every_call(files: Path) -> None:
    async with serve(files, token_address="127.0.0.1:0") as address:
        token = files / "token"
        endpoint = CoreEndpoint(
            target=address, ca_file=str(files / "ca.crt"), token_file=str(token), server_name="core.example"
        )
        async with CoreClient(endpoint) as core:
            assert await ask(core) == b"Bearer first"
            token.write_text("second")
            assert await ask(core) == b"Bearer second"
            token.unlink()
            with pytest.raises(CoreError) as caught:
                await ask(core)
    assert "second" not in str(caught.value)


async def test_core_of_another_name_gets_no_token(files: Path) -> None:
    async with serve(files, token_address="127.0.0.1:0") as address:
        endpoint = CoreEndpoint(target=address, ca_file=str(files / "ca.crt"), token_file=str(files / "token"))
        async with CoreClient(endpoint) as core:
            with pytest.raises(CoreError) as caught:
                await ask(core)
    assert caught.value.reason == "CORE_UNAVAILABLE"


async def test_network_without_an_authority_is_refused() -> None:
    with pytest.raises(ValueError, match="ca_file is needed"):
        open_channel(CoreEndpoint(target="dns:///core:9444"))


async def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_channel(CoreEndpoint(target="dns:///core:9444", ca_file=str(tmp_path / "none")))
