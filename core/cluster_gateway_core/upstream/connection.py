"""One HTTP/1.1 connection to a cluster, carrying one exchange at a time.

Bytes go out as they are given. Bytes that come in are parsed by llhttp, held up to a bound for a slow reader, and
never decoded. A response counts as complete only when its framing says so: a connection that ends early raises
`ResponseTruncatedError`, whatever was received. After a 101 both directions are opaque.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final

import httptools

from cluster_gateway_core.errors import (
    ClusterUnreachableError,
    GatewayError,
    Hop,
    InvalidResponseError,
    ResponseTruncatedError,
    TLSFailedError,
)
from cluster_gateway_core.model.http import ResponseHead

if TYPE_CHECKING:
    from cluster_gateway_core.model.http import Headers

_SWITCHING_PROTOCOLS: Final = 101
_OK: Final = 200
MAXIMUM_HEAD_BYTES: Final = 1024 * 1024
"""Longest response head; kube-apiserver itself takes heads of this size."""
MAXIMUM_INFORMATIONAL: Final = 10
"""Most 1xx answers before the real one; a cluster sends none unasked."""


class UpstreamConnection(asyncio.Protocol):
    """A connection whose transport is set by the event loop.

    One task at a time may read, another may write. `is_reusable` tells whether another exchange may follow.
    """

    def __init__(self, cluster_name: str, buffer_bytes: int) -> None:
        self._cluster_name = cluster_name
        self._buffer_bytes = buffer_bytes
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._method = ""
        self._in_exchange = False
        self._closed = False
        self._reset()
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._writing_paused = False

    def _reset(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._head: ResponseHead | None = None
        self._bytes_without_body = 0
        self._informational = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._reading_paused = False
        self._complete = False
        self._keep_alive = False
        self._tunnel = False
        self._ends_with_connection = False
        self._end_announced = False
        self._between_chunks = True
        self._failure: GatewayError | None = None
        self._received_any = False
        self._cut = False
        self._half_closed = False

    # What the owner of an exchange calls

    def begin(self, method: str) -> None:
        """Prepare for one exchange; the connection must be reusable or new."""
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        self._method = method
        self._in_exchange = True

    def write(self, data: bytes) -> None:
        """Send bytes; `drain` afterwards keeps them from piling up."""
        if self._transport is not None and not self._closed:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until what was written is mostly on the wire; returns at once when the connection is gone."""
        if self._writing_paused and not self._closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            await waiter

    async def response_head(self) -> ResponseHead:
        """Wait for the response's head.

        Raises:
            ClusterUnreachableError: The connection ended before any byte of a response.
            ResponseTruncatedError: It ended within the head.
            InvalidResponseError: What came is not HTTP, or a switch of protocol that was not asked for.
        """
        while self._head is None:
            self._raise_failure()
            await self._readable()
        return self._head

    def take_body(self) -> tuple[bytes, bool]:
        """Return what has arrived of the body, and whether that was the last of it; never waits.

        Raises:
            GatewayError: Everything received was taken before, and the response cannot be completed.
        """
        chunks = self._chunks
        if not chunks:
            self._raise_failure()
            return b"", self._complete
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._reading_paused and self.is_open:
            self._resume_reading()
        return body, self._complete and self._failure is None

    async def body_readable(self) -> None:
        """Wait until `take_body` has something new to tell, or `wake` was called."""
        if not (self._chunks or self._complete or self._failure):
            await self._readable()

    def wake(self) -> None:
        """Let `body_readable` return though nothing came."""
        self._wake()

    @property
    def is_between_chunks(self) -> bool:
        """Whether all that was received has been taken and ends with a whole chunk.

        False within any body that is not chunked.
        """
        return self._between_chunks and not self._chunks

    def end_exchange(self) -> None:
        """Say that the exchange is over, so that unexpected bytes close the connection."""
        self._in_exchange = False

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow: the last answer is complete, was taken whole, and nothing else came."""
        whole = self._complete and not self._chunks and self._failure is None
        return whole and self._keep_alive and not self._closed

    @property
    def is_open(self) -> bool:
        """Whether the connection can still carry bytes."""
        return not self._closed and self._transport is not None and not self._transport.is_closing()

    @property
    def has_received(self) -> bool:
        """Whether any byte has arrived in this exchange."""
        return self._received_any

    def close(self) -> None:
        """Close after what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def half_close(self) -> None:
        """End this side of a tunnel after what was written has been sent.

        Over TLS the other side ends as well: a close_notify makes Go's servers close, and asyncio reads no further.
        """
        if self._transport is None or self._closed:
            return
        self._half_closed = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, so that the cluster sees the exchange cut; an answer in progress is never complete then."""
        self._cut = True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by the loop's contract

    def data_received(self, data: bytes) -> None:
        """Take bytes from the cluster; asyncio.Protocol."""
        if not self._in_exchange:
            self.abort()  # bytes nobody asked for must not be read as the next answer
            return
        self._received_any = True
        if self._tunnel:
            self._append(data)
        else:
            self._parse(data)
        self._wake()

    def eof_received(self) -> bool:
        """Take the end of the cluster's bytes; asyncio.Protocol.

        Where the end of the connection is the end of the body, TLS must say that it is: anybody on the way can end TCP.
        Source: RFC 9112 section 9.8; crypto/tls, Conn.Read, which reports io.ErrUnexpectedEOF.
        """
        if self._in_exchange and not self._tunnel and not self._complete:
            # uvloop does not call this at all when TCP ends without a close_notify, asyncio does
            self._end_announced = self._ended_by_cluster()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection; asyncio.Protocol."""
        self._closed = True
        if self._in_exchange and not self._complete and self._failure is None:
            if self._may_end_here(exc):
                self._complete = True
            else:
                self._failure = self._lost(exc)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Make `drain` wait; asyncio.Protocol."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let `drain` return; asyncio.Protocol."""
        self._writing_paused = False
        while self._writers:
            waiter = self._writers.popleft()
            if not waiter.done():
                waiter.set_result(None)

    # What the parser calls

    def on_status(self, status: bytes) -> None:
        """Take the reason phrase; httptools."""
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line, or a trailer, which is dropped: trailers never become headers; httptools."""
        if self._head is None:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the end of a head; httptools."""
        if self._head is not None or self._failure is not None:
            return  # a second answer in the same bytes is nobody's
        status = self._parser.get_status_code()
        if status < _OK and status != _SWITCHING_PROTOCOLS:
            self._informational += 1
            self._headers, self._reason = [], b""
            if self._informational > MAXIMUM_INFORMATIONAL:
                self._fail(self._invalid("it sent too many informational answers"))
            return
        if not _has_known_coding(self._headers):
            self._fail(self._invalid("its transfer coding is not chunked"))
            return
        self._head = ResponseHead(status=status, reason=self._reason, headers=self._headers)
        if status == _SWITCHING_PROTOCOLS:
            return
        self._ends_with_connection = not _is_framed(self._headers)
        if self._method == "HEAD":
            # RFC 9110 section 9.3.2: the answer to HEAD has no body whatever its headers say.
            self._finish()

    def on_body(self, body: bytes) -> None:
        """Take body bytes; httptools."""
        if self._complete:
            self._keep_alive = False
        elif self._failure is None:
            self._bytes_without_body = 0
            self._between_chunks = False
            self._append(body)

    def on_chunk_header(self) -> None:
        """Take the start of a chunk; httptools."""
        if self._complete:
            self._keep_alive = False
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Take the end of a chunk; httptools."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """Take the end of a message; httptools."""
        if self._head is not None and self._head.status != _SWITCHING_PROTOCOLS and not self._complete:
            self._finish()

    def on_message_begin(self) -> None:
        """Take the start of a message: a second one within an exchange is nobody's answer; httptools."""
        if self._complete:
            self._keep_alive = False

    # Inside

    def _parse(self, data: bytes) -> None:
        if self._is_decided():
            self._keep_alive = False
            return
        self._bytes_without_body += len(data)
        if self._bytes_without_body > MAXIMUM_HEAD_BYTES:
            self._fail(self._invalid("its head or its trailers are too long"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_decided():
                self._keep_alive = False
            else:
                self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._is_decided():
                self._fail(self._invalid(f"it is not HTTP: {type(error).__name__}"))
            self._keep_alive = False

    def _is_decided(self) -> bool:
        """Whether the answer is complete or has failed, so that further bytes are no part of it."""
        return self._complete or self._failure is not None

    def _switch(self, rest: bytes) -> None:
        """Go on with opaque bytes after a 101."""
        if self._head is None or self._head.status != _SWITCHING_PROTOCOLS:
            self._fail(self._invalid("it switches protocol without a 101"))
            return
        self._tunnel = True
        if rest:
            self._append(rest)

    def _finish(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()

    def _append(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > self._buffer_bytes and not self._reading_paused:
            self._pause_reading()

    def _pause_reading(self) -> None:
        """Let the cluster wait, and keep the end of the connection behind everything in front of it.

        A paused TLS transport still reads some hundred KiB, and drops them when the connection ends meanwhile
        (uvloop, SSLProtocol.eof_received). With this limit it reads once more at most, and no end after that.
        """
        self._reading_paused = True
        transport = self._transport
        if transport is None:
            return
        transport.pause_reading()
        _limit_reading(transport, 1)

    def _resume_reading(self) -> None:
        """Undo `_pause_reading`; the limit only after what the transport holds, which it hands on in a callback."""
        self._reading_paused = False
        transport = self._transport
        if transport is None:
            return
        transport.resume_reading()
        asyncio.get_running_loop().call_soon(self._lift_limit)

    def _lift_limit(self) -> None:
        transport = self._transport
        if transport is not None and not self._reading_paused and not transport.is_closing():
            _limit_reading(transport, None)

    def _fail(self, failure: GatewayError) -> None:
        self._failure = failure
        self.abort()

    def _invalid(self, fault: str) -> InvalidResponseError:
        return InvalidResponseError(
            f"cluster {self._cluster_name} gave an invalid answer: {fault}",
            cluster_name=self._cluster_name,
            hint="Check that the endpoint is a Kubernetes API server.",
        )

    def _may_end_here(self, exc: Exception | None) -> bool:
        """Whether the end of the connection is a proper end of what it carried."""
        if self._cut:
            return False
        if self._tunnel:
            return exc is None or self._half_closed
        return exc is None and self._ends_with_connection and self._end_announced

    def _ended_by_cluster(self) -> bool:
        """Whether the end of TCP was announced by TLS; true without TLS, which cannot tell."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object") if self._transport else None
        if tls is None:
            return True
        try:
            return not tls.read(1)  # nothing left to read: b"" after a close_notify, else SSLWantReadError
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    def _lost(self, exc: Exception | None) -> GatewayError:
        cause = str(exc) or type(exc).__name__ if exc else "the cluster closed it"
        if self._cut:
            return ResponseTruncatedError(
                f"the gateway ended the connection to cluster {self._cluster_name}: its registration has changed",
                cluster_name=self._cluster_name,
                hop=Hop.CORE,
            )
        if isinstance(exc, ssl.SSLError) and not self._received_any:
            # TLS 1.3 servers refuse a client certificate after the handshake.
            return TLSFailedError(
                f"cluster {self._cluster_name} ended TLS: {cause}",
                cluster_name=self._cluster_name,
                hint="Check the client certificate in the cluster's Secret.",
            )
        if not self._received_any:
            return ClusterUnreachableError(
                f"the connection to cluster {self._cluster_name} ended before it answered: {cause}",
                cluster_name=self._cluster_name,
                retry_after_seconds=1,
            )
        return ResponseTruncatedError(
            f"the connection to cluster {self._cluster_name} ended within its answer: {cause}",
            cluster_name=self._cluster_name,
        )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _readable(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _limit_reading(transport: asyncio.Transport, high: int | None) -> None:
    """Set from how many bytes on a TLS transport leaves the socket alone; None for its default."""
    limit = getattr(transport, "set_read_buffer_limits", None)
    if limit is not None:
        limit(high)


def _is_framed(headers: Headers) -> bool:
    """Whether a response's end can be told from the response itself.

    Source: RFC 9112 section 6.3.
    """
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)


def _has_known_coding(headers: Headers) -> bool:
    """Whether the body travels as it is or chunked: any other coding would reach the caller without its name.

    Source: net/http, transferReader.parseTransferEncoding, which refuses the same.
    """
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    return not codings or (len(codings) == 1 and codings[0].strip().lower() == b"chunked")
