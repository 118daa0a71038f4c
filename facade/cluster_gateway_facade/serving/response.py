"""Writing responses as bytes, so that a relayed one leaves as it came.

aiohttp's own response classes add headers (Server, Date, Content-Type) and would complete a body that was cut. The
handler therefore writes to the transport itself and returns one of two markers that tell aiohttp's connection loop
whether another request may follow.
"""

from __future__ import annotations

import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion10, web

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from aiohttp.abc import AbstractStreamWriter

    from cluster_gateway_facade.exchange import Answer

_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304


class Written(web.StreamResponse):
    """Tells aiohttp that the response is on the wire already."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._may_continue = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether another request may follow on the connection."""
        return self._may_continue

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head is written."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the body is written."""


CONTINUES: Final = Written(keep_alive=True)
CLOSES: Final = Written(keep_alive=False)


def write_answer(request: web.BaseRequest, answer: Answer) -> Written:
    """Send a whole response of the facade's own."""
    keep_alive = request.keep_alive
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"]
    if answer.body or answer.status not in (_NO_CONTENT, _NOT_MODIFIED):
        lines.append(f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
    if not keep_alive:
        lines.append("Connection: close\r\n")
    lines.append("\r\n")
    head = "".join(lines).encode("latin-1", "replace")
    _transport(request).write(head if request.method == "HEAD" else head + answer.body)
    return CONTINUES if keep_alive else CLOSES


class RelayedResponse:
    """A response whose head and body arrive in pieces and leave as they are.

    The body keeps its Content-Length where the cluster gave one; else it is chunked, or for an HTTP/1.0 client ends
    with the connection. Nothing but `finish` completes it.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._transport = _transport(request)
        self._chunked = False
        self._has_body = True
        self._keep_alive = request.keep_alive
        self.started = False

    def start(self, status: int, reason: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the head's bytes, to be sent with the body's first ones by `write`."""
        self.started = True
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
        framed = False
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
            framed = framed or name.lower() == b"content-length"
        # RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5: these have no body whatever their headers say.
        self._has_body = self._request.method != "HEAD" and status not in (_NO_CONTENT, _NOT_MODIFIED)
        if self._has_body and not framed:
            if self._request.version == HttpVersion10:
                self._keep_alive = False
            else:
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
        if not self._keep_alive:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def write(self, head: bytes, body: bytes, *, end: bool) -> None:
        """Send what there is of head and body; `end` completes the body."""
        if not self._has_body:
            data = head
        elif self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            data = head + chunk + (b"0\r\n\r\n" if end else b"")
        else:
            data = head + body
        if data:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the client is slow."""
        await self._request.writer.drain()

    def finish(self) -> Written:
        """Say that the response is complete."""
        return CONTINUES if self._keep_alive else CLOSES

    def abort(self) -> Written:
        """Cut the connection, so that a response without its end cannot be taken for a whole one."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            # A reset instead of an orderly end: to a client that reads until the end of the connection, an orderly
            # end would look like a complete body.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        return CLOSES


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    return transport
