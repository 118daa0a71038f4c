"""What the resolver believes of real connections: unix socket, mutual TLS and token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from tests.support.core_server import CoreServices, FakeTokens, serving
from tests.support.hub_certificates import Identity, make_identity

from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.registry.store import ClusterRegistry
from cluster_gateway_core.server.caller import CallerResolver
from cluster_gateway_core.settings import ServingSettings
from clustergateway.access.v1 import access_service_pb2, access_service_pb2_grpc, user_info_pb2
from clustergateway.registry.v1 import registry_service_pb2, registry_service_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

FACADE_CA = make_identity("facade-ca")
HUB_CA = make_identity("hub-ca")
SERVER = make_identity("core", issuer=FACADE_CA, hosts=("core",), usages=())
FACADE = make_identity("cluster-gateway-facade", issuer=FACADE_CA)
IMPOSTOR = make_identity("cluster-gateway-facade", issuer=HUB_CA)
OPTIONS = (("grpc.ssl_target_name_override", "core"),)
LIST = registry_service_pb2.ListClustersRequest()
ASSERTING = registry_service_pb2.ListClustersRequest(asserted_user=user_info_pb2.UserInfo(username="carol"))


@pytest.fixture
def services(tmp_path: Path) -> CoreServices:
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(FACADE_CA.certificate_pem)
    tokens = FakeTokens({"good": UserInfo(username="bob")})
    callers = CallerResolver(
        ServingSettings(facade_ca_file=str(ca_file)),
        trust=lambda: TrustAnchors(client_ca_pem=HUB_CA.certificate_pem),
        tokens=tokens,
    )
    registry = ClusterRegistry()
    registry.replace([])
    return CoreServices(registry=registry, callers=callers, tokens=tokens)


def dial(address: str, identity: Identity | None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        FACADE_CA.certificate_pem,
        identity.key_pem if identity else None,
        identity.certificate_pem if identity else None,
    )
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)


def serve_tls(*, mutual: bool) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(SERVER.key_pem, SERVER.certificate_pem)],
        root_certificates=FACADE_CA.certificate_pem + HUB_CA.certificate_pem if mutual else None,
        require_client_auth=mutual,
    )


async def test_a_client_on_the_private_socket_is_a_facade(services: CoreServices, tmp_path: Path) -> None:
    async with (
        serving(services, f"unix:{tmp_path}/core.sock") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await registry_service_pb2_grpc.RegistryServiceStub(channel).ListClusters(ASSERTING, timeout=5)
    assert services.authorizer.asked[0][0] == UserInfo(username="carol")


async def test_local_credentials_are_as_good(services: CoreServices, tmp_path: Path) -> None:
    local = grpc.LocalConnectionType.UDS
    server_credentials = grpc.local_server_credentials(local)
    server = grpc.aio.server()
    services.add_to(server)
    server.add_secure_port(f"unix:{tmp_path}/core.sock", server_credentials)
    await server.start()
    try:
        async with grpc.aio.secure_channel(
            f"unix:{tmp_path}/core.sock", grpc.local_channel_credentials(local)
        ) as channel:
            await registry_service_pb2_grpc.RegistryServiceStub(channel).ListClusters(ASSERTING, timeout=5)
    finally:
        await server.stop(None)
    assert services.authorizer.asked[0][0] == UserInfo(username="carol")


async def test_a_facade_is_known_by_its_certificate_and_an_impostor_is_a_mere_user(
    services: CoreServices,
) -> None:
    async with serving(services, "127.0.0.1:0", serve_tls(mutual=True)) as address:
        async with dial(address, FACADE) as channel:
            await registry_service_pb2_grpc.RegistryServiceStub(channel).ListClusters(ASSERTING, timeout=5)
        async with dial(address, IMPOSTOR) as channel:
            stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListClusters(ASSERTING, timeout=5)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            await stub.ListClusters(LIST, timeout=5)
            access = access_service_pb2_grpc.AccessServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await access.Authenticate(access_service_pb2.AuthenticateRequest(token="good"), timeout=5)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    names = [user.username for user, _ in services.authorizer.asked]
    assert names == ["carol", "cluster-gateway-facade"]
    assert services.authorizer.asked[1][0].groups == ("system:authenticated",)


async def test_a_token_identifies_where_no_certificate_is_asked_for(services: CoreServices) -> None:
    async with (
        serving(services, "127.0.0.1:0", serve_tls(mutual=False)) as address,
        dial(address, None) as channel,
    ):
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        await stub.ListClusters(LIST, metadata=(("authorization", "Bearer good"),), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListClusters(LIST, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert [user.username for user, _ in services.authorizer.asked] == ["bob"]


async def test_a_facades_certificate_of_another_name_is_nobodys(services: CoreServices) -> None:
    """Signed by the facade CA, but named otherwise: it may assert nobody, and is nobody itself."""
    async with (
        serving(services, "127.0.0.1:0", serve_tls(mutual=True)) as address,
        dial(address, make_identity("another-service", issuer=FACADE_CA)) as channel,
    ):
        for request in (ASSERTING, LIST):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await registry_service_pb2_grpc.RegistryServiceStub(channel).ListClusters(request, timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert services.authorizer.asked == []


async def test_one_user_holds_a_few_watches_of_clusters(services: CoreServices) -> None:
    services.watches_per_client = 1
    request = registry_service_pb2.WatchClustersRequest()
    async with (
        serving(services, "127.0.0.1:0", serve_tls(mutual=True)) as address,
        dial(address, IMPOSTOR) as channel,
        dial(address, make_identity("jane", issuer=HUB_CA)) as another,
    ):
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        held = stub.WatchClusters(request, timeout=5)
        await anext(aiter(held))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.WatchClusters(request, timeout=5)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        other = registry_service_pb2_grpc.RegistryServiceStub(another).WatchClusters(request, timeout=5)
        await anext(aiter(other))
        held.cancel()
        other.cancel()
