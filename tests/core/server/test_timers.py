"""Who is silent, and whose connection that costs: the caller, the cluster, or nobody. Through gRPC."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.support.routing_core import serve_core
from tests.support.scripted_cluster import WAIT_SECONDS, Hold, Receive, ScriptedCluster, Send

from cluster_gateway_client import CoreError
from cluster_gateway_core.settings import ServingSettings
from clustergateway.routing.v1.routing_service_pb2 import RequestHead

_END = b"\r\n\r\n"
_SOON = 0.05
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"
_ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
_WATCH = b"/api/v1/pods?watch=1"


def make_head(method: str = "GET", target: bytes = b"/api", **fields: str) -> RequestHead:
    return RequestHead(cluster_name="managed1", method=method, target=target, **fields)


async def test_a_caller_who_stops_sending_a_body_is_told_and_the_cluster_is_let_go() -> None:
    async with (
        ScriptedCluster((Receive(_END), Hold())) as cluster,
        serve_core(cluster.address, request_idle_seconds=_SOON) as (core, client),
        client.exchange() as exchange,
        asyncio.timeout(WAIT_SECONDS),
    ):
        await exchange.start(make_head("POST"), b"begun", end=False)
        with pytest.raises(CoreError, match=r"nothing of the request's body came for 0\.05 seconds") as caught:
            await exchange.receive()
        assert (caught.value.reason, caught.value.hop) == ("INVALID_REQUEST", "CALLER")
        await cluster.connections[0].wait_ended()
        assert await core.drain.wait_idle(WAIT_SECONDS)


async def test_a_cluster_that_stops_within_a_short_answer_is_let_go_and_the_answer_is_cut() -> None:
    async with (
        ScriptedCluster((Receive(_END), Send(_ANSWER), Hold())) as cluster,
        serve_core(cluster.address, response_idle_seconds=_SOON) as (_, client),
        asyncio.timeout(WAIT_SECONDS),
    ):
        with pytest.raises(CoreError, match=r"cluster managed1 sent nothing of its answer for 0\.05 seconds") as caught:
            async with client.request("managed1", "GET", "/api") as response:
                await response.read()
        assert (caught.value.reason, caught.value.hop) == ("TIMEOUT", "CLUSTER")
        await cluster.connections[0].wait_ended()


async def test_a_cluster_that_does_not_begin_to_answer_is_let_go() -> None:
    async with (
        ScriptedCluster((Receive(_END), Hold())) as cluster,
        serve_core(cluster.address, response_timeout_seconds=_SOON) as (_, client),
        asyncio.timeout(WAIT_SECONDS),
    ):
        with pytest.raises(CoreError, match=r"cluster managed1 did not answer within 0\.05 seconds") as caught:
            async with client.request("managed1", "GET", "/api"):
                pass
        assert (caught.value.reason, caught.value.hop) == ("TIMEOUT", "CLUSTER")
        await cluster.connections[0].wait_ended()


@pytest.mark.parametrize("target", [_WATCH, b"/api/v1/namespaces/a/pods/b/log?follow=true"], ids=["watch", "log"])
async def test_a_quiet_long_running_answer_is_left_alone(target: bytes) -> None:
    """GS-5: a short request to the same cluster, begun later, is cut first."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    more = asyncio.Event()
    watch = (Receive(_END), Send(head), Hold(more), Send(b"3\r\n{}\n\r\n0\r\n\r\n"))
    limits = {"response_idle_seconds": _SOON, "reader_idle_seconds": _SOON, "response_timeout_seconds": _SOON}
    async with (
        ScriptedCluster(watch, (Receive(_END), Send(_ANSWER), Hold())) as cluster,
        serve_core(cluster.address, **limits) as (_, client),
        asyncio.timeout(WAIT_SECONDS),
        client.request("managed1", "GET", target.decode()) as watched,
    ):
        with pytest.raises(CoreError):
            async with client.request("managed1", "GET", "/api") as response:
                await response.read()
        more.set()
        assert await watched.read() == b"{}\n"


async def test_a_caller_who_reads_nothing_loses_the_clusters_connection_and_learns_that_the_answer_was_cut() -> None:
    """A watch whose caller reads nothing, begun earlier, is left alone."""
    sends = [Send(b"x" * 0x10000)] * 1000
    script = (Receive(_END), Send(_ENDLESS), *sends, Hold())
    async with (
        ScriptedCluster(script, script) as cluster,
        serve_core(cluster.address, reader_idle_seconds=_SOON, buffer_bytes=64 * 1024) as (core, client),
        asyncio.timeout(WAIT_SECONDS),
        client.exchange() as watch,
        client.exchange() as exchange,
    ):
        await watch.start(make_head(target=_WATCH), end=True)
        await (await cluster.connection(0)).wait_until_blocked()
        await exchange.start(make_head(), end=True)
        await (await cluster.connection(1)).wait_ended()
        assert not cluster.connections[0].ended.is_set()
        assert core.drain.active == 2

        with pytest.raises(CoreError, match="the caller read nothing of the answer for too long") as caught:  # noqa: PT012
            while True:
                await exchange.receive()
        assert (caught.value.reason, caught.value.hop) == ("RESPONSE_TRUNCATED", "CALLER")
        assert (await watch.receive()).head.status == 200


async def test_a_long_running_reader_has_a_limit_of_its_own() -> None:
    script = (Receive(_END), Send(_ENDLESS), *[Send(b"x" * 0x10000)] * 1000, Hold())
    async with (
        ScriptedCluster(script) as cluster,
        serve_core(cluster.address, long_running_reader_idle_seconds=_SOON, buffer_bytes=64 * 1024) as (_, client),
        asyncio.timeout(WAIT_SECONDS),
        client.exchange() as watch,
    ):
        await watch.start(make_head(target=_WATCH), end=True)
        await (await cluster.connection(0)).wait_ended()


async def test_a_stream_on_which_nothing_comes_is_ended() -> None:
    """Until its head comes nobody knows who the client is; a client with a certificate of nobody's can do as much."""
    async with serve_core(None, serving=ServingSettings(head_seconds=_SOON)) as (core, client):
        call = client.routing.Exchange()
        await call.wait_for_connection()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "come soon" in await call.details()
        assert core.servicer._deadlines._open == set()
