"""A core on the network: services that speak gRPC to it, and facades in processes of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.support.gateway import GROUP, NAMESPACE, proxy_path
from tests.support.split_gateway import FACADE_NAME, run_core, run_facade

from cluster_gateway_client import CoreClient, CoreError
from clustergateway.access.v1.access_service_pb2 import AuthenticateRequest
from clustergateway.access.v1.user_info_pb2 import UserInfo
from clustergateway.registry.v1 import registry_service_pb2
from clustergateway.routing.v1.routing_service_pb2 import RequestHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl
    from tests.support.split_gateway import Core

    from cluster_gateway.control_planes import KeyPair

_PODS = "/api/v1/namespaces/default/pods"
_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:grpc-caller"
_SECONDS = 10.0


@pytest.fixture(scope="module")
async def core(stage: Stage, gateway: Gateway) -> AsyncIterator[Core]:
    """A core beside the session's gateway; both serve the same clusters."""
    rules = [
        {
            "apiGroups": [GROUP],
            "resources": ["clustergateways/proxy"],
            "resourceNames": ["managed1"],
            "verbs": ["get", "create", "delete"],
        }
    ]
    await stage.grant("e2e-grpc", rules, "service", _ACCOUNT)
    async with run_core(stage) as core:
        yield core


@pytest.fixture(scope="module")
async def service(stage: Stage, core: Core) -> AsyncIterator[CoreClient]:
    """A client with a certificate of the hub's user "service"."""
    user = stage.hub.issue_client_certificate("service")
    async with CoreClient(core.endpoint(user, "service")) as client:
        yield client


async def names_of(client: CoreClient, cluster: str) -> list[str]:
    async with client.request(cluster, "GET", _PODS, headers=[("Accept", "application/json")]) as response:
        assert response.status == 200
        return [item["metadata"]["name"] for item in json.loads(await response.read())["items"]]


async def test_a_service_lists_without_any_facade(service: CoreClient) -> None:
    assert await names_of(service, "managed1") == ["pod1"]


async def test_a_service_watches(service: CoreClient, clusters: dict[str, Kubectl]) -> None:
    target = "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dgrpc"
    async with service.request("managed1", "GET", target) as response:
        lines = response.lines()
        await clusters["managed1"].ok("create", "configmap", "grpc")
        assert json.loads(await anext(lines))["type"] == "ADDED"
        await clusters["managed1"].ok("delete", "configmap", "grpc")
        assert json.loads(await anext(lines))["type"] == "DELETED"
        await lines.aclose()


async def test_a_service_creates_and_the_clusters_errors_are_responses(service: CoreClient) -> None:
    body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-grpc"}}).encode()
    headers = [("Content-Type", "application/json")]
    path = "/api/v1/namespaces/default/configmaps"
    for expected in (201, 409):
        async with service.request("managed1", "POST", path, headers=headers, body=body) as response:
            assert (response.status, json.loads(await response.read())["kind"] != "") == (expected, True)
    for expected in (200, 404):
        async with service.request("managed1", "DELETE", f"{path}/by-grpc") as response:
            assert response.status == expected
            await response.read()


async def test_a_service_has_its_own_rights_on_the_hub(service: CoreClient) -> None:
    messages = []
    for name in ("managed2", "unknown1"):
        with pytest.raises(CoreError) as refused:
            await names_of(service, name)
        assert refused.value.reason == "ACCESS_DENIED"
        messages.append(refused.value.message.replace(name, "NAME"))
    assert messages[0] == messages[1]
    assert "service" in messages[0]


async def test_an_administrator_hears_what_is_wrong(stage: Stage, core: Core) -> None:
    user = stage.hub.issue_client_certificate("root", ["system:masters"])
    async with CoreClient(core.endpoint(user, "root")) as client:
        assert await names_of(client, "managed2") == ["pod1"]
        with pytest.raises(CoreError, match="no such cluster unknown1") as failed:
            await names_of(client, "unknown1")
    assert failed.value.reason == "CLUSTER_NOT_FOUND"


async def assert_user(client: CoreClient, user: str) -> int:
    """Ask as somebody else; the status of the answer."""
    asserted = UserInfo(username=user, groups=["system:masters"])
    head = RequestHead(cluster_name="managed2", method="GET", target=_PODS.encode(), asserted_user=asserted)
    async with client.exchange() as exchange:
        await exchange.start(head, end=True)
        return (await exchange.receive()).head.status


@pytest.mark.parametrize("name", ["service", FACADE_NAME])
async def test_only_a_facade_may_ask_for_another(stage: Stage, core: Core, name: str) -> None:
    """A facade's name in a certificate of the hub's proves nothing: the hub signs any name for its users."""
    user = stage.hub.issue_client_certificate(name)
    async with CoreClient(core.endpoint(user, f"asserting-{name}")) as client:
        with pytest.raises(CoreError) as refused:
            await assert_user(client, "kubernetes-admin")
        assert refused.value.reason == "ACCESS_DENIED"
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await client.access.Authenticate(AuthenticateRequest(token="x"), timeout=_SECONDS)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_facade_asks_for_others(core: Core) -> None:
    facade: KeyPair = core.authority.issue_client(FACADE_NAME)
    async with CoreClient(core.endpoint(facade, "facade")) as client:
        assert await assert_user(client, "kubernetes-admin") == 200


async def test_another_name_of_the_facade_authority_is_no_facade(core: Core) -> None:
    other = core.authority.issue_client("somebody")
    async with CoreClient(core.endpoint(other, "other")) as client:
        with pytest.raises(CoreError) as refused:
            await assert_user(client, "kubernetes-admin")
    assert refused.value.reason == "UNAUTHENTICATED"


async def test_a_bearer_token_is_its_service_account(core: Core, admin: Kubectl) -> None:
    await admin.ok("create", "serviceaccount", "-n", NAMESPACE, "grpc-caller")
    token = (await admin.ok("create", "token", "-n", NAMESPACE, "grpc-caller")).strip()
    async with CoreClient(core.token_endpoint(token, "account")) as client:
        assert await names_of(client, "managed1") == ["pod1"]
        with pytest.raises(CoreError) as refused:
            await names_of(client, "managed2")
        assert refused.value.reason == "ACCESS_DENIED"
    async with CoreClient(core.token_endpoint("nonsense", "nonsense")) as client:
        with pytest.raises(CoreError) as refused:
            await names_of(client, "managed1")
        assert refused.value.reason == "UNAUTHENTICATED"


async def test_mutual_tls_without_a_certificate_is_refused(core: Core) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=core.ca_path.read_bytes())
    async with grpc.aio.secure_channel(f"dns:///127.0.0.1:{core.port}", credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_registry_is_read_by_an_administrator_and_holds_no_secret(stage: Stage, core: Core) -> None:
    user = stage.hub.issue_client_certificate("root", ["system:masters"])
    async with CoreClient(core.endpoint(user, "registry-reader")) as client:
        request = registry_service_pb2.ListClustersRequest()
        listed = await client.registry.ListClusters(request, timeout=_SECONDS)
    assert {"managed1", "managed2"} <= {cluster.name for cluster in listed.clusters}
    assert b"PRIVATE KEY" not in listed.SerializeToString()


async def test_health_and_reflection_answer_without_a_credential(core: Core) -> None:
    service_name = "clustergateway.routing.v1.RoutingService"
    async with core.plain_channel() as channel:
        request = health_pb2.HealthCheckRequest(service=service_name)
        health = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_SECONDS)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=_SECONDS
        )
        (answer,) = [answer async for answer in call]
    assert service_name in {service.name for service in answer.list_services_response.service}


async def test_a_facade_of_its_own_serves_kubectl(stage: Stage, core: Core) -> None:
    user = stage.hub.issue_client_certificate("service")
    async with run_facade(stage, core) as facade:
        kubectl = stage.kubectl_at(facade.url + proxy_path("managed1"), stage.ca_path, user)
        assert "pod1" in await kubectl.ok("get", "pods")
        printed = await kubectl.ok("exec", "-i", "pod1", "-c", "main", "--", "cat", stdin=b"through both")
        assert printed == "through both"
        refused = await stage.kubectl_at(facade.url + proxy_path("managed2"), stage.ca_path, user)(
            "get", "--raw", _PODS
        )
        assert "(Forbidden)" in refused.stderr
