"""Switched protocols through the facade: not a byte lost, none parsed as a request, none piled up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import ALICE, PROXY

from cluster_gateway_facade.serving import tunnel as tunnel_module

if TYPE_CHECKING:
    from tests.support.fake_core import Conversation
    from tests.support.running_facade import RunningFacade

PROTOCOLS = ["websocket", "SPDY/3.1"]
HOST = "\r\n".join(("Host: gateway", *ALICE))


def switch(protocol: str, *headers: str, method: str = "GET") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return (
        f"{method} {PROXY}/exec HTTP/1.1\r\n{HOST}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{lines}\r\n"
    ).encode()


async def echo(conversation: Conversation) -> None:
    await conversation.send_head(101, (b"Sec-WebSocket-Accept", b"x"), reason=b"Switching Protocols")
    while piece := await conversation.read():
        await conversation.send(piece)
    await conversation.end()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_bytes_go_both_ways_after_a_101(gateway: RunningFacade, protocol: str) -> None:
    gateway.core.script(echo)
    async with gateway.as_front_proxy() as client:
        await client.send(switch(protocol))
        status, headers = await client.head()
        assert status == 101
        assert [value for name, value in headers if name.lower() == "connection"] == ["Upgrade"]
        assert [value for name, value in headers if name.lower() == "upgrade"] == [protocol]
        await client.send(b"hello")
        assert await client.read(5) == b"hello"
    assert gateway.core.conversations[0].head.upgrade == protocol


@pytest.mark.parametrize("split", [None, 5, -1, -2, -3, -4], ids=str)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_bytes_sent_together_with_the_head_arrive_up_21(
    gateway: RunningFacade, protocol: str, split: int | None
) -> None:
    gateway.core.script(echo)
    early = b"GET / HTTP/1.1\r\n\r\n\r\n"
    async with gateway.as_front_proxy() as client:
        head = switch(protocol)
        if split is not None:
            await client.send(head[:split])
            await gateway.until(lambda: any(one._partial_head for one in gateway.facade._server._open))
            head = head[split:]
        await client.send(head + early)
        assert (await client.head())[0] == 101
        await client.send(b"later")
        assert await client.read(len(early) + 5) == early + b"later"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_bytes_behind_a_refused_switch_are_no_request_up_11_up_12(gateway: RunningFacade, protocol: str) -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.respond(403, (b"Content-Length", b"4"), body=b"nope")

    gateway.core.script(refuse)
    smuggled = f"GET {PROXY}/secret HTTP/1.1\r\n{HOST}\r\n\r\n".encode()
    async with gateway.as_front_proxy() as client:
        await client.send(switch(protocol) + smuggled)
        response = await client.response()
        assert (response.status, response.body) == (403, b"nope")
        assert response.values("Connection") == ["close"]
        assert await client.rest() == b""
    assert len(gateway.core.conversations) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_error_of_the_gateway_is_a_status_and_closes_up_10(gateway: RunningFacade, protocol: str) -> None:
    async def fail(conversation: Conversation) -> None:
        await conversation.fail("CLUSTER_UNREACHABLE")

    gateway.core.script(fail)
    async with gateway.as_front_proxy() as client:
        await client.send(switch(protocol) + b"more")
        response = await client.response()
        assert response.status == 503
        assert response.json()["kind"] == "Status"
        assert await client.rest() == b""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("framing", ["Content-Length: 3", "Transfer-Encoding: chunked"])
async def test_a_switch_with_a_body_is_refused_up_32(gateway: RunningFacade, protocol: str, framing: str) -> None:
    async with gateway.as_front_proxy() as client:
        await client.send(switch(protocol, framing) + b"3\r\n")
        response = await client.response()
    assert response.status == 400
    assert gateway.core.conversations == []


async def test_a_spdy_switch_behind_another_request_is_refused(gateway: RunningFacade) -> None:
    first = f"GET {PROXY}/x HTTP/1.1\r\n{HOST}\r\n\r\n".encode()
    async with gateway.as_front_proxy() as client:
        await client.send(first + switch("SPDY/3.1") + b"lost")
        assert (await client.response()).body == b"ok"
        assert (await client.response()).status == 400
        assert await client.rest() == b""
    assert len(gateway.core.conversations) == 1


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        ("Connection: keep-alive, upgrade\r\nUpgrade: websocket", "websocket"),
        ("Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: SPDY/3.1", "SPDY/3.1"),
        ("Connection: notupgrade\r\nUpgrade: websocket", ""),
        ("Upgrade: websocket", ""),
        ("Connection: Upgrade", ""),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: SPDY/3.1", "websocket, SPDY/3.1"),
    ],
)
async def test_only_a_listed_upgrade_counts_up_31(gateway: RunningFacade, lines: str, upgrade: str) -> None:
    async with gateway.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x HTTP/1.1\r\n{HOST}\r\n{lines}\r\n\r\n".encode())
        seen = await gateway.core.conversation()
        assert seen.head.upgrade == upgrade


async def test_a_plain_request_goes_on_after_an_upgrade_header_that_does_not_count(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        for _ in range(2):
            assert (await client.get(f"{PROXY}/x", *ALICE, "Upgrade: SPDY/3.1")).body == b"ok"


async def test_the_gateway_s_own_answers_to_a_switch_leave_the_connection_in_step(gateway: RunningFacade) -> None:
    async with gateway.connect() as client:
        for protocol in ("SPDY/3.1", "websocket", "SPDY/3.1"):
            answered = await client.get("/readyz", "Connection: Upgrade", f"Upgrade: {protocol}")
            assert answered.status == 200
        await client.send(
            b"GET /readyz HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
            b"GET /livez HTTP/1.1\r\nHost: g\r\n\r\n"
        )
        assert [(await client.response()).body for _ in range(2)] == [b"ok", b"ok"]


async def test_the_cluster_s_end_arrives_behind_its_last_bytes_up_27(gateway: RunningFacade) -> None:
    data = os.urandom(3_000_000)

    async def send_and_end(conversation: Conversation) -> None:
        await conversation.send_head(101)
        for start in range(0, len(data), 500_000):
            await conversation.send(data[start : start + 500_000])
        await conversation.end()

    gateway.core.script(send_and_end)
    async with gateway.as_front_proxy() as client:
        await client.send(switch("SPDY/3.1"))
        await client.head()
        assert hashlib.sha256(await client.rest()).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_the_client_sent_before_it_closed_reaches_the_cluster(gateway: RunningFacade, protocol: str) -> None:
    received: list[bytes] = []
    over = asyncio.Event()
    go = asyncio.Event()

    async def take(conversation: Conversation) -> None:
        await conversation.send_head(101)
        await go.wait()
        received.append(await conversation.read_all())
        assert conversation.ended
        await conversation.end()
        over.set()

    gateway.core.script(take)
    data = os.urandom(100_000)
    async with gateway.as_front_proxy() as client:
        await client.send(switch(protocol))
        await client.head()
        await client.send(data)
        client.writer.close()
        go.set()
        async with asyncio.timeout(20):
            await over.wait()
    assert received == [data]


async def test_a_tunnel_that_the_core_cuts_is_cut_for_the_client_up_28(gateway: RunningFacade) -> None:
    async def cut(conversation: Conversation) -> None:
        await conversation.send_head(101)
        await conversation.fail("CLUSTER_UNREACHABLE")

    gateway.core.script(cut)
    async with gateway.as_front_proxy() as client:
        await client.send(switch("SPDY/3.1"))
        await client.head()
        assert await client.rest() == b""


async def test_a_reset_by_the_client_ends_the_exchange_up_28(gateway: RunningFacade) -> None:
    async def talk(conversation: Conversation) -> None:
        await conversation.send_head(101)
        while True:
            await conversation.send(b"x" * 1000)
            await asyncio.sleep(0.01)

    gateway.core.script(talk)
    async with gateway.as_front_proxy() as client:
        await client.send(switch("SPDY/3.1"))
        await client.head()
        client.writer.transport.abort()
        async with asyncio.timeout(20):
            await (await gateway.core.conversation()).cancelled.wait()


async def test_large_data_both_ways_at_once_is_intact_up_29(gateway: RunningFacade) -> None:
    size, piece = 24 * 1024 * 1024, os.urandom(64 * 1024)
    gateway.core.script(echo)
    sent, received = hashlib.sha256(), hashlib.sha256()
    async with gateway.as_front_proxy() as client:
        await client.send(switch("websocket"))
        await client.head()

        async def upload() -> None:
            for number in range(size // len(piece)):
                data = number.to_bytes(8, "big") + piece[8:]
                sent.update(data)
                await client.send(data)

        async with asyncio.TaskGroup() as group:
            group.create_task(upload())
            for _ in range(size // len(piece)):
                received.update(await client.read(len(piece)))
    assert received.digest() == sent.digest()


async def test_a_cluster_that_does_not_read_stops_the_client_up_30(gateway: RunningFacade) -> None:
    async def stall(conversation: Conversation) -> None:
        await conversation.send_head(101)
        await conversation.hold()

    gateway.core.script(stall)
    async with gateway.as_front_proxy() as client:
        await client.send(switch("SPDY/3.1"))
        await client.head()
        sock = client.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        with pytest.raises(TimeoutError):  # noqa: PT012 - sends until it must wait
            async with asyncio.timeout(1.0):
                while True:
                    await client.send(b"x" * 65536)
        tunnel = gateway.connection._payload_parser
        assert tunnel._paused
        assert tunnel._buffered <= tunnel_module._BUFFER_BYTES + 512 * 1024


async def test_a_client_that_does_not_read_stops_the_cluster_up_30(gateway: RunningFacade) -> None:
    sent = 0

    async def flood(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.send_head(101)
        while True:
            await conversation.send(b"x" * 65536)
            sent += 65536

    gateway.core.script(flood)
    async with gateway.as_front_proxy() as client:
        client.writer.transport.pause_reading()
        await client.send(switch("SPDY/3.1"))
        await gateway.until(lambda: gateway.core.conversations)
        before = -1
        async with asyncio.timeout(20):
            while before != sent:
                before = sent
                await asyncio.sleep(0.5)
        assert sent < 32 * 1024 * 1024
