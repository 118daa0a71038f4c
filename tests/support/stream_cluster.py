"""A cluster whose connections a coroutine of the test serves, at one address over TLS and at another without."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.scripted_cluster import serving_context
from tests.support.upstreams import SERVER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StreamCluster:
    """The connections of both addresses; each is aborted when its coroutine returns.

    Attributes:
        plain: Address without TLS.
        secure: Address over TLS.
    """

    def __init__(self, serve: Serve) -> None:
        self.plain = ""
        self.secure = ""
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection; asyncio.start_server."""
        task = asyncio.get_running_loop().create_task(self._run(reader, writer), name="cluster's connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End what is open."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError):
            pass  # the other side has ended
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def stream_cluster(serve: Serve) -> AsyncIterator[StreamCluster]:
    """Serve on loopback."""
    cluster = StreamCluster(serve)
    servers = [
        await asyncio.start_server(cluster.accept, "127.0.0.1", 0, ssl=tls, backlog=512)
        for tls in (None, serving_context(SERVER))
    ]
    plain, secure = (server.sockets[0].getsockname()[1] for server in servers)
    cluster.plain, cluster.secure = f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}"
    try:
        yield cluster
    finally:
        for server in servers:
            server.close()
        await cluster.stop()
        for server in servers:
            await server.wait_closed()
