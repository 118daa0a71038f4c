"""Who a request is for: callers that act as somebody else, through the hub and straight at the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.support.gateway import GROUP, NAMESPACE, RESOURCE_PATH, proxy_path
from tests.support.split_gateway import run_core

from cluster_gateway_client import CoreClient, CoreError

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage

    from cluster_gateway.control_planes import KeyPair

_PODS = "/api/v1/namespaces/default/pods"
_LEADER = "identity-leader"
_MEMBER = "identity-member"
_BUILDER = f"system:serviceaccount:{NAMESPACE}:identity-builder"


@pytest.fixture(scope="module")
async def rights(stage: Stage, gateway: Gateway) -> None:
    """The leader may act as the member and a few more things; only the member and the builder may use managed1."""
    proxied: dict[str, Any] = {"apiGroups": [GROUP], "resources": ["clustergateways/proxy"], "verbs": ["get"]}
    seen: dict[str, Any] = {"apiGroups": [GROUP], "resources": ["clustergateways"], "verbs": ["get", "list"]}
    named = {"resourceNames": ["managed1"]}
    await stage.grant("e2e-identity-use", [proxied | named, seen], _MEMBER, _BUILDER)
    impersonate: dict[str, Any] = {"verbs": ["impersonate"]}
    rules = [
        impersonate | {"apiGroups": [""], "resources": ["users"], "resourceNames": [_MEMBER]},
        impersonate | {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["identity-team"]},
        impersonate | {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["identity-builder"]},
        impersonate
        | {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "resourceNames": ["view"]},
        impersonate | {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "resourceNames": ["4711"]},
    ]
    await stage.grant("e2e-identity-impersonate", rules, _LEADER)


@pytest.fixture(scope="module")
def leader(stage: Stage) -> KeyPair:
    """Client certificate of somebody who has no right of its own in a cluster."""
    return stage.hub.issue_client_certificate(_LEADER)


def acting_as(user: str, **pieces: str) -> dict[str, str]:
    return {"Impersonate-User": user} | {
        f"Impersonate-{name.replace('_', '-')}": value for name, value in pieces.items()
    }


async def test_a_straight_caller_acts_as_a_user_of_the_hub(
    stage: Stage, gateway: Gateway, rights: None, leader: KeyPair
) -> None:
    """IM-5, IM-13, IM-14: on a proxied path, on the gateway's own objects and on documents."""
    whole = acting_as(_MEMBER, Group="identity-team", Extra_scopes="view", Uid="4711")
    for headers in (acting_as(_MEMBER), whole, acting_as(_BUILDER)):
        for target in (proxy_path("managed1", _PODS), RESOURCE_PATH, f"{RESOURCE_PATH}/managed1", "/apis"):
            answer = await stage.ask_gateway(gateway, target, user=leader, headers=headers)
            assert answer.status == 200, (headers, target, answer)
    for target in (proxy_path("managed1", _PODS), RESOURCE_PATH):
        own = await stage.ask_gateway(gateway, target, user=leader)
        assert f'"{_LEADER}"' in own.status_object(403, "Forbidden")["message"]
    elsewhere = await stage.ask_gateway(gateway, proxy_path("managed2", _PODS), user=leader, headers=acting_as(_MEMBER))
    assert f'User "{_MEMBER}" cannot get' in elsewhere.status_object(403, "Forbidden")["message"]


@pytest.mark.parametrize(
    ("headers", "resource"),
    [
        (acting_as("kubernetes-admin"), "users"),
        (acting_as(_MEMBER, Group="system:masters"), "groups"),
        (acting_as(_MEMBER, Uid="1"), "uids"),
        (acting_as(_MEMBER, Extra_scopes="edit"), "userextras/scopes"),
        (acting_as(_MEMBER, Extra_other="view"), "userextras/other"),
        (acting_as("system:serviceaccount:kube-system:default"), "serviceaccounts"),
    ],
)
async def test_the_hub_refuses_a_piece_that_was_not_granted(
    stage: Stage, gateway: Gateway, rights: None, leader: KeyPair, headers: dict[str, str], resource: str
) -> None:
    """IM-4, IM-9: straight at the gateway as at the hub itself."""
    for target in (proxy_path("managed1", _PODS), RESOURCE_PATH, "/apis"):
        refused = await stage.ask_gateway(gateway, target, user=leader, headers=headers)
        message = refused.status_object(403, "Forbidden")["message"]
        assert f'User "{_LEADER}" cannot impersonate resource "{resource}"' in message
    through_hub = await stage.ask_hub(RESOURCE_PATH, user=leader, headers=headers)
    assert f'User "{_LEADER}" cannot impersonate' in through_hub.status_object(403, "Forbidden")["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Impersonate-Group": "identity-team"},
        {"Impersonate-Foo": "x"} | acting_as(_MEMBER),
        {"Impersonate_User": _MEMBER},
        {"Impersonate-User": ""},
    ],
    ids=["IM-3", "IM-15 unknown", "IM-15 underscore", "IM-15 empty"],
)
async def test_headers_that_break_a_rule_are_refused_on_every_path(
    stage: Stage, gateway: Gateway, rights: None, leader: KeyPair, headers: dict[str, str]
) -> None:
    for target in (proxy_path("managed1", _PODS), RESOURCE_PATH, "/apis"):
        refused = await stage.ask_gateway(gateway, target, user=leader, headers=headers)
        assert "impersonation" in refused.status_object(400, "BadRequest")["message"]


async def test_through_the_hub_as_is_the_hub_s_own_business(
    stage: Stage, gateway: Gateway, rights: None, leader: KeyPair
) -> None:
    kubectl = stage.kubectl("managed1", user=leader)
    assert "pod1" in await kubectl.ok("get", "pods", f"--as={_MEMBER}")
    refused = await kubectl("get", "pods")
    assert refused.exit_code == 1
    refused = await kubectl("get", "pods", "--as=kubernetes-admin")
    assert f'User "{_LEADER}" cannot impersonate' in refused.stderr


async def test_kubectl_straight_at_the_gateway_may_say_as(
    stage: Stage, gateway: Gateway, rights: None, leader: KeyPair
) -> None:
    kubectl = stage.kubectl_at(gateway.url + proxy_path("managed1"), gateway.ca_path, leader)
    assert "pod1" in await kubectl.ok("get", "pods", f"--as={_MEMBER}", "--as-group=identity-team")
    refused = await kubectl("get", "pods", f"--as={_MEMBER}", "--as-group=others")
    assert 'cannot impersonate resource "groups"' in refused.stderr


async def test_a_service_that_speaks_grpc_acts_as_a_user_of_the_hub(
    stage: Stage, gateway: Gateway, rights: None, leader: KeyPair
) -> None:
    async with run_core(stage) as core, CoreClient(core.endpoint(leader, _LEADER)) as client:
        headers = list(acting_as(_MEMBER, Group="identity-team").items())
        async with client.request("managed1", "GET", _PODS, headers=headers) as response:
            assert response.status == 200
        for refused, reason in (
            (acting_as("kubernetes-admin"), "ACCESS_DENIED"),
            (acting_as(_MEMBER, Foo="x"), "INVALID_REQUEST"),
            ({}, "ACCESS_DENIED"),
        ):
            with pytest.raises(CoreError) as caught:
                async with client.request("managed1", "GET", _PODS, headers=list(refused.items())):
                    pass
            assert caught.value.reason == reason
