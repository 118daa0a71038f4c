"""A cluster over TLS that switches every request to whatever protocol it asks for, and then talks as a test says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from tests.support.scripted_cluster import serving_context
from tests.support.stream_cluster import stream_cluster
from tests.support.upstreams import SERVER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable

    Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back whatever comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def tunnel_cluster(talk: Talk) -> AsyncIterator[str]:
    """Serve on loopback; yields the address. A tunnel ends in good order when its talk does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        (upgrade,) = (line for line in head if line.lower().startswith("upgrade:"))
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}\r\n\r\n".encode())
        await talk(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with stream_cluster(serve) as cluster:
        yield cluster.secure


@asynccontextmanager
async def websocket_server(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve a handler of aiohttp's over the cluster's TLS; yields the address."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving_context(SERVER))
    await site.start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
