"""What tunnels carry: every byte in order both ways, none held beyond a bound, none waiting for another tunnel."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from tests.support.effort import effort
from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.running_facade import client_tls
from tests.support.scripted_cluster import Hold, Receive, Send
from tests.support.tunnel_cluster import echo, tunnel_cluster, websocket_server
from tests.support.upgrades import behind_gateway, switch, switched
from tests.support.upstreams import make_cluster

from cluster_gateway_core.settings import UpstreamSettings
from cluster_gateway_facade.serving import tunnel as tunnel_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.raw_client import RawClient
    from tests.support.tunnel_cluster import Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TUNNEL_BYTES = effort("TUNNEL_BYTES", 32 * 1024 * 1024)
"""Each way; the catalogue's own figure is 1 GiB."""
_PIECE = random.Random(29).randbytes(64 * 1024)  # noqa: S311 - filler
_LIMIT_SECONDS = max(60.0, _TUNNEL_BYTES / 2_000_000)
_ONE_READ_BYTES = 256 * 1024
"""Most that one read of a TLS connection adds to what is held, before it pauses."""


def piece(number: int) -> bytes:
    return number.to_bytes(8, "big") + _PIECE[8:]


async def send_pieces(write: Any, drain: Any, total: int) -> bytes:
    """Send numbered pieces; returns their digest."""
    digest = hashlib.sha256()
    for number in range(total // len(_PIECE)):
        data = piece(number)
        digest.update(data)
        write(data)
        await drain()
    return digest.digest()


async def digest_of(reader: asyncio.StreamReader, total: int) -> bytes:
    """Read that many bytes; returns their digest."""
    digest = hashlib.sha256()
    left = total
    while left:
        data = await reader.read(min(left, 1024 * 1024))
        if not data:
            raise EOFError(f"{left} bytes are missing")
        digest.update(data)
        left -= len(data)
    return digest.digest()


@asynccontextmanager
async def tunnelling(folder: Path, talk: Talk) -> AsyncIterator[GatewayPair]:
    async with tunnel_cluster(talk) as address, gateway_pair(folder, make_cluster(address)) as pair:
        yield pair
        await pair.until_idle()


@asynccontextmanager
async def tunnel(pair: GatewayPair, protocol: str = "SPDY/3.1") -> AsyncIterator[RawClient]:
    async with pair.facade.as_front_proxy() as client:
        await client.send(switch(protocol))
        assert (await client.head())[0] == 101
        yield client


@pytest.mark.timeout(_LIMIT_SECONDS + 30)
async def test_large_data_both_ways_at_once_is_intact(tmp_path: Path) -> None:
    """UP-29: TUNNEL_BYTES sets how much."""
    total = _TUNNEL_BYTES // len(_PIECE) * len(_PIECE)
    at_cluster: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent, received = await asyncio.gather(send_pieces(writer.write, writer.drain, total), digest_of(reader, total))
        at_cluster.extend((sent, received))

    async with tunnelling(tmp_path, talk) as pair, tunnel(pair) as client, asyncio.timeout(_LIMIT_SECONDS):
        sent, received = await asyncio.gather(
            send_pieces(client.writer.write, client.writer.drain, total), digest_of(client._reader, total)
        )
        await client.rest()
    assert at_cluster == [received, sent]
    assert sent == received  # both sent the same, independently


@pytest.mark.parametrize("protocol", ["websocket", "SPDY/3.1"])
async def test_pieces_of_every_size_come_back_equal(tmp_path: Path, protocol: str) -> None:
    """RC-1, RC-2: 1 B to 1 MiB."""
    sizes = [*range(1, 18), 125, 126, 127, 4095, 4096, 16384, 65535, 65536, 131073, 524289, 1024 * 1024]
    chance = random.Random(2)  # noqa: S311 - filler
    async with tunnelling(tmp_path, echo) as pair, tunnel(pair, protocol) as client:
        for size in sizes:
            data = chance.randbytes(size)
            _, back = await asyncio.gather(client.send(data), client.read(size))
            assert back == data, size


async def test_four_tunnels_of_random_data_are_intact(tmp_path: Path) -> None:
    """RC-3, RC-10."""

    async def converse(pair: GatewayPair, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - filler
        async with tunnel(pair) as client:
            for _ in range(30):
                data = chance.randbytes(chance.randint(1, 200_000))
                _, back = await asyncio.gather(client.send(data), client.read(len(data)))
                assert back == data

    async with tunnelling(tmp_path, echo) as pair, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for seed in range(4):
            group.create_task(converse(pair, seed), name=f"tunnel {seed}")


def _most_in_kernel_bytes() -> int:
    """What the sockets of both TCP connections on the way may hold; systems differ in it by tens of MiB."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{kind}").read_text().split()[2] for kind in ("rmem", "wmem")]
    return 2 * sum(int(limit) for limit in limits)


async def test_a_slow_client_holds_its_cluster_back_and_nobody_else(tmp_path: Path) -> None:
    """UP-30, RC-3, RC-16: 10 KiB/s on one tunnel; the bound is that of load case L7."""
    chance = random.Random(30)  # noqa: S311 - filler
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        if (await reader.readexactly(1)) == b"e":
            await echo(reader, writer)
            return
        while True:
            writer.write(_PIECE)
            sent += len(_PIECE)
            await writer.drain()

    async with tunnelling(tmp_path, flood) as pair, tunnel(pair) as slow:
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (stalled,) = pair.facade.facade._server._open
        await slow.send(b"f")
        got = 0
        async with tunnel(pair) as sibling:
            await sibling.send(b"e")
            for _ in range(10):
                slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
                got += len(await slow.read(10 * 1024))
                slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
                data = chance.randbytes(500_000)
                _, back = await asyncio.gather(sibling.send(data), sibling.read(len(data)))
                assert back == data
                await asyncio.sleep(0.1)  # the pace of the slow one, not a wait for anything
                (upstream,) = pair.directory._upstreams.values()
                held = [one._response.buffered_bytes for one in upstream._busy]
                assert max(held) <= UpstreamSettings().buffer_bytes + _ONE_READ_BYTES
                assert stalled.transport is not None
                assert stalled.transport.get_write_buffer_size() <= 1024 * 1024  # type: ignore[attr-defined]
        assert sent - got < _most_in_kernel_bytes() + 4 * 1024 * 1024


async def test_a_slow_cluster_holds_its_client_back_and_nobody_else(tmp_path: Path) -> None:
    """UP-30, RC-3."""
    chance = random.Random(31)  # noqa: S311 - filler
    stall = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readexactly(1)) == b"e":
            await echo(reader, writer)
            return
        await stall.wait()

    async with tunnelling(tmp_path, take) as pair, tunnel(pair) as slow:
        (stalled,) = pair.facade.facade._server._open
        await slow.send(b"s")
        flooding = asyncio.get_running_loop().create_task(
            send_pieces(slow.writer.write, slow.writer.drain, 1024 * 1024 * 1024), name="flood"
        )
        receiver: Any = stalled._payload_parser  # type: ignore[attr-defined]
        await pair.facade.until(lambda: receiver._paused)
        async with tunnel(pair) as sibling:
            await sibling.send(b"e")
            for _ in range(10):
                data = chance.randbytes(500_000)
                _, back = await asyncio.gather(sibling.send(data), sibling.read(len(data)))
                assert back == data
                assert receiver._buffered <= tunnel_module._BUFFER_BYTES + _ONE_READ_BYTES
        assert not flooding.done()
        flooding.cancel()
        await asyncio.wait({flooding})
        stall.set()
        slow.writer.transport.abort()


async def test_a_tunnel_opened_late_works_as_the_first(tmp_path: Path) -> None:
    """RC-5."""
    async with tunnelling(tmp_path, echo) as pair, AsyncExitStack() as stack:
        for number in range(5):
            client = await stack.enter_async_context(tunnel(pair))
            await client.send(b"%d" % number)
            assert await client.read(1) == b"%d" % number


async def test_all_tunnels_of_a_cluster_that_is_removed_end_visibly(tmp_path: Path) -> None:
    """RC-9, RC-15: no hang, and a lost connection does not look like an end."""
    async with tunnelling(tmp_path, echo) as pair, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(tunnel(pair)) for _ in range(4)]
        for client in clients:
            await client.send(b"x")
            assert await client.read(1) == b"x"
        gone = pair.registry.clusters.pop("managed1")
        pair.directory.registration_changed("managed1", gone, None)
        for client in clients:
            with pytest.raises(ConnectionResetError):
                await client.line()
        async with pair.facade.as_front_proxy() as client:  # what comes after the loss is refused
            await client.send(switch())
            response = await client.response()
            assert (response.status, "no such cluster managed1" in response.json()["message"]) == (503, True)


async def test_a_heartbeat_is_answered_through_the_tunnel(tmp_path: Path) -> None:
    """RC-11."""
    beats = asyncio.Queue[bytes]()

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        talk = web.WebSocketResponse(autoping=False)
        await talk.prepare(request)
        async for message in talk:
            if message.type is WSMsgType.PING:
                beats.put_nowait(message.data)
                await talk.pong(message.data)
        return talk

    async with (
        websocket_server(serve) as address,
        gateway_pair(tmp_path, make_cluster(address)) as pair,
        ClientSession() as session,
    ):
        identities = pair.facade.identities
        async with session.ws_connect(
            f"https://127.0.0.1:{pair.facade.port}{pair.path()}",
            ssl=client_tls(identities.serving_ca, identities.front_proxy, tmp_path),
            headers={"X-Remote-User": "alice"},
            autoping=False,
        ) as talk:
            for beat in (b"1", b"2", b"3"):
                await talk.ping(beat)
                async with asyncio.timeout(20):
                    assert await beats.get() == beat
                    pong = await talk.receive()
                assert (pong.type, pong.data) == (WSMsgType.PONG, beat)
        await pair.until_idle()


async def test_a_text_frame_is_the_peers_affair_and_their_error_arrives(tmp_path: Path) -> None:
    """RC-7: channels are binary; who gets text closes with 1003, and the tunnel carries both."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        talk = web.WebSocketResponse()
        await talk.prepare(request)
        message = await talk.receive()
        assert (message.type, message.data) == (WSMsgType.TEXT, "text")
        await talk.send_str("no text, please")
        await talk.close(code=1003)
        return talk

    async with (
        websocket_server(serve) as address,
        gateway_pair(tmp_path, make_cluster(address)) as pair,
        ClientSession() as session,
    ):
        identities = pair.facade.identities
        async with session.ws_connect(
            f"https://127.0.0.1:{pair.facade.port}{pair.path()}",
            ssl=client_tls(identities.serving_ca, identities.front_proxy, tmp_path),
            headers={"X-Remote-User": "alice"},
        ) as talk:
            await talk.send_str("text")
            assert await talk.receive_str() == "no text, please"
            assert (await talk.receive()).data == 1003
        await pair.until_idle()


async def test_a_client_that_misses_its_heartbeat_ends_both_sides(tmp_path: Path) -> None:
    """RC-11: the client's own timeout; the cluster must not be left with half a tunnel."""
    accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched("websocket", accept)), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(
            switch("websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
        )
        assert (await client.head())[0] == 101
        ping = b"\x89\x81\x00\x00\x00\x001"
        await client.send(ping)
        await cluster.connections[0].wait_for_bytes(ping)
        client.writer.close()
        await cluster.connections[0].wait_ended()


async def test_a_handshake_that_fails_tells_why(tmp_path: Path) -> None:
    """RC-12, RC-16: the cluster's Status reaches the client with its code."""
    status = b'{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pods \\"p\\" not found","code":404}'
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    async with (
        behind_gateway(tmp_path, (Receive(), Send(answer % (len(status), status)), Hold())) as (pair, _),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch("websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io"))
        response = await client.response()
        assert (response.status, response.body) == (404, status)
        assert response.values("Content-Type") == ["application/json"]
