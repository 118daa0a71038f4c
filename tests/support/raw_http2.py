"""HTTP/2 by hand, for what no well-behaved client does. Source: RFC 9113, RFC 7541."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE: Final = 0x4
CANCEL: Final = 0x8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: str, value: str) -> bytes:
    """A header field without compression; RFC 7541 section 6.2.2. Neither text may be longer than 126 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def request_fields(path: str) -> bytes:
    """The head of a gRPC call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "core", "te": "trailers"}
    return b"".join(field(name, value) for name, value in (fields | {"content-type": "application/grpc"}).items())


def message(payload: bytes) -> bytes:
    """A gRPC message, not compressed."""
    return b"\0" + struct.pack(">I", len(payload)) + payload


class RawConnection:
    """One connection on a unix socket; pings are answered, the rest is kept.

    Attributes:
        frames: Kind, flags, stream and payload of what came.
        closed: Set when the server has closed it.
    """

    def __init__(self, path: str, settings: Mapping[int, int] | None = None) -> None:
        self._path = path
        self._settings = settings or {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.closed = asyncio.Event()
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        settings = b"".join(struct.pack(">HI", number, value) for number, value in self._settings.items())
        self._writer.write(_PREFACE + frame(SETTINGS, 0, 0, settings))
        self._task = asyncio.get_running_loop().create_task(self._read(), name="raw HTTP/2")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        await self._task

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting while the server reads slowly; without effect once it has closed the connection."""
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.closed.set()

    @property
    def ended_streams(self) -> set[int]:
        """Those that the server has ended, in whatever way."""
        return {
            stream
            for kind, flags, stream, _ in self.frames
            if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)
        }

    async def wait_for(self, kind: int, stream: int | None = None) -> bytes:
        """Wait for a frame; returns its payload."""
        while True:
            for one in self.frames:
                if one[0] == kind and stream in (None, one[2]):
                    return one[3]
            self._came.clear()
            await self._came.wait()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                if kind == PING and not flags & ACK:
                    self._writer.write(frame(PING, ACK, 0, payload))
                elif kind == SETTINGS and not flags & ACK:
                    self._writer.write(frame(SETTINGS, ACK, 0))
                else:
                    self.frames.append((kind, flags, stream, payload))
                self._came.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
            self._came.set()
