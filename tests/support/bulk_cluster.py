"""A cluster for load: endless or idle answers by path, over TLS on loopback.

`/list/<bytes>` answers a body of that length, `/watch` one event and then nothing, and any request with a body is read
and answered with the SHA-256 of what came; below `/frozen` it is not read at all.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final, Self, cast

from tests.support.scripted_cluster import serving_context

if TYPE_CHECKING:
    from tests.support.hub_certificates import Identity

PIECE: Final = bytes(range(256)) * 256
"""What bodies are made of, over and over: 64 KiB."""
_EVENT: Final = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n'


class BulkConnection(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, cluster: BulkCluster) -> None:
        self._cluster = cluster
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._remaining_upload = 0
        self._digest = hashlib.sha256()
        self._remaining_download = 0
        self._writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(len(PIECE))
        self._cluster.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._cluster.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._remaining_upload:
            self._take_upload(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            head, rest = bytes(self._head[:end]), bytes(self._head[end + 4 :])
            self._head.clear()
            self._answer(head, rest)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._pump()

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, head: bytes, rest: bytes) -> None:
        transport = self._transport
        assert transport is not None
        self._cluster.requests += 1
        path = head.split(b" ", 2)[1]
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if path.startswith(b"/frozen"):
            transport.pause_reading()
        elif lengths:
            self._remaining_upload = int(lengths[0].partition(b":")[2])
            self._digest = hashlib.sha256()
            self._take_upload(rest)
        elif path.startswith(b"/list/"):
            self._remaining_download = int(path.removeprefix(b"/list/"))
            transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % self._remaining_download
            )
            self._pump()
        else:
            transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
            )

    def _take_upload(self, data: bytes) -> None:
        self._cluster.received_bytes += len(data)
        self._digest.update(data)
        self._remaining_upload -= len(data)
        if self._remaining_upload <= 0 and self._transport is not None:
            body = self._digest.hexdigest().encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def _pump(self) -> None:
        while self._remaining_download and not self._writing_paused and self._transport is not None:
            piece = PIECE if self._remaining_download >= len(PIECE) else PIECE[: self._remaining_download]
            self._remaining_download -= len(piece)
            self._cluster.sent_bytes += len(piece)
            self._transport.write(piece)


class BulkCluster:
    """Serves on loopback.

    Attributes:
        connections: The open ones.
        requests: How many have come.
        sent_bytes: Body bytes given to the transports.
        received_bytes: Body bytes received.
    """

    def __init__(self, identity: Identity) -> None:
        self.connections: set[BulkConnection] = set()
        self.requests = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self._tls = serving_context(identity)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: BulkConnection(self), "127.0.0.1", 0, ssl=self._tls, backlog=1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in tuple(self.connections):
            connection.stop()
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"https://localhost:{self._server.sockets[0].getsockname()[1]}"


def digest_of(size: int) -> str:
    """SHA-256 of a `/list/<size>` body."""
    digest = hashlib.sha256()
    for _ in range(size // len(PIECE)):
        digest.update(PIECE)
    digest.update(PIECE[: size % len(PIECE)])
    return digest.hexdigest()
