"""What an HTTP caller sees of the core's bounds, and that the callers of other clusters see nothing of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.running_facade import ALICE
from tests.support.scripted_cluster import Hold, Receive, ScriptedCluster, Send
from tests.support.upstreams import make_cluster

from cluster_gateway_core.settings import InFlightLimit, LimitSettings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.raw_client import RawResponse

pytestmark = pytest.mark.asyncio(loop_scope="module")

_OK = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
_ALICE = "\r\n".join(ALICE)
_PODS = "/api/v1/pods"
_WATCH = "/api/v1/pods?watch=1"
_EVENT = b'{"type":"ADDED"}\n'
_WATCHING = (
    Receive(b"\r\n\r\n"),
    Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"),
    Send(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)),
    Hold(),
)


async def get(pair: GatewayPair, target: str = _PODS, cluster: str = "managed1") -> RawResponse:
    async with pair.facade.as_front_proxy() as client:
        return await client.get(pair.path(target, cluster), *ALICE)


async def test_over_a_bound_the_answer_is_429_with_retry_after_and_other_clusters_are_served(tmp_path: Path) -> None:
    """GS-6."""
    room = InFlightLimit(total=100, per_cluster=2, per_user=100)  # of which one user gets one
    async with ScriptedCluster((Receive(b"\r\n\r\n"), Hold())) as hanging, ScriptedCluster(_OK) as healthy:
        clusters = (make_cluster(hanging.address), make_cluster(healthy.address, name="managed2"))
        async with (
            gateway_pair(tmp_path, *clusters, limits=LimitSettings(short=room, long_running=room)) as pair,
            pair.facade.as_front_proxy() as first,
        ):
            await first.send(f"GET {pair.path(_PODS)} HTTP/1.1\r\nHost: gateway\r\n{_ALICE}\r\n\r\n".encode())
            await (await hanging.connection(0)).wait_for_bytes(b"\r\n\r\n")

            refused = await get(pair)

            status = refused.json()
            assert (refused.status, refused.values("Retry-After")) == (429, ["1"])
            assert (status["reason"], status["code"]) == ("TooManyRequests", 429)
            assert status["details"]["name"] == "managed1"
            assert status["details"]["causes"][0]["reason"] == "OVERLOADED"
            assert "requests to cluster managed1" in status["message"]
            assert len(hanging.connections) == 1
            assert (await get(pair, cluster="managed2")).body == b"ok"


async def test_watches_leave_the_room_of_short_requests_alone(tmp_path: Path) -> None:
    """GS-5, GS-6."""
    room = InFlightLimit(total=100, per_cluster=2, per_user=100)
    async with (
        ScriptedCluster(_WATCHING, _OK) as cluster,
        gateway_pair(
            tmp_path, make_cluster(cluster.address), limits=LimitSettings(short=room, long_running=room)
        ) as pair,
        pair.facade.as_front_proxy() as watching,
    ):
        await watching.send(f"GET {pair.path(_WATCH)} HTTP/1.1\r\nHost: gateway\r\n{_ALICE}\r\n\r\n".encode())
        assert (await watching.head())[0] == 200
        assert (await get(pair, _WATCH)).status == 429
        assert (await get(pair)).body == b"ok"


async def test_a_cluster_that_cannot_be_reached_is_answered_for_at_once_and_others_are_served(tmp_path: Path) -> None:
    """The delay stands in the details alone: client-go would ask ten times for a Retry-After header."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with ScriptedCluster(_OK) as healthy:
        clusters = (make_cluster(f"https://127.0.0.1:{port}"), make_cluster(healthy.address, name="managed2"))
        limits = {"breaker_failures": 2, "breaker_seconds": 60}
        async with gateway_pair(tmp_path, *clusters, upstream=limits) as pair:
            for _ in range(2):
                assert "not tried" not in (await get(pair)).json()["message"]

            refused = await get(pair)

            status = refused.json()
            assert (refused.status, refused.values("Retry-After")) == (503, [])
            assert f"dial tcp 127.0.0.1:{port}: not tried" in status["message"]
            assert "connection refused" in status["message"]
            assert 50 < status["details"]["retryAfterSeconds"] <= 60
            assert status["details"]["causes"][0]["reason"] == "CLUSTER_UNREACHABLE"
            assert (await get(pair, cluster="managed2")).body == b"ok"


async def test_an_endpoint_that_leads_to_a_metadata_service_is_refused_with_the_rule_alone(tmp_path: Path) -> None:
    async with gateway_pair(tmp_path, make_cluster("http://2852039166/latest/meta-data")) as pair:
        refused = await get(pair)
    status = refused.json()
    assert refused.status == 503
    assert "169.254.0.0/16 of --denied-endpoint-cidrs" in status["message"]
    assert status["details"]["causes"][0]["reason"] == "CLUSTER_MISCONFIGURED"
    assert "169.254.169.254" not in status["message"]
