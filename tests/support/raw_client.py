"""A client that writes the bytes it is told to and shows the bytes that come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

LIMIT_SECONDS = 20.0
_HEAD_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResponse:
    """One response as it was on the wire.

    Attributes:
        status: Status code.
        reason: Reason phrase.
        headers: Names and values as sent, in order.
        body: The body, without chunk framing.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, target: str, *headers: str, method: str = "GET") -> RawResponse:
        lines = "".join(f"{header}\r\n" for header in headers)
        await self.send(f"{method} {target} HTTP/1.1\r\nHost: gateway\r\n{lines}\r\n".encode("latin-1"))
        return await self.response(bodiless=method == "HEAD")

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Read a response's head."""
        status, _, headers = await self._head()
        return status, headers

    async def _head(self) -> tuple[int, str, list[tuple[str, str]]]:
        async with asyncio.timeout(LIMIT_SECONDS):
            data = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = data.decode("latin-1").split("\r\n")[:-2]
        version, status, reason = first.split(" ", 2)
        assert version == "HTTP/1.1"
        return int(status), reason, [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]

    async def response(self, *, bodiless: bool = False) -> RawResponse:
        """Read a whole response; IncompleteReadError or ConnectionError where it is cut."""
        status, reason, headers = await self._head()
        named = {name.lower(): value for name, value in headers}
        async with asyncio.timeout(LIMIT_SECONDS):
            if bodiless or status < 200 or status in (204, 304):
                body = b""
            elif "content-length" in named:
                body = await self._reader.readexactly(int(named["content-length"]))
            elif "transfer-encoding" in named:
                body = await self._chunks()
            else:
                body = await self._reader.read()
        return RawResponse(status=status, reason=reason, headers=headers, body=body)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(LIMIT_SECONDS):
            return await self._reader.readexactly(size)

    async def line(self) -> bytes:
        async with asyncio.timeout(LIMIT_SECONDS):
            return await self._reader.readline()

    async def rest(self) -> bytes:
        """Read until the server closes; what came before a reset counts."""
        pieces = []
        async with asyncio.timeout(LIMIT_SECONDS):
            try:
                while piece := await self._reader.read(65536):
                    pieces.append(piece)
            except ConnectionError:
                pass
        return b"".join(pieces)

    def reset(self) -> None:
        """End the connection with a RST."""
        sock = self.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            pieces.append(await self._reader.readexactly(size))
            assert await self._reader.readexactly(2) == b"\r\n"
        assert await self._reader.readexactly(2) == b"\r\n"
        return b"".join(pieces)


@asynccontextmanager
async def raw_client(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawClient]:
    """Connect, and close at once in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=_HEAD_BYTES)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
