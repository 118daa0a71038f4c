from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.support.core_server import CoreServices, serving

from cluster_gateway_client.errors import CoreError
from cluster_gateway_core.model.attributes import ResourceAttributes
from cluster_gateway_core.model.cluster import (
    Cluster,
    Credential,
    CredentialType,
    Endpoint,
    EndpointType,
    Health,
)
from cluster_gateway_core.server.registry_messages import render_cluster
from clustergateway.access.v1 import user_info_pb2
from clustergateway.registry.v1 import cluster_pb2, registry_service_pb2, registry_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

USER = user_info_pb2.UserInfo(username="alice")
CLUSTER = Cluster(
    name="c1",
    uid="u",
    resource_version="7",
    creation_timestamp=datetime(2025, 1, 1, tzinfo=UTC),
    labels={"region": "eu"},
    credential_type="ServiceAccountToken",
    endpoint=Endpoint(
        type=EndpointType.CONST, address="https://h", ca_bundle_pem=b"CA", proxy_url="http://u:canary@p:1"
    ),
    credential=Credential(type=CredentialType.SERVICE_ACCOUNT_TOKEN, token="canary"),
    health=Health(healthy=True, reason="fine"),
)


@pytest.fixture
async def stub(services: CoreServices, tmp_path: Path) -> AsyncIterator[registry_service_pb2_grpc.RegistryServiceStub]:
    services.registry.replace([CLUSTER, Cluster(name="c2", labels={"region": "us"}), Cluster(name="c3")])
    async with (
        serving(services, f"unix:{tmp_path}/core.sock") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield registry_service_pb2_grpc.RegistryServiceStub(channel)


async def failure(call: grpc.aio.UnaryUnaryCall) -> CoreError:  # type: ignore[type-arg]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return CoreError.from_rpc_error(caught.value)


def test_a_message_holds_everything_but_credentials() -> None:
    message = render_cluster(CLUSTER)
    assert message.endpoint == cluster_pb2.Endpoint(
        type=cluster_pb2.ENDPOINT_TYPE_CONST,
        address="https://h",
        ca_bundle_pem=b"CA",
        proxy_url="http://p:1",
    )
    assert message.credential_type == cluster_pb2.CREDENTIAL_TYPE_SERVICE_ACCOUNT_TOKEN
    assert message.creation_timestamp.ToJsonString() == "2025-01-01T00:00:00Z"
    assert message.health == cluster_pb2.Health(healthy=True, reason="fine")
    assert b"canary" not in message.SerializeToString()


async def test_gets_one(services: CoreServices, stub: registry_service_pb2_grpc.RegistryServiceStub) -> None:
    request = registry_service_pb2.GetClusterRequest(name="c1", asserted_user=USER)
    answer = await stub.GetCluster(request, timeout=5)
    assert answer.cluster == render_cluster(CLUSTER)
    assert services.authorizer.asked[0][1] == ResourceAttributes(verb="get", name="c1")


async def test_an_unknown_cluster_is_not_found_and_a_denial_comes_first(
    services: CoreServices, stub: registry_service_pb2_grpc.RegistryServiceStub
) -> None:
    request = registry_service_pb2.GetClusterRequest(name="zz", asserted_user=USER)
    error = await failure(stub.GetCluster(request, timeout=5))
    assert (error.reason, error.message, error.cluster_name) == (
        "CLUSTER_NOT_FOUND",
        "no such cluster zz",
        "zz",
    )
    services.authorizer.denied.add("get")
    error = await failure(stub.GetCluster(request, timeout=5))
    assert (error.reason, error.hint) == ("ACCESS_DENIED", "ask somebody")


async def test_a_nameless_request_is_invalid(stub: registry_service_pb2_grpc.RegistryServiceStub) -> None:
    request = registry_service_pb2.GetClusterRequest(asserted_user=USER)
    assert (await failure(stub.GetCluster(request, timeout=5))).reason == "INVALID_REQUEST"


async def test_pages_show_one_version(
    services: CoreServices, stub: registry_service_pb2_grpc.RegistryServiceStub
) -> None:
    request = registry_service_pb2.ListClustersRequest(page_size=2, asserted_user=USER)
    first = await stub.ListClusters(request, timeout=5)
    assert [cluster.name for cluster in first.clusters] == ["c1", "c2"]
    assert first.remaining_items == 1
    services.registry.delete("c3")
    services.registry.upsert(Cluster(name="c4"))
    request.page_token = first.next_page_token
    second = await stub.ListClusters(request, timeout=5)
    assert [cluster.name for cluster in second.clusters] == ["c3"]
    assert (second.next_page_token, second.remaining_items) == ("", 0)
    assert second.resource_version == first.resource_version


async def test_lists_what_a_selector_selects(stub: registry_service_pb2_grpc.RegistryServiceStub) -> None:
    request = registry_service_pb2.ListClustersRequest(label_selector="region in (us)", asserted_user=USER)
    answer = await stub.ListClusters(request, timeout=5)
    assert [cluster.name for cluster in answer.clusters] == ["c2"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (registry_service_pb2.ListClustersRequest(page_size=-1, asserted_user=USER), "INVALID_REQUEST"),
        (registry_service_pb2.ListClustersRequest(page_token="ä", asserted_user=USER), "INVALID_REQUEST"),
        (registry_service_pb2.ListClustersRequest(page_token="WzFd", asserted_user=USER), "INVALID_REQUEST"),
        (
            registry_service_pb2.ListClustersRequest(page_token="WzEsMl0=", asserted_user=USER),
            "INVALID_REQUEST",
        ),
        (
            registry_service_pb2.ListClustersRequest(label_selector="a b", asserted_user=USER),
            "INVALID_REQUEST",
        ),
        (registry_service_pb2.ListClustersRequest(page_token="WyIxIiwiYSJd", asserted_user=USER), "EXPIRED"),
    ],
    ids=["negative", "not ascii", "not JSON", "not text", "selector", "foreign"],
)
async def test_a_broken_list_request_says_why(
    stub: registry_service_pb2_grpc.RegistryServiceStub,
    request_: registry_service_pb2.ListClustersRequest,
    reason: str,
) -> None:
    assert (await failure(stub.ListClusters(request_, timeout=5))).reason == reason


async def test_a_watch_streams_and_ends_with_its_client(
    services: CoreServices, stub: registry_service_pb2_grpc.RegistryServiceStub
) -> None:
    request = registry_service_pb2.WatchClustersRequest(label_selector="region", asserted_user=USER)
    call = stub.WatchClusters(request, timeout=10)
    events = aiter(call)
    seen = [await anext(events) for _ in range(3)]
    services.registry.delete("c2")
    seen.append(await anext(events))
    kinds = [registry_service_pb2.WatchEventType.Name(event.type)[17:] for event in seen]
    assert kinds == ["ADDED", "ADDED", "BOOKMARK", "DELETED"]
    assert seen[2].cluster == cluster_pb2.Cluster(resource_version=seen[2].resource_version)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await anext(events)
    assert services.authorizer.asked[0][1] == ResourceAttributes(verb="watch")


async def test_a_watch_from_a_foreign_version_is_expired(
    stub: registry_service_pb2_grpc.RegistryServiceStub,
) -> None:
    request = registry_service_pb2.WatchClustersRequest(resource_version="12", asserted_user=USER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.WatchClusters(request, timeout=5)))
    assert CoreError.from_rpc_error(caught.value).reason == "EXPIRED"


async def test_health_is_stored_for_registered_clusters_only(
    services: CoreServices, stub: registry_service_pb2_grpc.RegistryServiceStub
) -> None:
    request = registry_service_pb2.UpdateClusterHealthRequest(
        name="c1",
        health=cluster_pb2.Health(healthy=True, reason="r"),
        resource_version="7",
        validate_only=True,
        asserted_user=USER,
    )
    answer = await stub.UpdateClusterHealth(request, timeout=5)
    assert answer.cluster.health.healthy
    request.name = "zz"
    assert (await failure(stub.UpdateClusterHealth(request, timeout=5))).reason == "CLUSTER_NOT_FOUND"
    assert services.health.stored == [("c1", Health(healthy=True, reason="r"), "7", True)]
    assert services.authorizer.asked[0][1] == ResourceAttributes(verb="update", subresource="health", name="c1")
