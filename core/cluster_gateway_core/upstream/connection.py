"""One HTTP/1.1 connection to a cluster, carrying one exchange at a time.

Bytes go out as they are given. Bytes that come in go to a `ResponseReader`, are held up to a bound for a slow reader,
and never decoded. A response counts as complete only when its framing says so: a connection that ends early raises
`ResponseTruncatedError`, whatever was received. After a 101 both directions are opaque.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import deque
from typing import TYPE_CHECKING

from cluster_gateway_core.errors import (
    ClusterUnreachableError,
    GatewayError,
    Hop,
    InvalidResponseError,
    ResponseTruncatedError,
    TLSFailedError,
)
from cluster_gateway_core.upstream.response_reader import ResponseReader
from cluster_gateway_transport import PIECES
from cluster_gateway_transport.peers import tolerate_slow_peer

if TYPE_CHECKING:
    from cluster_gateway_core.model.http import ResponseHead


class UpstreamConnection(asyncio.Protocol):
    """A connection whose transport is set by the event loop.

    One task at a time may read, another may write. `is_reusable` tells whether another exchange may follow.
    """

    def __init__(self, cluster_name: str, buffer_bytes: int) -> None:
        self._cluster_name = cluster_name
        self._buffer_bytes = buffer_bytes
        self._transport: asyncio.Transport | None = None
        self._response = ResponseReader(cluster_name, "")
        self._in_exchange = False
        self._closed = False
        self._end: Exception | None = None
        self._unasked = False
        self._reading_paused = False
        self._end_announced = False
        self._cut = False
        self._half_closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._writing_paused = False

    # What the owner of an exchange calls

    def begin(self, method: str) -> None:
        """Prepare for one exchange; the connection must be reusable or new."""
        self._response = ResponseReader(self._cluster_name, method)
        self._in_exchange = True
        if self._closed:  # a new connection, which the cluster ended at once
            self._response.failure = self._lost(self._end)

    def write(self, data: bytes) -> None:
        """Send bytes; `drain` afterwards keeps them from piling up."""
        if self._transport is not None and not (self._closed or self._cut):
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
        response = self._response
        while response.head is None:
            self._raise_failure()
            await self._readable()
        return response.head

    def take_body(self, limit: int | None = None) -> tuple[bytes, bool]:
        """Return what has arrived of the body, at most `limit` bytes, and whether it ends there; never waits.

        Raises:
            GatewayError: Everything received was taken before, and the response cannot be completed.
        """
        response = self._response
        if not response.chunks:
            self._raise_failure()
            return b"", response.complete
        body = response.take(limit)
        if self._reading_paused and response.buffered_bytes <= self._limit() and self.is_open:
            self._resume_reading()
        return body, response.complete and response.failure is None and not response.chunks

    async def body_readable(self) -> None:
        """Wait until `take_body` has something new to tell, or `wake` was called."""
        response = self._response
        if not (response.chunks or response.complete or response.failure):
            await self._readable()

    def wake(self) -> None:
        """Let `body_readable` return though nothing came."""
        self._wake()

    @property
    def is_between_chunks(self) -> bool:
        """Whether all that was received has been taken and ends with a whole chunk.

        False within any body that is not chunked.
        """
        return self._response.between_chunks and not self._response.chunks

    def end_exchange(self) -> None:
        """Say that the exchange is over, so that unexpected bytes close the connection."""
        if self._in_exchange:
            self._in_exchange = False
            self._response.close()

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow: the last answer is complete, was taken whole, and nothing else came."""
        response = self._response
        whole = response.complete and not response.chunks and response.failure is None
        return whole and response.keep_alive and not (self._closed or self._cut)

    @property
    def is_open(self) -> bool:
        """Whether the connection can still carry bytes."""
        return not self._closed and self._transport is not None and not self._transport.is_closing()

    @property
    def has_received(self) -> bool:
        """Whether any byte has arrived in this exchange."""
        return self._response.has_received

    def close(self) -> None:
        """Close after what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def become_tunnel(self) -> None:
        """Let either side of a tunnel leave bytes unread for as long as it likes."""
        sock = self._transport.get_extra_info("socket") if self._transport else None
        if sock is not None:
            tolerate_slow_peer(sock)

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
        """Close at once, so that the cluster sees the exchange cut; an answer in progress is never complete then.

        What a tunnel carries has no end of its own, so that an orderly end would look like one: it is reset instead.
        """
        self._cut = True
        transport = self._transport
        if transport is None:
            return
        if self._response.tunnel and not self._closed:
            sock: socket.socket | None = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def fail(self, error: GatewayError) -> None:
        """Cut the exchange for a reason of the gateway's own; what was received and not taken yet is dropped."""
        if self._in_exchange:
            self._response.fail(error)
        self.abort()
        self._wake()
        self.resume_writing()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by the loop's contract

    def data_received(self, data: bytes) -> None:
        """Take bytes from the cluster; asyncio.Protocol."""
        if not self._in_exchange:
            self._unasked = True
            self.abort()  # bytes nobody asked for must not be read as the next answer
            return
        response = self._response
        response.feed(data)
        if response.failure is not None:
            self.abort()
        elif response.buffered_bytes > self._limit() and not self._reading_paused:
            self._pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Take the end of the cluster's bytes; asyncio.Protocol.

        Where the end of the connection is the end of the body, TLS must say that it is: anybody on the way can end TCP.
        Source: RFC 9112 section 9.8; crypto/tls, Conn.Read, which reports io.ErrUnexpectedEOF.
        """
        response = self._response
        if self._in_exchange and not response.tunnel and not response.complete:
            # uvloop does not call this at all when TCP ends without a close_notify, asyncio does
            self._end_announced = self._ended_by_cluster()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection; asyncio.Protocol."""
        self._closed = True
        self._end = exc
        response = self._response
        if self._in_exchange and not response.complete and response.failure is None:
            if self._may_end_here(exc):
                response.complete = True
            else:
                response.failure = self._lost(exc)
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

    # Inside

    def _limit(self) -> int:
        """Bytes to hold before the socket is left alone; one read more may come."""
        return min(self._buffer_bytes, PIECES.size // 2)

    def _pause_reading(self) -> None:
        """Let the cluster wait: its socket is not read on, and so its end stays behind everything in front of it."""
        self._reading_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._reading_paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    def _may_end_here(self, exc: Exception | None) -> bool:
        """Whether the end of the connection is a proper end of what it carried."""
        if self._cut:
            return False
        if self._response.tunnel:
            return exc is None or self._half_closed
        return exc is None and self._response.ends_with_connection and self._end_announced

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
        if self._unasked:
            return InvalidResponseError(
                f"cluster {self._cluster_name} sent bytes before it was asked for anything",
                cluster_name=self._cluster_name,
                hint="Check that the endpoint is a Kubernetes API server.",
            )
        if self._cut:
            return ResponseTruncatedError(
                f"the gateway ended the connection to cluster {self._cluster_name}: its registration has changed",
                cluster_name=self._cluster_name,
                hop=Hop.CORE,
            )
        if isinstance(exc, ssl.SSLError) and not self._response.has_received:
            # TLS 1.3 servers refuse a client certificate after the handshake.
            return TLSFailedError(
                f"cluster {self._cluster_name} ended TLS: {cause}",
                cluster_name=self._cluster_name,
                hint="Check the client certificate in the cluster's Secret.",
            )
        if not self._response.has_received:
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
        if self._response.failure is not None:
            raise self._response.failure

    async def _readable(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
