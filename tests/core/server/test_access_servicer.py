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
    assert good.believed_for.ToMilliseconds() == 2500
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


def impersonation(*headers: tuple[bytes, bytes]) -> access_service_pb2.ImpersonateRequest:
    named = [access_service_pb2.ImpersonationHeader(name=name, value=value) for name, value in headers]
    return access_service_pb2.ImpersonateRequest(user=BOB_MESSAGE, headers=named)


async def test_impersonation_is_authorized_piece_by_piece_as_its_caller(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub
) -> None:
    """IM-13."""
    request = impersonation(
        (b"Impersonate-User", b"tony"), (b"Impersonate-Group", b"dev"), (b"Impersonate-Extra-scopes", b"a")
    )
    answer = await stub.Impersonate(request, timeout=5)
    assert answer.user == user_info_pb2.UserInfo(
        username="tony",
        groups=["dev", "system:authenticated"],
        extra={"scopes": user_info_pb2.ExtraValues(values=["a"])},
    )
    assert {user for user, _ in services.authorizer.asked} == {BOB}
    assert [
        (attributes.verb, attributes.resource, attributes.subresource, attributes.name)
        for _, attributes in services.authorizer.asked
        if isinstance(attributes, ResourceAttributes)
    ] == [
        ("impersonate", "users", "", "tony"),
        ("impersonate", "groups", "", "dev"),
        ("impersonate", "userextras", "scopes", "a"),
    ]


@pytest.mark.parametrize(
    ("denied", "reviews"),
    [("tony", 1), ("dev", 2), ("first", 3), ("second", 4), ("4711", 5)],
    ids=["IM-2 user", "IM-4 group", "IM-4 extra", "IM-4 second value of an extra", "IM-4 uid"],
)
async def test_one_denied_piece_denies_all_and_ends_the_reviews(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub, denied: str, reviews: int
) -> None:
    services.authorizer.denied_names.add(denied)
    request = impersonation(
        (b"Impersonate-User", b"tony"),
        (b"Impersonate-Group", b"dev"),
        (b"Impersonate-Uid", b"4711"),
        (b"Impersonate-Extra-scopes", b"first"),
        (b"Impersonate-Extra-scopes", b"second"),
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Impersonate(request, timeout=5)
    error = CoreError.from_rpc_error(refused.value)
    assert error.reason == "ACCESS_DENIED"
    assert f'"{denied}" is forbidden' in error.message
    assert len(services.authorizer.asked) == reviews


async def test_an_account_does_not_stand_for_a_user(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub
) -> None:
    """IM-9."""
    account = impersonation((b"Impersonate-User", b"system:serviceaccount:ns:builder"))
    assert (await stub.Impersonate(account, timeout=5)).user.username == "system:serviceaccount:ns:builder"
    (asked,) = services.authorizer.asked
    assert asked[1] == ResourceAttributes(
        verb="impersonate", group="", version="v1", resource="serviceaccounts", namespace="ns", name="builder"
    )


async def test_impersonation_headers_that_break_a_rule_cost_no_review(
    services: CoreServices, stub: access_service_pb2_grpc.AccessServiceStub
) -> None:
    """IM-15."""
    many = [(b"Impersonate-Group", b"g%d" % number) for number in range(2000)]
    for headers in ([(b"Impersonate-Foo", b"x")], [(b"Impersonate-User", b"tony"), *many]):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Impersonate(impersonation(*headers), timeout=5)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert services.authorizer.asked == []
