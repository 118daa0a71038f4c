"""What clients can hold, and that nobody else notices: floods, stalls and dribbles (threats a5 and a6)."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.support.running_facade import ALICE, PROXY, RunningFacade, running_facade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_core import Conversation
    from tests.support.raw_client import RawClient

HEAD = "\r\n".join(("Host: gateway", *ALICE))
MIB = 1024 * 1024


async def flood(conversation: Conversation) -> None:
    """Answer without end."""
    await conversation.read_all()
    await conversation.send_head(200)
    try:
        while True:
            await conversation.send(b"x" * 65536)
    except grpc.aio.InternalError:  # what a write says of a stream that was cancelled under it
        await conversation.hold()


async def swallow(conversation: Conversation) -> None:
    """Take a body, and hold the answer back."""
    await conversation.read_all()
    await conversation.hold()


async def ask(client: RawClient, target: str, *, method: str = "GET", headers: str = "") -> None:
    await client.send(f"{method} {PROXY}{target} HTTP/1.1\r\n{HEAD}\r\n{headers}\r\n".encode())


async def stall(client: RawClient, target: str) -> None:
    """Ask, and read nothing behind the head of the answer."""
    await ask(client, target)
    await client.head()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]


@asynccontextmanager
async def strangers(running: RunningFacade, count: int) -> AsyncIterator[list[socket.socket]]:
    """Open TCP connections that say nothing."""
    opened: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            opened.append(sock)
            await loop.sock_connect(sock, ("127.0.0.1", running.port))
        yield opened
    finally:
        for sock in opened:
            sock.close()


async def has_ended(sock: socket.socket) -> bool:
    """Whether the facade has ended a connection."""
    async with asyncio.timeout(20):
        try:
            return await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        except ConnectionError:
            return True


async def test_the_front_proxy_gets_in_past_any_number_of_strangers_from_its_own_address(tmp_path: Path) -> None:
    async with (
        running_facade(tmp_path, maximum_unauthenticated_connections_per_address=20) as running,
        strangers(running, 300) as opened,
        running.as_front_proxy() as client,
        strangers(running, 300),
    ):
        assert (await client.get(f"{PROXY}/x", *ALICE)).status == 200
        assert await has_ended(opened[0])
        async with running.as_front_proxy() as another:
            assert (await another.get(f"{PROXY}/x", *ALICE)).status == 200


async def test_when_all_connections_are_the_hub_s_a_stranger_is_turned_away(tmp_path: Path) -> None:
    async with (
        running_facade(tmp_path, maximum_connections=2) as running,
        running.as_front_proxy() as first,
        running.as_front_proxy() as second,
    ):
        with pytest.raises(OSError):  # noqa: PT011 - a reset or an end, by how far the handshake got
            async with running.connect():
                pass
        for client in (first, second):
            assert (await client.get(f"{PROXY}/x", *ALICE)).status == 200


async def test_a_probe_is_served_among_hundreds_of_half_open_connections_which_are_reaped(tmp_path: Path) -> None:
    async with (
        running_facade(tmp_path, tls_handshake_seconds=0.5, header_timeout_seconds=0.5) as running,
        strangers(running, 190) as opened,
    ):
        for sock in opened[::2]:
            await asyncio.get_running_loop().sock_sendall(sock, b"\x16\x03\x01\x02")  # a handshake that dribbles
        async with running.connect() as client:
            assert (await client.get("/livez")).status == 200
        for sock in opened:
            assert await has_ended(sock)


async def test_connections_that_vanish_are_noticed_by_tcp(tmp_path: Path) -> None:
    async with (
        running_facade(tmp_path, client_dead_peer_seconds=12.0) as running,
        running.as_front_proxy() as client,
    ):
        await client.get(f"{PROXY}/x", *ALICE)
        sock = running.connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 6
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12000
        await client.get(f"{PROXY}/api/v1/pods?watch=true", *ALICE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_a_body_that_stops_is_answered_408_and_its_exchange_ended(tmp_path: Path) -> None:
    """L8: a slow writer is cut at the idle-body timeout."""
    async with running_facade(tmp_path, request_idle_seconds=0.4) as running, running.as_front_proxy() as client:
        running.core.script(swallow)
        await ask(client, "/x", method="POST", headers="Content-Length: 100\r\n")
        await client.send(b"a canary that nobody repeats")
        answer = await client.response()
        assert (answer.status, answer.json()["reason"]) == (408, "Timeout")
        assert answer.values("Connection") == ["close"]
        assert b"canary" not in answer.body
        assert await client.rest() == b""
        await (await running.core.conversation()).cancelled.wait()


async def test_a_body_that_stops_under_its_answer_cuts_it(tmp_path: Path) -> None:
    async def answer_early(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"beginning")
        await conversation.read_all()

    async with running_facade(tmp_path, request_idle_seconds=0.4) as running, running.as_front_proxy() as client:
        running.core.script(answer_early)
        await ask(client, "/x", method="POST", headers="Content-Length: 100\r\n")
        await client.send(b"a")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await client.response()


async def test_a_body_whose_bytes_trickle_in_time_is_carried_whole(tmp_path: Path) -> None:
    async with running_facade(tmp_path, request_idle_seconds=0.8) as running, running.as_front_proxy() as client:
        await ask(client, "/x", method="POST", headers="Content-Length: 8\r\n")
        for _ in range(8):
            await asyncio.sleep(0.15)  # what is tested is time that passes
            await client.send(b"a")
        assert (await client.response()).body == b"ok"


async def test_a_slow_cluster_is_not_blamed_on_the_client(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def wait_then_take(conversation: Conversation) -> None:
        await go_on.wait()
        await conversation.read_all()
        await conversation.respond(200, (b"Content-Length", b"2"), body=b"ok")

    async with running_facade(tmp_path, request_idle_seconds=0.4) as running, running.as_front_proxy() as client:
        running.core.script(wait_then_take)
        await ask(client, "/x", method="POST", headers=f"Content-Length: {16 * MIB}\r\n")
        client.writer.write(bytes(16 * MIB))
        await running.core.conversation()
        await running.until(lambda: running.connection._reading_paused)
        await asyncio.sleep(1)  # longer than the limit
        go_on.set()
        assert (await client.response()).body == b"ok"


async def test_a_client_that_reads_nothing_of_an_answer_is_cut(tmp_path: Path) -> None:
    """L7: a stalled reader is cut after its timeout."""
    async with running_facade(tmp_path, reader_idle_seconds=0.4) as running, running.as_front_proxy() as client:
        running.core.script(flood)
        await stall(client, "/api/v1/pods")
        await (await running.core.conversation()).cancelled.wait()
        await running.until(lambda: not running.facade._server._open)


@pytest.mark.parametrize("target", ["/api/v1/pods?watch=true", "/api/v1/namespaces/a/pods/b/log?follow=true"])
async def test_watches_and_logs_have_a_longer_limit_of_their_own(tmp_path: Path, target: str) -> None:
    async with (
        running_facade(tmp_path, reader_idle_seconds=0.2, long_running_reader_idle_seconds=1.5) as running,
        running.as_front_proxy() as client,
    ):
        running.core.script(flood)
        await stall(client, target)
        await running.until(lambda: running.connection._paused)
        await asyncio.sleep(0.6)  # three times the limit of others
        conversation = await running.core.conversation()
        assert not conversation.cancelled.is_set()
        await conversation.cancelled.wait()


async def test_without_a_limit_a_watch_may_stand_still_for_ever(tmp_path: Path) -> None:
    async with (
        running_facade(tmp_path, reader_idle_seconds=0.2, long_running_reader_idle_seconds=0.0) as running,
        running.as_front_proxy() as client,
    ):
        running.core.script(flood)
        await stall(client, "/api/v1/pods?watch=1")
        await running.until(lambda: running.connection._paused)
        await asyncio.sleep(0.6)
        assert not (await running.core.conversation()).cancelled.is_set()
        running.connection.cut()


async def test_a_stalled_reader_holds_little(tmp_path: Path) -> None:
    async with running_facade(tmp_path) as running, running.as_front_proxy() as client:
        running.core.script(flood)
        await stall(client, "/api/v1/pods")
        await running.until(lambda: running.connection._paused)
        assert running.connection.transport.get_write_buffer_size() < 2 * 65536
        running.connection.cut()


async def test_siblings_are_served_while_readers_and_writers_stand_still(tmp_path: Path) -> None:
    """L7, L8, UP-30: those who stand still cost nobody else anything, and all of them are cut in the end.

    AG-7: discovery, OpenAPI and probes answer from memory meanwhile, as their five seconds ask for.
    """
    readers, writers = 40, 40
    async with (
        running_facade(tmp_path, reader_idle_seconds=4.0, request_idle_seconds=4.0) as running,
        AsyncExitStack() as stack,
    ):
        running.core.script(*([flood] * readers), *([swallow] * writers))
        for number in range(readers):
            await stall(await stack.enter_async_context(running.as_front_proxy()), f"/list/{number}")
        stalled = list(running.core.conversations)
        for number in range(writers):
            client = await stack.enter_async_context(running.as_front_proxy())
            await ask(client, f"/slow/{number}", method="POST", headers="Content-Length: 1000000\r\n")
            await client.send(b"x")
        await running.core.conversation(readers + writers - 1)
        async with running.as_front_proxy() as sibling:
            assert (await sibling.get(f"{PROXY}/sibling", *ALICE)).body == b"ok"
            for target in ("/apis", "/apis/cluster.core.oam.dev/v1alpha1", "/openapi/v2", "/openapi/v3", "/readyz"):
                async with asyncio.timeout(5):
                    assert (await sibling.get(target, *ALICE)).status == 200, target
            assert not any(conversation.cancelled.is_set() for conversation in stalled)
        for conversation in running.core.conversations[: readers + writers]:
            async with asyncio.timeout(20):
                await conversation.cancelled.wait()


async def test_answers_to_pipelined_requests_do_not_pile_up(tmp_path: Path) -> None:
    async with running_facade(tmp_path) as running, running.as_front_proxy() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = f"GET /openapi/v2 HTTP/1.1\r\n{HEAD}\r\n\r\n".encode()
        client.writer.write(request * 4000)
        await running.until(lambda: running.facade._server._open and running.connection._paused)
        await asyncio.sleep(0.3)  # for what would come too much
        largest: Any = running.connection.transport.get_write_buffer_size()
        assert largest < MIB
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await client.response()).status == 200


async def test_one_timer_looks_after_all_connections_and_stops_with_the_last(tmp_path: Path) -> None:
    async with running_facade(tmp_path, request_idle_seconds=0.4) as running:
        server = running.facade._server
        async with running.as_front_proxy() as client:
            await client.get(f"{PROXY}/x", *ALICE)
            assert server._look_timer is not None
        await running.until(lambda: server._look_timer is None)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET {PROXY}/{'a' * 300_000} HTTP/1.1\r\n{HEAD}\r\n\r\n", 431),
        (f"GET {PROXY}/x HTTP/1.1\r\n{HEAD}\r\nX: {'a' * 300_000}\r\n\r\n", 431),
        (f"GET {PROXY}/x HTTP/1.1\r\n{HEAD}\r\n" + "X: y\r\n" * 5000 + "\r\n", 400),
    ],
    ids=["target", "header", "headers"],
)
async def test_a_head_beyond_its_bounds_is_answered_with_a_status(tmp_path: Path, head: str, status: int) -> None:
    async with running_facade(tmp_path) as running, running.as_front_proxy() as client:
        await client.send(head.encode())
        answer = await client.response()
        assert (answer.status, answer.json()["kind"]) == (status, "Status")
        assert b"aaaa" not in answer.body
        assert running.core.conversations == []
