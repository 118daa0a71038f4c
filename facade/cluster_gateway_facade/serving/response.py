"""Writing responses as bytes, so that a relayed one leaves as it came.

aiohttp's own response classes add headers (Server, Date, Content-Type) and would complete a body that was cut.
The handler therefore writes to the transport itself and returns one of two markers that tell aiohttp's
connection loop whether another request may follow.
"""

from __future__ import annotations

import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, cast

from aiohttp import HttpVersion10, web

from cluster_gateway_client.errors import CoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from aiohttp.abc import AbstractStreamWriter

    from cluster_gateway_facade.exchange import Answer

_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_SMALLEST_FINAL: Final = 200
_OWN_FRAMING: Final = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"trailer"})
"""RFC 9110 section 7.6.1: of one hop, and this hop writes its own."""


class _Drains(Protocol):
    """What this asks of a connection: whether it takes no further request."""

    draining: bool


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
        """Wait until most of it is on the wire: answers to pipelined requests must not pile up."""
        if request.transport is not None:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the body is written."""


CONTINUES: Final = Written(keep_alive=True)
CLOSES: Final = Written(keep_alive=False)


def write_answer(request: web.BaseRequest, answer: Answer, *, last: bool = False) -> Written:
    """Send a whole response of the facade's own; `last` closes the connection behind it."""
    keep_alive = not last and may_continue(request)
    status = HTTPStatus(answer.status)
    lines = [f"HTTP/1.1 {status:d} {status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"]
    if answer.body or answer.status not in (_NO_CONTENT, _NOT_MODIFIED):
        lines.append(f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
    if not keep_alive:
        lines.append("Connection: close\r\n")
    lines.append("\r\n")
    head = "".join(lines).encode("latin-1", "replace")
    _transport(request).write(head if request.method == "HEAD" else head + answer.body)
    return CONTINUES if keep_alive else CLOSES


def may_continue(request: web.BaseRequest) -> bool:
    """Whether another request may follow: the client wants it, has sent all of this one, and may go on.

    HTTP/1.0 connections are not kept: their clients would need to be told, and none that matters asks.
    """
    return (
        request.keep_alive
        and request.version != HttpVersion10
        and request.content.is_eof()
        and not cast("_Drains", request.protocol).draining
    )


class RelayedResponse:
    """A response whose head and body arrive in pieces and leave as they are.

    The body keeps its Content-Length where the cluster gave one; else it is chunked, or for an HTTP/1.0 client
    ends with the connection. Nothing but `finish` completes it.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._transport = _transport(request)
        self._chunked = False
        self._has_body = True
        self._remaining: int | None = None
        self._keep_alive = False
        self.started = False

    def start(self, status: int, reason: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the head's bytes, to be sent with the body's first ones by `write`.

        Raises:
            CoreError: It would not be one response for every client.
        """
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
        lengths: set[bytes] = set()
        for name, value in headers:
            lowered = name.lower()
            if lowered in _OWN_FRAMING:
                continue
            if lowered == b"content-length":
                if status == _NO_CONTENT:
                    continue  # RFC 9110 section 8.6 forbids it, and who believes it waits for a body
                lengths.add(value)
            lines += (name, b": ", value, b"\r\n")
        # Each header is four pieces; a line break inside one would make two lines of it.
        head, line_count = b"".join(lines), 1 + (len(lines) - 1) // 4
        if status < _SMALLEST_FINAL or not head.count(b"\n") == head.count(b"\r") == line_count:
            raise _invalid("the cluster's response has a malformed head")
        head += self._frame(status, lengths)
        self.started = True
        return head

    def _frame(self, status: int, lengths: set[bytes]) -> bytes:
        """Decide how the body ends, and return the head's last lines."""
        # RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5: these have no body whatever their headers say.
        self._has_body = self._request.method != "HEAD" and status not in (_NO_CONTENT, _NOT_MODIFIED)
        self._keep_alive = may_continue(self._request)
        lines = b""
        if self._has_body and lengths:
            self._remaining = _length(lengths)
        elif self._has_body and self._request.version != HttpVersion10:
            self._chunked = True
            lines = b"Transfer-Encoding: chunked\r\n"
        return lines + (b"\r\n" if self._keep_alive else b"Connection: close\r\n\r\n")

    def write(self, head: bytes, body: bytes, *, end: bool) -> None:
        """Send what there is of head and body; `end` completes the body.

        Raises:
            CoreError: The body is not as long as the head said.
        """
        if not self._has_body:
            data = head
        elif self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            data = head + chunk + (b"0\r\n\r\n" if end else b"")
        else:
            if self._remaining is not None:
                self._remaining -= len(body)
                if self._remaining < 0 or (end and self._remaining):
                    raise CoreError(
                        "RESPONSE_TRUNCATED",
                        "the body is not as long as its head said",
                        hop="CLUSTER",
                        hint="Ask again; if it lasts, look at the cluster's API server.",
                    )
            data = head + body
        if data:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the client is slow."""
        await self._request.writer.drain()

    def finish(self) -> Written:
        """Say that the response is complete."""
        return CONTINUES if self._keep_alive and may_continue(self._request) else CLOSES

    def end_early(self) -> Written:
        """Complete a body at a boundary that its reader knows; one of a promised length is cut instead."""
        if self._has_body and not self._chunked:
            return self.abort()
        self.write(b"", b"", end=True)
        return CLOSES

    def abort(self) -> Written:
        """Cut the connection, so that a response without its end cannot be taken for a whole one."""
        reset(self._transport)
        return CLOSES


def reset(transport: asyncio.Transport) -> None:
    """Close at once and visibly so: to who reads until the end of the connection, an orderly end looks complete."""
    # asyncio's TLS transport fails the question once it is gone.
    sock = None if transport.is_closing() else transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _length(lengths: set[bytes]) -> int:
    """Read Content-Length. Raises CoreError where it is none, or several that differ (RFC 9112 section 6.3)."""
    value = next(iter(lengths))
    if len(lengths) > 1 or not value.isdigit():
        raise _invalid("the cluster's response has no one Content-Length")
    return int(value)


def _invalid(fault: str) -> CoreError:
    hint = "Check that the cluster's endpoint is a Kubernetes API server."
    return CoreError("INVALID_RESPONSE", fault, hop="CLUSTER", hint=hint)


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    return transport
