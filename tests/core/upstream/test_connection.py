"""A connection between two exchanges, and before the first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from tests.support.scripted_cluster import WAIT_SECONDS, Hold, Receive, ScriptedCluster, Send
from tests.support.upstreams import fetch, make_upstream

from cluster_gateway_core.errors import ClusterUnreachableError, InvalidResponseError
from cluster_gateway_core.upstream.connection import UpstreamConnection

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Transport:
    """Loses its connection one turn of the loop after it is told to, as asyncio's do."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False


def connected() -> tuple[UpstreamConnection, Transport]:
    connection = UpstreamConnection("managed1", 65536)
    transport = Transport(connection)
    connection.connection_made(cast("asyncio.Transport", transport))
    return connection, transport


@pytest.mark.parametrize("later", [False, True], ids=["before the request", "behind it"])
async def test_connection_that_ends_at_once_is_told_at_once(later: bool) -> None:  # noqa: FBT001
    """As a load balancer without backends ends it; the request must not wait for the time limit."""
    connection, _ = connected()
    end: Callable[[], None] = lambda: connection.connection_lost(None)  # noqa: E731 - called now or later
    asyncio.get_running_loop().call_soon(end) if later else end()
    connection.begin("GET")
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(ClusterUnreachableError, match="ended before it answered"):
            await connection.response_head()


async def test_bytes_before_the_request_are_no_answer() -> None:
    connection, transport = connected()
    connection.data_received(ANSWER)
    connection.begin("GET")
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(InvalidResponseError, match="sent bytes before it was asked"):
            await connection.response_head()
    assert transport.written == b""


async def test_connection_that_was_cut_is_not_used_again_before_its_end_is_told() -> None:
    connection, _ = connected()
    connection.begin("GET")
    connection.data_received(ANSWER)
    assert connection.take_body() == (b"ok", True)
    connection.end_exchange()
    assert connection.is_reusable
    connection.data_received(ANSWER)
    assert not connection.is_reusable
    await asyncio.sleep(0)
    assert not connection.is_reusable


async def test_answer_that_nobody_asked_for_is_never_the_next_ones() -> None:
    evil = asyncio.Event()
    async with ScriptedCluster(
        (Receive(), Send(ANSWER), Hold(evil), Send(ANSWER.replace(b"ok", b"no")), Hold()),
        (Receive(), Send(ANSWER), Hold()),
    ) as cluster:
        upstream = make_upstream(cluster.address)
        await fetch(upstream)
        evil.set()
        await cluster.connections[0].wait_ended()
        assert (await fetch(upstream))[1] == b"ok"
        upstream.retire(cut=True)
        await cluster.wait_all_ended()
