"""Requests in time, too late, and cut (family GS), through facade and core."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.running_facade import ALICE
from tests.support.scripted_cluster import Hold, Receive, Reset, ScriptedCluster, Send
from tests.support.upstreams import make_cluster

from cluster_gateway_facade.serving.response import RelayedResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

_REQUEST = Receive(b"\r\n\r\n")
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_BRIEF = {"response_timeout_seconds": 0.2}


@asynccontextmanager
async def pair(
    folder: Path, cluster: ScriptedCluster, upstream: dict[str, float] | None = None
) -> AsyncIterator[GatewayPair]:
    async with gateway_pair(folder, make_cluster(cluster.address), upstream=upstream) as made:
        yield made


async def test_a_request_in_time_is_answered_by_the_cluster(tmp_path: Path) -> None:
    """GS-1."""
    async with (
        ScriptedCluster((_REQUEST, Send(_OK), Hold())) as cluster,
        pair(tmp_path, cluster, {"response_timeout_seconds": 20}) as gateway,
        gateway.facade.as_front_proxy() as client,
    ):
        response = await client.get(gateway.path(), *ALICE)
        assert (response.status, response.body) == (200, b"ok")


async def test_a_request_that_is_too_late_gets_one_504_and_what_comes_later_is_nobodys(tmp_path: Path) -> None:
    """GS-2."""
    late = asyncio.Event()
    scripts = (_REQUEST, Hold(late), Send(_OK), Hold()), (_REQUEST, Send(_OK), Hold())
    async with (
        ScriptedCluster(*scripts) as cluster,
        pair(tmp_path, cluster, _BRIEF) as gateway,
        gateway.facade.as_front_proxy() as client,
    ):
        response = await client.get(gateway.path(), *ALICE)
        status = response.json()
        assert (response.status, status["kind"], status["reason"], status["code"]) == (504, "Status", "Timeout", 504)
        assert "managed1 did not answer within 0.2 seconds" in status["message"]
        late.set()
        await cluster.connections[0].wait_ended()
        again = await client.get(gateway.path(), *ALICE)
        assert (again.status, again.body) == (200, b"ok")


async def test_a_body_that_takes_longer_than_the_head_may_is_not_cut(tmp_path: Path) -> None:
    """GS-1: the limit is for the head; a long list may take its time."""
    more = asyncio.Event()
    script = (_REQUEST, Send(_CHUNKED + b"1\r\na\r\n"), Hold(more), Send(b"1\r\nb\r\n0\r\n\r\n"), Hold())
    async with (
        ScriptedCluster(script) as cluster,
        pair(tmp_path, cluster, _BRIEF) as gateway,
        gateway.facade.as_front_proxy() as client,
    ):
        headers = "\r\n".join(("Host: gateway", *ALICE))
        await client.send(f"GET {gateway.path()} HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        await client.head()
        assert await client.read(6) == b"1\r\na\r\n"
        await asyncio.sleep(2 * _BRIEF["response_timeout_seconds"])  # the limit passes
        more.set()
        assert await client.read(11) == b"1\r\nb\r\n0\r\n\r\n"


async def test_an_answer_that_the_cluster_cuts_kills_the_connection_and_leaves_no_stack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GS-3."""
    caplog.set_level(logging.DEBUG, "cluster_gateway_core")
    caplog.set_level(logging.DEBUG, "cluster_gateway_facade")
    async with (
        ScriptedCluster((_REQUEST, Send(_CHUNKED + b"4\r\nhalf\r\n"), Reset())) as cluster,
        pair(tmp_path, cluster) as gateway,
        gateway.facade.as_front_proxy() as client,
    ):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.get(gateway.path(), *ALICE)
        await gateway.until_idle()
    assert [record for record in caplog.records if record.exc_info] == []
    assert any("cut" in record.message for record in caplog.records)


async def test_a_defect_of_the_gateway_within_an_answer_kills_the_connection_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """GS-3."""
    write = RelayedResponse.write

    def fail_behind_the_head(self: RelayedResponse, head: bytes, body: bytes, *, end: bool) -> None:
        if not head:
            raise LookupError("a defect")
        write(self, head, body, end=end)

    monkeypatch.setattr(RelayedResponse, "write", fail_behind_the_head)
    more = asyncio.Event()
    script = (_REQUEST, Send(_CHUNKED + b"1\r\na\r\n"), Hold(more), Send(b"1\r\nb\r\n0\r\n\r\n"), Hold())
    async with (
        ScriptedCluster(script) as cluster,
        pair(tmp_path, cluster) as gateway,
        gateway.facade.as_front_proxy() as client,
    ):
        headers = "\r\n".join(("Host: gateway", *ALICE))
        await client.send(f"GET {gateway.path()} HTTP/1.1\r\n{headers}\r\n\r\n".encode())
        await client.head()
        more.set()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        await gateway.until_idle()
        monkeypatch.undo()
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize("deadline", ["30s", "1h", "junk", "0", "-1s", ""])
async def test_the_clusters_own_deadline_is_asked_of_the_cluster_as_it_came(tmp_path: Path, deadline: str) -> None:
    """What `timeout=` means, and whether it is valid, a cluster decides: it answers a bad one with 400 itself."""
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad"
    async with (
        ScriptedCluster((_REQUEST, Send(refusal), Hold())) as cluster,
        pair(tmp_path, cluster) as gateway,
        gateway.facade.as_front_proxy() as client,
    ):
        response = await client.get(gateway.path(f"/api/v1/pods?timeout={deadline}"), *ALICE)
        assert (response.status, response.body) == (400, b"bad")
        assert f"GET /api/v1/pods?timeout={deadline} HTTP/1.1".encode() in cluster.connections[0].received
