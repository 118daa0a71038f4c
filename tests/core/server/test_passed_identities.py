"""Exchanges that tell the cluster who is asking: through gRPC, with a scripted cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.support.scripted_cluster import Hold, Receive, ScriptedCluster, Send

from cluster_gateway_client import CoreError
from cluster_gateway_core.model.identity import (
    External,
    IdentityRule,
    IdentitySource,
    PassThrough,
    Privileged,
    StaticMapping,
)
from cluster_gateway_core.model.user import UserInfo
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead

if TYPE_CHECKING:
    from tests.support.routing_core import RoutingCore

    from cluster_gateway_client import CoreClient
    from cluster_gateway_core.model.identity import Exchange

_OK = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
_CREDENTIAL = b"Authorization: Bearer s3cret\r\n"
_JANE = IdentitySource(user="jane")


@pytest.fixture
def served(served: tuple[RoutingCore, CoreClient]) -> tuple[RoutingCore, CoreClient]:
    """A core that passes identities always."""
    served[0].pass_identities()
    return served


def rule(exchange: Exchange, source: IdentitySource = _JANE) -> IdentityRule:
    return IdentityRule(name="ext", source=source, exchange=exchange)


async def send(client: CoreClient, *headers: tuple[str, str], target: str = "/api") -> int:
    async with client.request("managed1", "GET", target, headers=headers) as response:
        await response.read()
        return response.status


def told(cluster: ScriptedCluster) -> list[bytes]:
    """The header lines about identity that the cluster got on its first connection, in order."""
    head, _, _ = bytes(cluster.connections[0].received).partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if line.lower().startswith((b"impersonate", b"authorization"))]


async def test_the_cluster_is_told_who_asks_beside_the_gateway_s_credential(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient
) -> None:
    """IO-1, IO-3, IO-4: what the caller says of itself is acted upon or dropped, and never travels."""
    core.callers.user = UserInfo(username="jane", uid="7", groups=("dev", "system:masters"), extra=(("k/l", ("v",)),))
    cluster.script(_OK)
    assert await send(client, ("Authorization", "Bearer mine"), ("X-Remote-User", "admin")) == 200
    assert told(cluster) == [
        b"Authorization: Bearer s3cret",
        b"Impersonate-User: jane",
        b"Impersonate-Uid: 7",
        b"Impersonate-Group: dev",
        b"Impersonate-Extra-k%2Fl: v",
    ]


async def test_who_acts_as_somebody_else_is_seen_as_them(cluster: ScriptedCluster, client: CoreClient) -> None:
    """IO-3."""
    cluster.script(_OK)
    assert await send(client, ("Impersonate-User", "tony"), ("Impersonate-Group", "ops")) == 200
    assert told(cluster)[1:] == [b"Impersonate-User: tony", b"Impersonate-Group: ops"]


async def test_a_caller_cannot_have_the_next_hop_drop_who_it_is(cluster: ScriptedCluster, client: CoreClient) -> None:
    """Rancher CVE-2021-31999: our Connection header is our own."""
    cluster.script(_OK)
    assert await send(client, ("Connection", "close, Impersonate-User, Authorization")) == 200
    assert told(cluster) == [b"Authorization: Bearer s3cret", b"Impersonate-User: jane"]
    assert b"onnection:" not in cluster.connections[0].received


async def test_an_upgrade_tells_the_same(cluster: ScriptedCluster, client: CoreClient) -> None:
    """UP-6."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    cluster.script((Receive(b"\r\n\r\n"), Send(switch), Hold()))
    async with client.exchange() as exchange:
        await exchange.start(
            RequestHead(cluster_name="managed1", method="GET", target=b"/exec", upgrade="websocket"), end=False
        )
        assert (await exchange.receive()).head.status == 101
    assert told(cluster) == [b"Authorization: Bearer s3cret", b"Impersonate-User: jane"]


async def test_a_request_that_is_sent_again_tells_the_same(cluster: ScriptedCluster, client: CoreClient) -> None:
    """On a kept connection that turns out dead."""
    cluster.script(_OK, _OK)
    assert await send(client) == 200
    await cluster.connections[0].stop()
    assert await send(client) == 200
    assert b"Impersonate-User: jane\r\n" in cluster.connections[1].received


@pytest.mark.parametrize(
    ("own", "general", "expected"),
    [
        (Privileged(), StaticMapping(user="g"), []),
        (None, Privileged(), []),
        (StaticMapping(user="o", groups=("x",), uid="1"), Privileged(), [b"User: o", b"Uid: 1", b"Group: x"]),
        (None, StaticMapping(user="g"), [b"User: g"]),
        (PassThrough(), Privileged(), [b"User: jane"]),
        (None, External(url="https://who"), [b"User: bob"]),
    ],
)
async def test_rules_decide_and_the_cluster_s_own_come_first(
    cluster: ScriptedCluster,
    core: RoutingCore,
    client: CoreClient,
    own: Exchange | None,
    general: Exchange,
    expected: list[bytes],
) -> None:
    assert core.clusters.cluster is not None
    core.clusters.cluster = replace(core.clusters.cluster, identity_rules=(rule(own),) if own else ())
    core.passing.rules = (rule(general),)
    core.passing.users["https://who"] = UserInfo(username="bob")
    cluster.script(_OK)
    assert await send(client) == 200
    assert [line.removeprefix(b"Impersonate-") for line in told(cluster)[1:]] == expected


async def test_rules_that_change_count_from_the_next_request_on(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient
) -> None:
    cluster.script((*_OK, *_OK))
    assert core.clusters.cluster is not None
    for user in ("a", "b"):
        mapping = rule(StaticMapping(user=user))
        core.clusters.cluster = replace(core.clusters.cluster, identity_rules=(mapping,))
        assert await send(client) == 200
    assert len(cluster.connections) == 1
    assert told(cluster) == [b"Authorization: Bearer s3cret", b"Impersonate-User: a"]
    assert b"Impersonate-User: b\r\n" in cluster.connections[0].received


async def test_an_identity_that_cannot_be_told_is_refused_and_nothing_is_sent(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient
) -> None:
    """IO-6."""
    for user in (
        UserInfo(username="system:kube-scheduler"),
        UserInfo(username="jane", extra=(("Scopes", ("x",)),)),
        UserInfo(username="jane", extra=(("example.k8s.io/x", ("x",)),)),
        UserInfo(username="jane", uid="1\n2"),
    ):
        core.callers.user = user
        with pytest.raises(CoreError) as refused:
            await send(client)
        assert (refused.value.reason, refused.value.hop) == ("ACCESS_DENIED", "CORE")
        assert "identity is not passed" in refused.value.message
    assert cluster.connections == []


async def test_leftovers_of_the_caller_s_fail_the_request(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IO-5: were they not removed, nothing would be sent."""
    monkeypatch.setattr("cluster_gateway_core.server.routing_servicer.forwarded_headers", lambda headers, _: headers)
    for name in (
        b"Impersonate-User",
        b"Impersonate-Group",
        b"Impersonate-Extra-x",
        b"Impersonate-Foo",
        b"Authorization",
    ):
        head = RequestHead(
            cluster_name="managed1", method="GET", target=b"/api", headers=[Header(name=name, value=b"x")]
        )
        async with client.exchange() as exchange:
            await exchange.start(head, end=True)
            with pytest.raises(CoreError) as failed:
                await exchange.receive()
        assert failed.value.reason == "INTERNAL"
    assert cluster.connections == []


async def test_a_cluster_s_refusal_of_the_impersonation_is_relayed(
    cluster: ScriptedCluster, client: CoreClient
) -> None:
    """IO-9."""
    body = b'{"kind":"Status","code":403,"message":"users \\"jane\\" is forbidden"}'
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    cluster.script((Receive(b"\r\n\r\n"), Send(head + body)))
    async with client.request("managed1", "GET", "/api") as response:
        assert (response.status, await response.read()) == (403, body)


async def test_without_the_gate_a_request_tells_when_it_asks_for_it(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient
) -> None:
    core.pass_identities(always=False)
    cluster.script((*_OK, *_OK))
    assert await send(client) == 200
    assert told(cluster) == [b"Authorization: Bearer s3cret"]
    assert await send(client, target="/api?impersonate=true") == 200
    received = bytes(cluster.connections[0].received)
    assert b"GET /api?impersonate=true HTTP/1.1\r\n" in received
    assert b"Impersonate-User: jane\r\n" in received


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "x-forwarded-PROTO", "X_Forwarded_Host"])
async def test_where_a_request_came_from_is_said_by_the_gateway_alone(
    cluster: ScriptedCluster, client: CoreClient, name: str
) -> None:
    """IO-10: replaced, not extended."""
    cluster.script(_OK)
    async with client.exchange() as exchange:
        head = RequestHead(cluster_name="managed1", method="GET", target=b"/api", forwarded_for="10.0.0.1")
        head.headers.add(name=name.encode(), value=b"canary")
        await exchange.start(head, end=True)
        await exchange.receive()
    received = bytes(cluster.connections[0].received)
    assert b"X-Forwarded-For: 10.0.0.1\r\n" in received
    assert b"canary" not in received
    assert received.lower().count(b"forwarded") == 1
