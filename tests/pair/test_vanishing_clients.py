"""Clients that vanish at random points (fault F15): nothing of them stays, and nobody is blamed for them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.support.effort import effort
from tests.support.full_backlog import full_backlog
from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.running_facade import ALICE, client_tls
from tests.support.stream_cluster import stream_cluster
from tests.support.upstreams import make_cluster

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.stream_cluster import StreamCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CLIENTS = effort("CHAOS_CLIENTS", 750)
"""On each event loop; the catalogue's own figure is 10,000."""
_AT_ONCE: Final = 32
_HANG_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 60.0
_EVENT: Final = b'{"type":"ADDED","object":{"kind":"Pod"}}\n'

_KINDS: Final = (
    "handshake",
    "head",
    "body",
    "waiting",
    "response",
    "tunnel",
    "watch",
    "continue",
    "refused",
    "complete",
)


async def serve_busily(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do for ever what the path says: hold, stream, watch, talk."""
    while True:
        await answer(await reader.readuntil(b"\r\n\r\n"), reader, writer)


async def answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    kind = head.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2]
    if kind in (b"waiting", b"body", b"continue"):
        while await reader.read(65536):
            pass
        raise EOFError
    if kind == b"tunnel":
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise EOFError
    if kind == b"refused":
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope")
        return
    if kind == b"complete":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return
    await stream(_EVENT if kind == b"watch" else bytes(8192), writer)


async def stream(piece: bytes, writer: asyncio.StreamWriter) -> None:
    """Send chunks until the other side ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.transport.is_closing():
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0.002)  # the pace of the cluster
    raise EOFError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One client, all of it from its seed.

    Attributes:
        kind: What it asks for.
        sends: How much of its request it sends, of 1.
        reads: How many bytes it waits for before it goes.
        reset: Whether it ends by a RST, by a FIN without a word of TLS, or in good order.
        secure: Whether its cluster speaks TLS.
    """

    kind: str
    sends: float
    reads: int
    end: str
    secure: bool


def make_plan(seed: int) -> Plan:
    chance = random.Random(seed)  # noqa: S311 - reproducible
    kind = _KINDS[seed % len(_KINDS)]
    whole = kind not in ("handshake", "head", "body")
    return Plan(
        kind=kind,
        sends=1.0 if whole else chance.random(),
        reads=chance.choice([0, 0, 1, chance.randint(1, _SPEAKING[kind])]) if kind in _SPEAKING else 0,
        end=chance.choice(["RST", "FIN", "order"]),
        secure=chance.random() < 0.7,
    )


_SPEAKING: Final = {"response": 50_000, "tunnel": 20_000, "watch": 1000, "refused": 100, "complete": 20}
"""How much there is to be had for certain."""


def render(plan: Plan) -> bytes:
    """The client's request, and what it says behind it."""
    cluster = "silent" if plan.kind == "dialling" else "secure" if plan.secure else "plain"
    lines = ["Host: gateway", *ALICE]
    method, rest = "GET", b""
    query = "?watch=true" if plan.kind == "watch" else ""
    if plan.kind in ("tunnel", "refused"):
        lines += ["Connection: Upgrade", "Upgrade: SPDY/3.1"]
        rest = bytes(30_000)
    if plan.kind in ("body", "continue"):
        method, rest = "POST", bytes(60_000)
        lines.append("Content-Length: 60000")
    if plan.kind == "continue":
        lines.append("Expect: 100-continue")
    target = GatewayPair.path(f"/{plan.kind}{query}", cluster)
    return "\r\n".join((f"{method} {target} HTTP/1.1", *lines, "", "")).encode() + rest


async def vanish(plan: Plan, port: int, tls: ssl.SSLContext) -> None:
    """Be a client for a while, and go."""
    if plan.kind == "handshake":
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: int(11 * plan.sends)])
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        request = render(plan)
        writer.write(request[: int(len(request) * plan.sends)])
        got = 0
        with contextlib.suppress(ConnectionError):
            while got < plan.reads and (piece := await reader.read(plan.reads - got)):
                got += len(piece)
    await leave(writer, plan.end)


async def leave(writer: asyncio.StreamWriter, end: str) -> None:
    """End a connection in one of three ways."""
    raw: socket.socket = writer.transport.get_extra_info("socket")
    if not writer.transport.is_closing():
        if end == "RST":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == "FIN":
            with socket.socket(fileno=os.dup(raw.fileno())) as duplicate, contextlib.suppress(OSError):
                duplicate.shutdown(socket.SHUT_RDWR)
    if end == "order":
        writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # its patience for the other side's word
                await asyncio.shield(wait_closed(writer))
    writer.transport.abort()
    await wait_closed(writer)


async def wait_closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    tasks: int
    descriptors: int
    exchanges: int
    clients: int
    busy_upstreams: int
    cluster_connections: int


def measure(pair: GatewayPair, cluster: StreamCluster) -> Footprint:
    pair.directory.close()  # connections kept for later are no leak
    return Footprint(
        tasks=len(asyncio.all_tasks()),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        exchanges=pair.drain.active,
        clients=len(pair.facade.facade._server._open),
        busy_upstreams=sum(len(one._busy) for one in pair.directory._upstreams.values()),
        cluster_connections=cluster.busy,
    )


async def settle(look: Callable[[], Footprint], wanted: Footprint | None = None) -> Footprint:
    """Wait until nothing changes any more, or until it is as wanted."""
    before = look()
    calm = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            while calm < 20 and before != wanted:
                await asyncio.sleep(0.05)  # what is looked at tells nobody that it changed
                now = look()
                calm = calm + 1 if now == before and wanted is None else 0
                before = now
    return before


async def run_clients(pair: GatewayPair, tls: ssl.SSLContext, seeds: range) -> None:
    left = iter(seeds)

    async def work() -> None:
        for seed in left:
            async with asyncio.timeout(_HANG_SECONDS):
                await vanish(make_plan(seed), pair.facade.port, tls)

    async with asyncio.TaskGroup() as group:
        for number in range(_AT_ONCE):
            group.create_task(work(), name=f"client {number}")


@pytest.fixture
def port() -> Iterator[int]:
    """Of a cluster that takes no connection and refuses none."""
    with full_backlog() as port:
        yield port


@pytest.mark.timeout(180 + _CLIENTS // 10)
async def test_clients_that_vanish_at_random_points_leave_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, port: int
) -> None:
    """RT-14, F15: CHAOS_CLIENTS sets how many."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    try:
        async with stream_cluster(serve_busily) as cluster:
            clusters = [
                make_cluster(cluster.plain, name="plain"),
                make_cluster(cluster.secure, name="secure"),
                make_cluster(f"https://127.0.0.1:{port}", name="silent"),
            ]
            async with gateway_pair(tmp_path, *clusters) as pair:
                identities = pair.facade.identities
                tls = client_tls(identities.serving_ca, identities.front_proxy, tmp_path)
                await run_clients(pair, tls, range(2 * len(_KINDS)))
                baseline = await settle(lambda: measure(pair, cluster))
                assert (baseline.exchanges, baseline.clients, baseline.cluster_connections) == (0, 0, 0)
                with caplog.at_level(logging.INFO):
                    await run_clients(pair, tls, range(1000, 1000 + _CLIENTS))
                    after = await settle(lambda: measure(pair, cluster), baseline)
                    gc.collect()
                    await asyncio.sleep(0)
                print(baseline, after)  # noqa: T201 - shown on request
                assert after == baseline
                async with pair.facade.as_front_proxy() as client:  # and it still serves
                    assert (await client.get(pair.path("/complete", "secure"), *ALICE)).body == b"ok"
                await pair.until_idle()
    finally:
        loop.set_exception_handler(None)
    assert unhandled == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert not [message for message in caplog.messages if "INVALID_REQUEST" in message]  # to leave is no mistake
