"""Taking a connection over for an upgrade.

The one place where aiohttp's connection hands bytes on unparsed is the hook through which its own WebSocket
reader is installed; a tunnel goes there. What arrived between the request's head and then, the connection has
held: no byte behind the head is ever parsed as HTTP. A contract test holds aiohttp to this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from cluster_gateway_facade.serving.response import reset

if TYPE_CHECKING:
    from aiohttp import web

_BUFFER_BYTES: Final = 128 * 1024
"""Bytes held for a slow cluster before the client's socket is no longer read."""


class ClientTunnel:
    """The client's side of an upgraded connection."""

    def __init__(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        self._writer = request.writer
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._ended = False
        self._readable = asyncio.Event()
        request.protocol.set_parser(cast("Any", self))

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes from the client; called by aiohttp's connection."""
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > _BUFFER_BYTES and not self._paused:
            self._pause_reading()
        self._readable.set()
        return False, b""

    def feed_eof(self) -> None:
        """Take the end of the client's bytes; called by aiohttp's connection."""
        self._ended = True
        self._readable.set()

    async def receive(self) -> bytes:
        """Wait for bytes from the client; empty once it has ended and everything was returned."""
        while not self._chunks and not self._ended:
            self._readable.clear()
            await self._readable.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused and not self._transport.is_closing():
            self._resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        """Send bytes to the client, waiting while it is slow. Raises ConnectionError when it is gone."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Close after what was sent has left."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once, so that the client sees that it was cut."""
        reset(self._transport)

    def _pause_reading(self) -> None:
        """Let the client wait: its socket is not read on, and so its end stays behind everything in front of it."""
        self._paused = True
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._paused = False
        self._transport.resume_reading()
