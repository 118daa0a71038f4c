from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from tests.support.core_server import CoreServices, serving

from cluster_gateway_client.errors import CoreError
from cluster_gateway_core.model.attributes import NonResourceAttributes, ResourceAttributes
from cluster_gateway_core.model.condition import Condition
from cluster_gateway_core.model.trust import FrontProxyTrust, TrustAnchors
from cluster_gateway_core.model.user import UserInfo
from clustergateway.access.v1 import access_service_pb2, access_service_pb2_grpc, user_info_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BOB = UserInfo(username="bob", uid="1", groups=("a",), extra=(("k", ("v", "w")),))
BOB_MESSAGE = user_info_pb2.UserInfo(
    username="bob", uid="1", groups=["a"], extra={"k": user_info_pb2.ExtraValues(values=["v", "w"])}
)


@pytest.fixture
async def stub(services: CoreServices, tmp_path: Path) -> AsyncIterator[access_service_pb2_grpc.AccessServiceStub]:
    async with (
        serving(services, f"unix:{tmp_path}/core.sock") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield access_service_pb2_grpc.AccessServiceStub(channel)


async def test_trust_is_sent_at_once_and_with_each_change(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub
) -> None:
    services.trust.publish(TrustAnchors(client_ca_pem=b"CA"))
    call = stub.WatchTrust(access_service_pb2.WatchTrustRequest(), timeout=10)
    answers = aiter(call)
    first = await anext(answers)
    assert first == access_service_pb2.WatchTrustResponse(client_ca_pem=b"CA")
    assert not first.HasField("front_proxy")
    front_proxy = FrontProxyTrust(
        ca_pem=b"FP",
        allowed_names=("n",),
        username_headers=("u",),
        uid_headers=("i",),
        group_headers=("g",),
        extra_header_prefixes=("e",),
    )
    services.trust.publish(TrustAnchors(front_proxy=front_proxy))
    second = await anext(answers)
    assert second.front_proxy == access_service_pb2.FrontProxyTrust(
        ca_pem=b"FP",
        allowed_names=["n"],
        username_headers=["u"],
        uid_headers=["i"],
        group_headers=["g"],
        extra_header_prefixes=["e"],
    )
    call.cancel()


async def test_authenticates_a_token(services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub) -> None:
    services.tokens.users["good"] = BOB
    good = await stub.Authenticate(access_service_pb2.AuthenticateRequest(token="good"), timeout=5)
    bad = await stub.Authenticate(access_service_pb2.AuthenticateRequest(token="bad"), timeout=5)
    assert good.user == BOB_MESSAGE
    assert not bad.HasField("user")


async def test_authorizes_a_resource_and_a_path(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub
) -> None:
    services.authorizer.denied.add("get")
    resource = access_service_pb2.ResourceAttributes(
        verb="list", group="g", version="v", resource="r", subresource="s", name="n", namespace="ns"
    )
    path = access_service_pb2.NonResourceAttributes(verb="get", path="/metrics")
    first = await stub.Authorize(access_service_pb2.AuthorizeRequest(user=BOB_MESSAGE, resource=resource), timeout=5)
    second = await stub.Authorize(access_service_pb2.AuthorizeRequest(user=BOB_MESSAGE, non_resource=path), timeout=5)
    assert (first.allowed, second.allowed, second.reason) == (True, False, "as told")
    assert services.authorizer.asked == [
        (
            BOB,
            ResourceAttributes(
                verb="list", group="g", version="v", resource="r", subresource="s", name="n", namespace="ns"
            ),
        ),
        (BOB, NonResourceAttributes(verb="get", path="/metrics")),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        access_service_pb2.AuthorizeRequest(user=BOB_MESSAGE),
        access_service_pb2.AuthorizeRequest(resource=access_service_pb2.ResourceAttributes(verb="get")),
    ],
    ids=["no attributes", "no user"],
)
async def test_an_incomplete_question_is_invalid(
    stub: access_service_pb2_grpc.AccessServiceStub, request_: access_service_pb2.AuthorizeRequest
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Authorize(request_, timeout=5)
    assert CoreError.from_rpc_error(caught.value).reason == "INVALID_REQUEST"


async def test_readiness_tells_each_condition(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub
) -> None:
    services.conditions = (Condition(name="cluster-secrets", ready=False, detail="waiting"),)
    answer = await stub.GetReadiness(access_service_pb2.GetReadinessRequest(), timeout=5)
    assert list(answer.conditions) == [
        access_service_pb2.Condition(name="cluster-secrets", ready=False, detail="waiting")
    ]
