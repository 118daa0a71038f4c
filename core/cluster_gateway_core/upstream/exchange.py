"""One request to a cluster and its answer, on a connection of the cluster's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from cluster_gateway_core.errors import (
    ClusterUnreachableError,
    Hop,
    InvalidRequestError,
    ResponseTruncatedError,
    TLSFailedError,
    UpstreamTimeoutError,
)
from cluster_gateway_core.upstream.request_head import Framing, choose_framing, render_request_head

if TYPE_CHECKING:
    from cluster_gateway_core.errors import GatewayError
    from cluster_gateway_core.model.http import Headers, RequestHead, ResponseHead
    from cluster_gateway_core.upstream.connection import UpstreamConnection
    from cluster_gateway_core.upstream.deadline import Deadline
    from cluster_gateway_core.upstream.upstream import Upstream

_REPLAYABLE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that may be sent twice when a kept connection turns out dead before any byte of an answer.

Source: net/http, Request.isReplayable.
"""


class UpstreamExchange:
    """One exchange, used as an async context manager: leaving it returns or cuts the connection.

    The caller's headers are those that may travel; credential and framing are added here. `identity` is the lines that
    say whom the cluster is to see; without them that is the gateway itself.
    """

    def __init__(self, upstream: Upstream, request: RequestHead, headers: Headers, identity: bytes = b"") -> None:
        self._upstream = upstream
        self._request = request
        self._framing: Framing = choose_framing(request)
        self._remaining = self._framing.content_length or 0
        self._head = render_request_head(
            request, headers, self._framing, base_path=upstream.base_path, own_headers=upstream.own_headers + identity
        )
        self._connection: UpstreamConnection | None = None
        self._failure: GatewayError | None = None
        self._may_replay = False
        self._sent_all = not request.has_body
        self._tunnel = False

    async def __aenter__(self) -> Self:
        """Send the head, on a kept connection or a new one. Raises as `dial` does."""
        connection = self._upstream.take_idle()
        self._may_replay = connection is not None and self._request.method in _REPLAYABLE and self._sent_all
        await self._begin(connection or await self._upstream.open())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Return the connection when both sides are complete, else cut it.

        What was asked to switch protocols carries nothing else, whatever it answered (CVE-2018-1002105).
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            if not self._sent_all or self._request.upgrade:
                connection.abort()
            self._upstream.release(connection)

    async def _begin(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.begin(self._request.method)
        connection.write(self._head)

    @property
    def _open_connection(self) -> UpstreamConnection:
        if self._connection is None:
            raise RuntimeError("the exchange is not entered")
        return self._connection

    async def send(self, body: bytes) -> None:
        """Send body bytes, or opaque bytes after a 101, waiting while the cluster is slow.

        Raises:
            InvalidRequestError: The body is longer than announced.
        """
        if not body:
            return  # an empty chunk would end a chunked body
        connection = self._open_connection
        if self._tunnel:
            connection.write(body)
        elif self._framing.chunked:
            connection.write(b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self._remaining -= len(body)
            if self._remaining < 0:
                raise InvalidRequestError("the body is longer than its Content-Length")
            connection.write(body)
        await connection.drain()

    def finish(self) -> None:
        """End the body, or after a 101 the caller's direction.

        Raises:
            InvalidRequestError: The body is shorter than announced.
        """
        connection = self._open_connection
        if self._tunnel:
            connection.half_close()
        elif self._framing.chunked:
            connection.write(b"0\r\n\r\n")
        elif self._remaining:
            raise InvalidRequestError("the body is shorter than its Content-Length")
        self._sent_all = True

    async def response_head(self, *, limited: bool) -> ResponseHead:
        """Wait for the answer's head; with `limited` no longer than the settings allow.

        Raises:
            UpstreamTimeoutError: The cluster took too long.
            GatewayError: As `UpstreamConnection.response_head`, and as `dial` where the request is sent again.
        """
        seconds = self._upstream.settings.response_timeout_seconds if limited else 0
        with self._upstream.deadlines.start(seconds, self._answer_is_late):
            return await self._response_head()

    async def _response_head(self) -> ResponseHead:
        connection = self._open_connection
        try:
            return await connection.response_head()
        except (ClusterUnreachableError, TLSFailedError):  # a kept connection has shown that its credential is good
            if not self._may_replay or connection.has_received:
                raise
        self._may_replay = False
        self._connection = None
        self._upstream.release(connection)
        await self._begin(await self._upstream.open())
        if self._failure is not None:
            raise self._failure
        return await self._open_connection.response_head()

    def open_tunnel(self) -> None:
        """Go on with opaque bytes in both directions, after a 101."""
        self._tunnel = True
        self._open_connection.become_tunnel()

    def take_body(self, limit: int | None = None) -> tuple[bytes, bool]:
        """As `UpstreamConnection.take_body`."""
        return self._open_connection.take_body(limit)

    async def body_readable(self, *, limited: bool) -> None:
        """As `UpstreamConnection.body_readable`; with `limited` the cluster may not be silent for too long."""
        seconds = self._upstream.settings.response_idle_seconds if limited else 0
        with self._upstream.deadlines.start(seconds, self._cluster_is_silent):
            await self._open_connection.body_readable()

    def limit(self, seconds: float, failure: GatewayError) -> Deadline:
        """Fail the exchange when something takes too long, whatever it then waits for."""
        return self._upstream.deadlines.start(seconds, lambda: self._fail(failure))

    def expect_body(self, *, limited: bool) -> Deadline:
        """Begin to wait for more of the caller's body; with `limited` the exchange fails when that takes too long."""
        seconds = self._upstream.settings.request_idle_seconds if limited else 0
        return self._upstream.deadlines.start(seconds, self._caller_is_silent)

    def expect_reader(self, *, limited: bool) -> Deadline:
        """Begin to wait until the caller reads; the exchange fails when that takes too long.

        Nothing else ends the wait: a write to a gRPC stream must not be cancelled, or the call would never end. But the
        cluster's connection is free, and a caller who reads on learns that the answer was cut.
        """
        settings = self._upstream.settings
        seconds = settings.reader_idle_seconds if limited else settings.long_running_reader_idle_seconds
        return self._upstream.deadlines.start(seconds, self._caller_reads_nothing)

    @property
    def is_between_chunks(self) -> bool:
        """As `UpstreamConnection.is_between_chunks`."""
        return self._open_connection.is_between_chunks

    def wake(self) -> None:
        """Let `body_readable` return though nothing came."""
        if self._connection is not None:
            self._connection.wake()

    def _answer_is_late(self) -> None:
        name, seconds = self._upstream.cluster.name, self._upstream.settings.response_timeout_seconds
        self._fail(
            UpstreamTimeoutError(
                f"cluster {name} did not answer within {seconds:g} seconds",
                cluster_name=name,
                hint="The cluster accepts connections but does not answer; look at its API server.",
            )
        )

    def _cluster_is_silent(self) -> None:
        name, seconds = self._upstream.cluster.name, self._upstream.settings.response_idle_seconds
        self._fail(
            UpstreamTimeoutError(
                f"cluster {name} sent nothing of its answer for {seconds:g} seconds",
                cluster_name=name,
                hint="The cluster began to answer and stopped; look at its API server.",
            )
        )

    def _caller_is_silent(self) -> None:
        seconds = self._upstream.settings.request_idle_seconds
        self._fail(
            InvalidRequestError(
                f"nothing of the request's body came for {seconds:g} seconds", cluster_name=self._upstream.cluster.name
            )
        )

    def _caller_reads_nothing(self) -> None:
        self._fail(
            ResponseTruncatedError(
                "the caller read nothing of the answer for too long",
                cluster_name=self._upstream.cluster.name,
                hop=Hop.CALLER,
            )
        )

    def _fail(self, error: GatewayError) -> None:
        self._failure = error
        if self._connection is not None:
            self._connection.fail(error)
