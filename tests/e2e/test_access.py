"""Who may reach which cluster: the hub's RBAC on clustergateways/proxy, for people who are no administrators."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway import GROUP, RESOURCE_PATH, proxy_path

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

    from cluster_gateway.control_planes import KeyPair

_PODS = "/api/v1/namespaces/default/pods"


def proxy_rule(*verbs: str, names: tuple[str, ...] = ()) -> dict[str, object]:
    rule: dict[str, object] = {
        "apiGroups": [GROUP],
        "resources": ["clustergateways/proxy"],
        "verbs": list(verbs),
    }
    return rule | ({"resourceNames": list(names)} if names else {})


@pytest.fixture(scope="module")
async def tenant(stage: Stage, gateway: Gateway) -> KeyPair:
    """A user who may do everything in managed1 and nothing elsewhere."""
    verbs = ("get", "create", "update", "patch", "delete")
    await stage.grant("e2e-tenant", [proxy_rule(*verbs, names=("managed1",))], "tenant")
    return stage.hub.issue_client_certificate("tenant", ["tenants"])


@pytest.fixture(scope="module")
async def reader(stage: Stage, gateway: Gateway) -> KeyPair:
    """A user who may read in every cluster."""
    await stage.grant("e2e-reader", [proxy_rule("get")], "reader")
    return stage.hub.issue_client_certificate("reader")


async def test_a_tenant_works_in_his_cluster(stage: Stage, tenant: KeyPair) -> None:
    kubectl = stage.kubectl("managed1", user=tenant)
    assert await kubectl.ok("exec", "pod1", "-c", "main", "--", "echo", "hello") == "hello\n"
    await kubectl.ok("create", "configmap", "tenants")
    await kubectl.ok("delete", "configmap", "tenants")


async def test_a_tenant_is_refused_alike_for_another_cluster_and_an_unknown_one(stage: Stage, tenant: KeyPair) -> None:
    """Nobody learns by trying which clusters exist (SAR)."""
    messages = []
    for name in ("managed2", "unknown1"):
        answer = await stage.ask_hub(proxy_path(name, _PODS), user=tenant)
        status = answer.status_object(403, "Forbidden")
        assert status["details"] == {"group": GROUP, "kind": "clustergateways", "name": name}
        messages.append(status["message"].replace(name, "NAME"))
    assert messages[0] == messages[1]
    assert 'User "tenant" cannot get resource "clustergateways/proxy"' in messages[0]


async def test_a_similar_name_is_another_cluster(stage: Stage, tenant: KeyPair) -> None:
    for name in ("managed", "managed11", "Managed1", "managed1%2F", "managed1%00"):
        answer = await stage.ask_hub(proxy_path(name, _PODS), user=tenant)
        assert answer.status in {400, 403, 404}, (name, answer)
        assert answer.json()["kind"] == "Status"


async def test_a_tenant_is_refused_alike_at_the_gateway_itself(stage: Stage, gateway: Gateway, tenant: KeyPair) -> None:
    """Without the hub in front, so that it is the core that decides."""
    allowed = await stage.ask_gateway(gateway, proxy_path("managed1", _PODS), user=tenant)
    assert (allowed.status, allowed.json()["kind"]) == (200, "PodList")
    messages = []
    for name in ("managed2", "unknown1"):
        answer = await stage.ask_gateway(gateway, proxy_path(name, _PODS), user=tenant)
        messages.append(answer.status_object(403, "Forbidden")["message"].replace(name, "NAME"))
    assert messages[0] == messages[1]


async def test_a_reader_lists_but_does_not_change(stage: Stage, reader: KeyPair) -> None:
    for name in stage.managed:
        kubectl = stage.kubectl(name, user=reader)
        assert "pod1" in await kubectl.ok("get", "pods")
        for arguments in (
            ("create", "configmap", "x"),
            ("delete", "pod", "pod1"),
            ("label", "pod", "pod1", "a=b"),
        ):
            refused = await kubectl(*arguments)
            assert refused.exit_code == 1
            assert "Forbidden" in refused.stderr or "forbidden" in refused.stderr, refused.stderr


@pytest.mark.parametrize("websockets", ["true", "false"])
@pytest.mark.parametrize("arguments", [("exec", "pod1", "-c", "main", "--", "true"), ("attach", "pod1", "-c", "main")])
async def test_a_reader_does_not_exec(
    stage: Stage, reader: KeyPair, websockets: str, arguments: tuple[str, ...]
) -> None:
    """A WebSocket exec is a GET, and still needs `create` (kubernetes issue 78741)."""
    kubectl = stage.kubectl("managed1", user=reader)
    refused = await kubectl(*arguments, environment={"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets})
    assert refused.exit_code == 1
    assert "orbidden" in refused.stderr, refused.stderr


async def test_a_reader_does_not_upgrade_at_the_gateway_itself(stage: Stage, gateway: Gateway, reader: KeyPair) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    target = proxy_path("managed1", f"{_PODS}/pod1/exec?command=true&container=main&stdout=true")
    answer = await stage.ask_gateway(gateway, target, user=reader, headers=headers)
    status = answer.status_object(403, "Forbidden")
    assert "create" in status["message"]


async def test_a_user_without_rights_sees_no_clusters(stage: Stage, gateway: Gateway) -> None:
    nobody = stage.hub.issue_client_certificate("nobody")
    for target in (RESOURCE_PATH, f"{RESOURCE_PATH}/managed1", proxy_path("managed1", _PODS)):
        assert (await stage.ask_hub(target, user=nobody)).status_object(403, "Forbidden")
        assert (await stage.ask_gateway(gateway, target, user=nobody)).status_object(403, "Forbidden")


async def test_a_hub_user_is_unknown_to_the_cluster(stage: Stage, reader: KeyPair) -> None:
    """The caller's identity stays on the hub: the cluster sees the gateway's."""
    log = stage.managed["managed1"].audit_log
    before = len(log.read_text().splitlines())
    answer = await stage.ask_hub(proxy_path("managed1", _PODS), user=reader)
    assert answer.status == 200
    events = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    users = {event["user"]["username"] for event in events}
    assert "cluster-gateway" in users
    assert not users & {"reader", "tenant"}
    assert not any("impersonatedUser" in event for event in events)


async def test_hub_discovery_shows_the_resource_to_everybody(stage: Stage, admin: Kubectl) -> None:
    assert "clustergateways" in await admin.ok("api-resources", f"--api-group={GROUP}", "-o", "name")
    nobody = stage.kubectl(user=stage.hub.issue_client_certificate("nobody"))
    listed = (await nobody.ok("api-resources", f"--api-group={GROUP}", "--no-headers")).split()
    assert listed[:1] == ["clustergateways"]
    assert "ClusterGateway" in listed
