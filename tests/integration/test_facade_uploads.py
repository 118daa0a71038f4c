"""Request bodies: 100-continue, back-pressure, early answers and clients that go away."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import ALICE, PROXY

if TYPE_CHECKING:
    from tests.support.fake_core import Conversation
    from tests.support.running_facade import RunningFacade

HOST = "\r\n".join(("Host: gateway", *ALICE))


def post(*headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {PROXY}/x HTTP/1.1\r\n{HOST}\r\n{lines}\r\n".encode()


async def test_continue_is_said_once_the_core_takes_the_request_rt_37(gateway: RunningFacade) -> None:
    async def take(conversation: Conversation) -> None:
        assert conversation.head.expect_continue
        await conversation.proceed()
        body = await conversation.read_all()
        await conversation.respond(201, (b"Content-Length", b"%d" % len(body)), body=body)

    gateway.core.script(take)
    async with gateway.as_front_proxy() as client:
        await client.send(post("Expect: 100-continue", "Content-Length: 5"))
        assert await client.head() == (100, [])
        await client.send(b"hello")
        assert (await client.response()).body == b"hello"
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"


async def test_a_refused_body_is_never_asked_for_and_the_connection_closes_rt_37(gateway: RunningFacade) -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.fail("ACCESS_DENIED")

    gateway.core.script(refuse)
    async with gateway.as_front_proxy() as client:
        await client.send(post("Expect: 100-continue", "Content-Length: 5"))
        response = await client.response()
        assert response.status == 403
        assert response.values("Connection") == ["close"]


@pytest.mark.parametrize("target", ["/apis/cluster.core.oam.dev/v1alpha1/clustergateways", "/readyz"])
async def test_nobody_is_told_to_send_a_body_that_nothing_reads(gateway: RunningFacade, target: str) -> None:
    async with gateway.as_front_proxy() as client:
        response = await client.get(target, *ALICE, "Expect: 100-continue", "Content-Length: 5", method="POST")
        assert response.status in (200, 405)
        assert response.values("Connection") == ["close"]


async def test_a_client_of_http_1_0_gets_no_continue(gateway: RunningFacade) -> None:
    """RFC 9110 section 10.1.1: it would take it for the answer."""
    async with gateway.as_front_proxy() as client:
        await client.send(
            post("Expect: 100-continue", "Content-Length: 5").replace(b"HTTP/1.1", b"HTTP/1.0") + b"12345"
        )
        assert (await client.head())[0] == 200
    assert not gateway.core.conversations[0].head.expect_continue


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_large_body_arrives_whole_rt_8(gateway: RunningFacade, chunked: bool) -> None:  # noqa: FBT001
    data = os.urandom(8 * 1024 * 1024)
    digest = hashlib.sha256()

    async def take(conversation: Conversation) -> None:
        while piece := await conversation.read():
            digest.update(piece)
        await conversation.respond(200, (b"Content-Length", b"0"))

    gateway.core.script(take)
    async with gateway.as_front_proxy() as client:
        if chunked:
            await client.send(post("Transfer-Encoding: chunked"))
            for start in range(0, len(data), 100_000):
                piece = data[start : start + 100_000]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await client.send(b"0\r\n\r\n")
        else:
            await client.send(post(f"Content-Length: {len(data)}") + data)
        assert (await client.response()).status == 200
        assert digest.digest() == hashlib.sha256(data).digest()
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"


async def test_a_cluster_that_does_not_read_stops_the_client(gateway: RunningFacade) -> None:
    async def stall(conversation: Conversation) -> None:
        await conversation.hold()

    gateway.core.script(stall)
    sent = 0
    async with gateway.as_front_proxy() as client:
        await client.send(post("Content-Length: 1000000000"))
        with pytest.raises(TimeoutError):  # noqa: PT012 - sends until it must wait
            async with asyncio.timeout(1.5):
                while True:
                    await client.send(b"x" * 65536)
                    sent += 65536
    assert sent < 32 * 1024 * 1024


@pytest.mark.parametrize("status", [401, 413, 200])
async def test_an_answer_before_the_body_ended_is_delivered_and_stops_the_upload_rt_36(
    gateway: RunningFacade, status: int
) -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.read()
        await conversation.respond(status, (b"Content-Length", b"2"), body=b"no")

    gateway.core.script(refuse)
    async with gateway.as_front_proxy() as client:
        await client.send(post("Content-Length: 1000000") + b"x" * 1000)
        response = await client.response()
        assert (response.status, response.body) == (status, b"no")
        assert response.values("Connection") == ["close"]


@pytest.mark.parametrize("sent", [b"", b"Content-Length: 100\r\n\r\nhalf"], ids=["no-body", "half-a-body"])
async def test_a_client_that_goes_away_cancels_the_exchange_rt_14(gateway: RunningFacade, sent: bytes) -> None:
    async def hold(conversation: Conversation) -> None:
        await conversation.hold()

    gateway.core.script(hold)
    async with gateway.as_front_proxy() as client:
        await client.send(post()[:-2] + (sent or b"\r\n"))
        held = await gateway.core.conversation()
        client.writer.transport.abort()
        async with asyncio.timeout(20):
            await held.cancelled.wait()
    assert sent == b"" or not held.ended


async def test_a_client_that_goes_away_from_a_watch_cancels_it_rt_14(gateway: RunningFacade) -> None:
    async def watch(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"{}\n")
        await conversation.hold()

    gateway.core.script(watch)
    async with gateway.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x?watch=true HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
        await client.head()
        client.writer.close()
        async with asyncio.timeout(20):
            await (await gateway.core.conversation()).cancelled.wait()
