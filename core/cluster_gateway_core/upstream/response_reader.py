"""One response of a cluster, read from bytes without touching a socket.

llhttp parses; this decides what counts as the answer. It is complete only when its framing says so, and whatever comes
besides it spoils the connection for a further exchange. After a 101 everything is opaque.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import httptools

from cluster_gateway_core.errors import InvalidResponseError
from cluster_gateway_core.model.http import ResponseHead

if TYPE_CHECKING:
    from cluster_gateway_core.errors import GatewayError
    from cluster_gateway_core.model.http import Headers

_log = logging.getLogger(__name__)

_SWITCHING_PROTOCOLS: Final = 101
_OK: Final = 200
_LOWEST_STATUS: Final = 100
_HIGHEST_STATUS: Final = 599
"""RFC 9110 section 15."""
MAXIMUM_HEAD_BYTES: Final = 1024 * 1024
"""Longest response head; kube-apiserver itself takes heads of this size."""
MAXIMUM_HEADERS: Final = 4096
"""Most headers of a head: without a bound, a head full of tiny ones would take fifty times its size in memory."""
MAXIMUM_INFORMATIONAL: Final = 10
"""Most 1xx answers before the real one; a cluster sends none unasked."""
_PIECE_BYTES: Final = 64
"""What a piece takes in memory besides its bytes, lest a body cut into single bytes takes forty times its size."""


class ResponseReader:
    """The answer to one request.

    Attributes:
        head: Once it has arrived.
        chunks: What has arrived of the body and was not taken yet.
        buffered_bytes: How much memory they take.
        complete: Whether the body has ended as its framing says.
        keep_alive: Whether, once complete, another exchange may follow on the connection.
        tunnel: Whether opaque bytes follow a 101.
        ends_with_connection: Whether nothing but the end of the connection ends the body.
        between_chunks: Whether all that has arrived ends with a whole chunk; false in a body that is not chunked.
        failure: Why the answer cannot be completed.
        has_received: Whether any byte has arrived.
    """

    __slots__ = (
        "_bytes_without_body",
        "_cluster_name",
        "_has_trailers",
        "_headers",
        "_informational",
        "_method",
        "_parser",
        "_reason",
        "between_chunks",
        "buffered_bytes",
        "chunks",
        "complete",
        "ends_with_connection",
        "failure",
        "has_received",
        "head",
        "keep_alive",
        "tunnel",
    )

    def __init__(self, cluster_name: str, method: str) -> None:
        self._cluster_name = cluster_name
        self._method = method
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._bytes_without_body = 0
        self._has_trailers = False
        self._informational = 0
        self.head: ResponseHead | None = None
        self.chunks: list[bytes] = []
        self.buffered_bytes = 0
        self.complete = False
        self.keep_alive = False
        self.tunnel = False
        self.ends_with_connection = False
        self.between_chunks = True
        self.failure: GatewayError | None = None
        self.has_received = False

    def feed(self, data: bytes) -> None:
        """Take bytes from the cluster."""
        self.has_received = True
        if self.tunnel:
            self._append(data)
        else:
            self._parse(data)

    def take(self, limit: int | None = None) -> bytes:
        """Return what has arrived of the body and was not taken yet, at most `limit` bytes of it."""
        chunks = self.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered_bytes = 0
        if limit is not None and len(body) > limit:
            self._append(body[limit:])
            body = body[:limit]
        return body

    def fail(self, error: GatewayError) -> None:
        """End the answer with a failure, and drop what was not taken yet."""
        self.failure = self.failure or error
        self.chunks.clear()
        self.buffered_bytes = 0

    def close(self) -> None:
        """End reading: the parser refers back to its reader, and neither should wait for the garbage collector."""
        del self._parser

    # What the parser calls

    def on_status(self, status: bytes) -> None:
        """Take the reason phrase; httptools."""
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line, or a trailer, which is dropped: trailers never become headers; httptools."""
        if self.head is None:
            if len(self._headers) < MAXIMUM_HEADERS:
                self._headers.append((name, value))
            elif self.failure is None:
                self._fail("it has too many headers")
        elif not (self._has_trailers or self._is_decided()):
            self._has_trailers = True
            _log.info("dropped the trailers of an answer of cluster %s", self._cluster_name)

    def on_headers_complete(self) -> None:
        """Take the end of a head; httptools."""
        if self.head is not None or self.failure is not None:
            return  # a second answer in the same bytes is nobody's
        status = self._parser.get_status_code()
        if not _LOWEST_STATUS <= status <= _HIGHEST_STATUS:
            self._fail("its status is none of HTTP")
            return
        if status < _OK and status != _SWITCHING_PROTOCOLS:
            self._informational += 1
            self._headers, self._reason = [], b""
            if self._informational > MAXIMUM_INFORMATIONAL:
                self._fail("it sent too many informational answers")
            return
        if not _has_known_coding(self._headers):
            self._fail("its transfer coding is not chunked")
            return
        self.head = ResponseHead(status=status, reason=self._reason, headers=self._headers)
        if status == _SWITCHING_PROTOCOLS:
            return
        self.ends_with_connection = not _is_framed(self._headers)
        if self._method == "HEAD":
            # RFC 9110 section 9.3.2: the answer to HEAD has no body whatever its headers say.
            self._finish()

    def on_body(self, body: bytes) -> None:
        """Take body bytes; httptools."""
        if self.complete:
            self.keep_alive = False
        elif self.failure is None:
            self._bytes_without_body = 0
            self.between_chunks = False
            self._append(body)

    def on_chunk_header(self) -> None:
        """Take the start of a chunk; httptools."""
        if self.complete:
            self.keep_alive = False
        self.between_chunks = False

    def on_chunk_complete(self) -> None:
        """Take the end of a chunk; httptools."""
        self.between_chunks = True

    def on_message_complete(self) -> None:
        """Take the end of a message; httptools."""
        if self.head is not None and self.head.status != _SWITCHING_PROTOCOLS and not self.complete:
            self._finish()

    def on_message_begin(self) -> None:
        """Take the start of a message: a second one within an exchange is nobody's answer; httptools."""
        if self.complete:
            self.keep_alive = False

    # Inside

    def _parse(self, data: bytes) -> None:
        if self._is_decided():
            self.keep_alive = False
            return
        self._bytes_without_body += len(data)
        if self._bytes_without_body > MAXIMUM_HEAD_BYTES:
            self._fail("its head or its trailers are too long")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_decided():
                self.keep_alive = False
            else:
                self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._is_decided():
                self._fail(f"it is not HTTP: {type(error).__name__}")
            self.keep_alive = False

    def _is_decided(self) -> bool:
        """Whether the answer is complete or has failed, so that further bytes are no part of it."""
        return self.complete or self.failure is not None

    def _switch(self, rest: bytes) -> None:
        """Go on with opaque bytes after a 101."""
        if self.head is None or self.head.status != _SWITCHING_PROTOCOLS:
            self._fail("it switches protocol without a 101")
            return
        self.tunnel = True
        if rest:
            self._append(rest)

    def _finish(self) -> None:
        self.complete = True
        self.keep_alive = self._parser.should_keep_alive()

    def _append(self, data: bytes) -> None:
        self.chunks.append(data)
        self.buffered_bytes += len(data) + _PIECE_BYTES

    def _fail(self, fault: str) -> None:
        self.failure = InvalidResponseError(
            f"cluster {self._cluster_name} gave an invalid answer: {fault}",
            cluster_name=self._cluster_name,
            hint="Check that the endpoint is a Kubernetes API server.",
        )


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
