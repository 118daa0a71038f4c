"""What the hub is asked before a request reaches a cluster, however the request is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.scripted_cluster import Receive, ScriptedCluster, Send

from cluster_gateway_client import CoreError
from cluster_gateway_core.routing.request_info import parse_request_info
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead

if TYPE_CHECKING:
    from tests.support.routing_core import RoutingCore

    from cluster_gateway_client import CoreClient

_OK = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))


async def ask(client: CoreClient, head: RequestHead) -> int:
    """Send a request without a body; returns the answer's status."""
    async with client.exchange() as exchange:
        await exchange.start(head, end=True)
        return (await exchange.receive()).head.status


@pytest.mark.parametrize(
    ("method", "verb"),
    [
        ("GET", "get"),
        ("HEAD", "get"),
        ("POST", "create"),
        ("PUT", "update"),
        ("PATCH", "patch"),
        ("DELETE", "delete"),
        ("OPTIONS", ""),
    ],
)
async def test_the_hub_is_asked_for_the_verb_of_the_method(
    core: RoutingCore, client: CoreClient, method: str, verb: str
) -> None:
    """RI-4: a method without a verb is asked with the empty one, which no rule but "*" allows."""
    core.authorizer.denied = {verb}
    with pytest.raises(CoreError) as refused:
        await ask(client, RequestHead(cluster_name="managed1", method=method, target=b"/api/v1/pods"))
    assert refused.value.reason == "ACCESS_DENIED"
    assert core.authorizer.asked == [(verb, "proxy", "managed1")]


@pytest.mark.parametrize(
    "name",
    [
        *("managed", "managed11", "Managed1", "MANAGED1", "managed1 ", " managed1", "managed1.", "managed1\0"),
        *("managed1%00", "managed1/../managed2", "%6danaged1", "managed1\n", "*", ".", "man\u0430ged1"),
    ],
)
async def test_a_name_is_asked_about_and_looked_up_letter_by_letter(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient, name: str
) -> None:
    """A right on one cluster is none on a cluster whose name looks like it; nothing is cut, folded or decoded."""
    with pytest.raises(CoreError) as refused:
        await ask(client, RequestHead(cluster_name=name, method="GET", target=b"/api"))
    assert refused.value.reason in ("CLUSTER_NOT_FOUND", "INVALID_REQUEST")
    assert {asked for _, _, asked in core.authorizer.asked} <= {name}
    assert cluster.connections == []


async def test_a_name_that_may_not_be_reached_is_not_told_whether_it_exists(
    core: RoutingCore, client: CoreClient
) -> None:
    core.authorizer.denied = {"get"}
    refusals = []
    for name in ("managed1", "managed2"):
        with pytest.raises(CoreError) as refused:
            await ask(client, RequestHead(cluster_name=name, method="GET", target=b"/api"))
        refusals.append((refused.value.reason, refused.value.message.replace(name, ""), refused.value.hint))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(
    ("query", "verb"),
    [
        (b"watch=false&watch=true", "list"),
        (b"watch=true&watch=false", "watch"),
        (b"limit=1;watch=true", "list"),
        (b"watch=%zz", "list"),
        (b"x=%zz&watch=1", "watch"),
        (b"%77atch=1", "watch"),
    ],
)
async def test_a_query_is_read_as_the_cluster_reads_it_and_forwarded_as_it_was(
    cluster: ScriptedCluster, client: CoreClient, query: bytes, verb: str
) -> None:
    """RI-2, RI-6: the first of repeated values counts, and a pair that Go cannot read counts for nobody."""
    cluster.script(_OK)
    target = b"/api/v1/pods?" + query
    assert parse_request_info("GET", target.decode()).verb == verb
    assert await ask(client, RequestHead(cluster_name="managed1", method="GET", target=target)) == 200
    assert cluster.connections[0].received.startswith(b"GET %b HTTP/1.1\r\n" % target)


@pytest.mark.parametrize(
    "query",
    [
        b"&".join(b"a=%d" % number for number in range(20_000)),
        b"a=\0",
        b"a=b\r\nX-Remote-User:%20root",
        b"a=b#c",
        b"a b",
    ],
    ids=["20,000 parameters", "zero byte", "line break", "fragment", "space"],
)
async def test_a_query_in_which_something_could_hide_is_refused(
    cluster: ScriptedCluster, client: CoreClient, query: bytes
) -> None:
    with pytest.raises(CoreError) as refused:
        await ask(client, RequestHead(cluster_name="managed1", method="GET", target=b"/api/v1/pods?" + query))
    assert refused.value.reason == "INVALID_REQUEST"
    assert cluster.connections == []


@pytest.mark.parametrize(
    "name",
    [
        *("X-Remote-User", "X_Remote_User", "X-Remote_Group", "x-REMOTE-extra-Scope", "X-Remote-Uid"),
        *("Authorization", "AUTHORIZATION", "Proxy-Authorization", "Cookie", "X-Remote-User ", "X-Remote-User\t"),
    ],
)
async def test_no_spelling_of_an_identity_header_reaches_a_cluster(
    cluster: ScriptedCluster, client: CoreClient, name: str
) -> None:
    """RH-12, RH-13: whoever is known by a header or a token, the cluster sees neither."""
    cluster.script(_OK)
    headers = [Header(name=b"A", value=b"kept"), Header(name=name.encode(), value=b"canary")]
    head = RequestHead(cluster_name="managed1", method="GET", target=b"/api", headers=headers)
    assert await ask(client, head) == 200
    received = bytes(cluster.connections[0].received)
    assert b"\r\nA: kept\r\n" in received
    assert b"canary" not in received
