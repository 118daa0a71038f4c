"""Who a request is for: callers that act as somebody else, and clusters that are told who is asking.

The second half runs a gateway of its own with the gate on, and has the hub send its requests there.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.gateway import GROUP, NAMESPACE, RESOURCE_PATH, SECRET_NAMESPACE, SERVICE, proxy_path
from tests.support.scripted_cluster import Hold, Receive, ScriptedCluster, Send
from tests.support.split_gateway import run_core

from cluster_gateway.control_planes import register_gateway, wait_available, wait_until
from cluster_gateway_client import CoreClient, CoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

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


_ANNOTATION = f"{GROUP}/cluster-gateway-proxy-configuration"
_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_SECONDS = 30.0


def exchange(*rules: dict[str, Any]) -> str:
    """A configuration with rules."""
    return json.dumps({"spec": {"clientIdentityExchanger": {"rules": rules}}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """A gateway that passes identities, with the hub before it.

    Attributes:
        gateway: The gateway.
        rules: Its file of identity rules.
        service: What a rule of type External asks.
    """

    gateway: Gateway
    rules: Path
    service: ScriptedCluster


@pytest.fixture(scope="module")
async def service(stage: Stage) -> AsyncIterator[ScriptedCluster]:
    """A service that names identities."""
    stage.authority.issue_server("identities", ["localhost"]).write(stage.directory, "identities")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stage.directory / "identities.crt", stage.directory / "identities.key")
    async with ScriptedCluster(tls=context) as service:
        yield service


@pytest.fixture(scope="module")
async def passing(stage: Stage, gateway: Gateway, rights: None, service: ScriptedCluster) -> AsyncIterator[Passing]:
    """The gateway with the gate on; users of the hub may use every cluster, one of them has rights in managed1."""
    use = {"apiGroups": [GROUP], "resources": ["clustergateways/proxy"], "verbs": ["get", "create", "delete"]}
    names = ("dev", "mapped", "sudoer", "external", "system:kube-scheduler")
    users = [name if ":" in name else f"identity-{name}" for name in names]
    await stage.grant("e2e-identity-passed", [use], *users, _MEMBER, _BUILDER)
    await grant_in_cluster(stage, "identity-dev", ["pods", "pods/exec"])
    rules = stage.directory / "identity-rules.yaml"
    rules.write_text(
        exchange(
            {
                "type": "StaticMappingIdentityExchanger",
                "source": {"userPattern": "identity-map.*"},
                "target": {"user": "mapped-user", "groups": ["mapped-group"], "uid": "m-1"},
            },
            {"type": "PrivilegedIdentityExchanger", "source": {"group": "identity-sudoers"}},
            {
                "name": "asked",
                "type": "ExternalIdentityExchanger",
                "source": {"user": "identity-external", "cluster": "managed1"},
                "url": f"https://localhost:{service.port}/",
            },
        )
    )
    flags = (
        "--feature-gates=ClientIdentityPenetration=true",
        f"--cluster-gateway-proxy-config={rules}",
        f"--identity-exchanger-ca-file={stage.ca_path}",
        "--identity-exchanger-cache-ttl=0s",
    )
    async with stage.run_gateway(*flags) as passing:
        await route_hub(stage, passing, "kubernetes-admin")
        yield Passing(gateway=passing, rules=rules, service=service)
        await route_hub(stage, gateway, "cluster-gateway")


async def route_hub(stage: Stage, gateway: Gateway, administrator: str) -> None:
    """Have the hub send requests to a gateway, by which a cluster sees the hub's administrator so."""
    certificate = stage.authority.certificate
    await register_gateway(stage.hub, gateway.port, certificate, namespace=NAMESPACE, service_name=SERVICE)
    await wait_available(stage.hub)

    async def arrived() -> bool:
        answer = await stage.ask_hub(proxy_path("managed1", _REVIEW), method="POST", body=_self_review())
        return answer.status == 201 and answer.json()["status"]["userInfo"]["username"] == administrator

    await wait_until(arrived, what="the hub sends its requests there", timeout_seconds=_SECONDS)


def _self_review() -> dict[str, str]:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


async def grant_in_cluster(stage: Stage, user: str, resources: list[str]) -> None:
    """Let a user do everything with some resources of managed1, by that cluster's own RBAC."""
    api = "rbac.authorization.k8s.io"
    managed = stage.managed["managed1"]
    root = managed.issue_client_certificate("root", ["system:masters"])
    await stage.kubectl_at(managed.url, managed.ca_path, root).apply(
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": user},
            "rules": [{"apiGroups": [""], "resources": resources, "verbs": ["*"]}],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
        },
    )


async def who_am_i(kubectl: Kubectl, *arguments: str) -> tuple[str, list[str]]:
    """Name and groups by which a cluster knows somebody."""
    answer = json.loads(await kubectl.ok("auth", "whoami", "-o", "json", *arguments))
    user = answer["status"]["userInfo"]
    return user["username"], user["groups"]


async def test_a_cluster_sees_the_hub_s_user(stage: Stage, passing: Passing) -> None:
    """IO-1, IO-7: its RBAC and its audit log are about that user; the groups that the cluster adds come once."""
    user = stage.hub.issue_client_certificate("identity-dev", ["identity-devs"])
    kubectl = stage.kubectl("managed1", user=user)
    assert await who_am_i(kubectl) == ("identity-dev", ["identity-devs", "system:authenticated"])
    assert "pod1" in await kubectl.ok("get", "pods")
    refused = await kubectl("get", "secrets")
    assert 'User "identity-dev" cannot list resource "secrets"' in refused.stderr
    await kubectl.ok("get", "--raw", "/api/v1/namespaces/default/pods?canary=passed")
    lines = stage.managed["managed1"].audit_log.read_text().splitlines()
    (event,) = (event for line in lines if "canary=passed" in (event := json.loads(line))["requestURI"])
    assert event["user"]["username"] == "cluster-gateway"
    assert event["impersonatedUser"]["username"] == "identity-dev"
    assert event["impersonatedUser"]["groups"] == ["identity-devs", "system:authenticated"]


@pytest.mark.parametrize("websockets", ["true", "false"])
async def test_a_shell_is_opened_as_the_hub_s_user(stage: Stage, passing: Passing, websockets: str) -> None:
    """UP-6: an upgrade passes the identity too."""
    environment = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    command = ("exec", "pod1", "-c", "main", "--", "echo", "hello")
    known = stage.kubectl("managed1", user=stage.hub.issue_client_certificate("identity-dev"))
    assert await known.ok(*command, environment=environment) == "hello\n"
    other = stage.kubectl("managed1", user=stage.hub.issue_client_certificate(_BUILDER))
    refused = await other(*command, environment=environment)
    assert refused.exit_code == 1
    assert "orbidden" in refused.stderr


async def test_the_hub_s_administrators_are_none_in_a_cluster(stage: Stage, passing: Passing) -> None:
    kubectl = stage.kubectl("managed1")
    assert await who_am_i(kubectl) == ("kubernetes-admin", ["system:authenticated"])
    refused = await kubectl("get", "nodes")
    assert 'User "kubernetes-admin" cannot list resource "nodes"' in refused.stderr


async def test_a_service_account_of_the_hub_is_in_no_group_of_the_cluster_s(
    stage: Stage, passing: Passing, admin: Kubectl
) -> None:
    await admin.ok("create", "serviceaccount", "-n", NAMESPACE, "identity-builder")
    token = (await admin.ok("create", "token", "-n", NAMESPACE, "identity-builder")).strip()
    kubectl = stage.kubectl("managed1", user=token)
    assert await who_am_i(kubectl) == (_BUILDER, ["system:authenticated"])


async def test_rules_say_whom_a_cluster_sees(stage: Stage, passing: Passing) -> None:
    mapped = stage.kubectl("managed1", user=stage.hub.issue_client_certificate("identity-mapped", ["identity-devs"]))
    assert await who_am_i(mapped) == ("mapped-user", ["mapped-group", "system:authenticated"])
    sudoer = stage.hub.issue_client_certificate("identity-sudoer", ["identity-sudoers"])
    assert (await who_am_i(stage.kubectl("managed1", user=sudoer)))[0] == "cluster-gateway"


async def test_a_reserved_user_is_refused_with_the_reason(stage: Stage, passing: Passing) -> None:
    """IO-6."""
    user = stage.hub.issue_client_certificate("system:kube-scheduler")
    answer = await stage.ask_hub(proxy_path("managed1", _PODS), user=user)
    assert "a name that Kubernetes reserves" in answer.status_object(403, "Forbidden")["message"]


async def test_a_service_says_whom_a_cluster_sees_and_its_silence_is_no_answer(stage: Stage, passing: Passing) -> None:
    user = stage.hub.issue_client_certificate("identity-external")
    status = {"allowed": True, "user": {"username": "asked-user", "groups": ["asked-group"]}}
    review = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "ClientIdentityReview", "status": status}
    body = json.dumps(review).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    passing.service.script(
        (Receive(b'"spec"'), Send(head + body), Hold()),
        (Receive(b'"spec"'), Send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), Hold()),
    )
    answer = await stage.ask_hub(proxy_path("managed1", _REVIEW), user=user, method="POST", body=_self_review())
    assert answer.json()["status"]["userInfo"]["username"] == "asked-user"
    failed = await stage.ask_hub(proxy_path("managed1", _REVIEW), user=user, method="POST", body=_self_review())
    found = failed.status_object(503, "ServiceUnavailable")
    assert found["details"]["causes"][0]["reason"] == "IDENTITY_EXCHANGE_FAILED"
    assert b'"username":"identity-external"' in passing.service.connections[0].received


async def test_who_acts_as_another_is_seen_as_them(stage: Stage, passing: Passing, leader: KeyPair) -> None:
    """Through the hub, and straight at the gateway."""
    through_hub = stage.kubectl("managed1", user=leader)
    assert (await who_am_i(through_hub, f"--as={_MEMBER}"))[0] == _MEMBER
    headers = acting_as(_MEMBER, Group="identity-team", Uid="4711", Extra_scopes="view")
    target = proxy_path("managed1", _REVIEW)
    answer = await stage.ask_gateway(
        passing.gateway, target, user=leader, headers=headers, method="POST", body=_self_review()
    )
    seen = answer.json()["status"]["userInfo"]
    assert (seen["username"], seen["uid"], seen["extra"]) == (_MEMBER, "4711", {"scopes": ["view"]})
    assert seen["groups"] == ["identity-team", "system:authenticated"]


async def test_a_credential_that_may_not_impersonate_shows_the_cluster_s_own_refusal(
    stage: Stage, passing: Passing
) -> None:
    """IO-9."""
    managed = stage.managed["managed1"]
    pair = managed.issue_client_certificate("narrow")
    data = {"endpoint": managed.url.encode(), "ca.crt": managed.ca.certificate}
    data |= {"tls.crt": pair.certificate, "tls.key": pair.key}
    await stage.register("identity-narrow", data, credential="X509Certificate")
    try:
        await stage.wait_known("identity-narrow")
        user = stage.hub.issue_client_certificate("identity-dev")
        refused = await stage.ask_hub(proxy_path("identity-narrow", _PODS), user=user)
        message = refused.status_object(403, "Forbidden")["message"]
        assert 'User "narrow" cannot impersonate' in message
        assert "gateway" not in message
    finally:
        await stage.unregister("identity-narrow")


async def test_an_annotation_with_a_fault_closes_its_cluster_and_no_other(
    stage: Stage, passing: Passing, admin: Kubectl
) -> None:
    user = stage.hub.issue_client_certificate("identity-dev")
    secret = ("annotate", "secret", "-n", SECRET_NAMESPACE, "managed2", "--overwrite")

    async def annotate_until(rules: str, status: int) -> Any:
        await admin.ok(*secret, f"{_ANNOTATION}={rules}")
        answers = []

        async def so() -> bool:
            answers.append(
                await stage.ask_hub(proxy_path("managed2", _REVIEW), user=user, method="POST", body=_self_review())
            )
            return bool(answers[-1].status == status)

        await wait_until(so, what=f"managed2 answers {status}", timeout_seconds=_SECONDS)
        return answers[-1].json()

    try:
        closed = await annotate_until(
            exchange({"type": "PrivilegedIdentityExchanger", "source": {"userPattern": "("}}), 503
        )
        assert closed["details"]["causes"][0]["reason"] == "CLUSTER_MISCONFIGURED"
        assert "rules[0].source: userPattern: it is no regular expression of RE2" in closed["message"]
        other = await stage.ask_hub(proxy_path("managed1", _PODS), user=user)
        assert other.status == 200
        own = {
            "type": "StaticMappingIdentityExchanger",
            "source": {"userPattern": ".*"},
            "target": {"user": "own-rule"},
        }
        opened = await annotate_until(exchange(own), 201)
        assert opened["status"]["userInfo"]["username"] == "own-rule"
    finally:
        await admin.ok(*secret[:-1], f"{_ANNOTATION}-")


async def test_new_rules_come_into_force_and_broken_ones_do_not(stage: Stage, passing: Passing) -> None:
    user = stage.hub.issue_client_certificate("identity-mapped")

    async def seen() -> str:
        target = proxy_path("managed1", _REVIEW)
        answer = await stage.ask_hub(target, user=user, method="POST", body=_self_review())
        return str(answer.json()["status"]["userInfo"]["username"])

    before = passing.rules.read_text()
    passing.rules.write_text(before.replace("mapped-user", "renamed-user"))

    async def renamed() -> bool:
        return await seen() == "renamed-user"

    await wait_until(renamed, what="the new rules are in force", timeout_seconds=_SECONDS)
    passing.rules.write_text(before.replace("target", "taget"))

    async def told() -> bool:
        answer = await stage.ask_gateway(passing.gateway, "/readyz?verbose")
        return answer.status == 200 and b"identity-rules" in answer.body and b"last good ones" in answer.body

    await wait_until(told, what="the broken rules are told of", timeout_seconds=_SECONDS)
    assert await seen() == "renamed-user"
