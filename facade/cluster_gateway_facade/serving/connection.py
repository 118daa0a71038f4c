"""One client connection: what aiohttp's own does not bound or does not know.

Added are a limit in time and size on a request's head (a client that dribbles one would hold a connection for ever),
limits on how long a client may send nothing of a body and read nothing of an answer,
refusals as a Status that repeat nothing of what was sent, draining that lets a request in progress read on, and
protocol switches other than WebSocket's: aiohttp's parser loses what follows such a head in the same read, and would
parse what comes later as a request. A contract test holds aiohttp to what is relied on here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_protocol import _ErrInfo as ErrInfo  # pyright: ignore[reportPrivateUsage]

from cluster_gateway_facade import status as statuses
from cluster_gateway_facade.serving.response import reset, write_answer
from cluster_gateway_transport.peers import tolerate_slow_peer

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web
    from aiohttp.web_server import Server

    from cluster_gateway_facade.authn.peer_certificate import PeerCertificate


class BodyIdleError(RequestPayloadError):
    """The client has sent nothing of a body it had begun for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleLimits:
    """How long clients may stand still.

    Attributes:
        body_seconds: Within a body.
        reader_seconds: Before an answer.
        long_running_reader_seconds: Before a watch, a log or a tunnel; 0 for as long as they like.
    """

    body_seconds: float
    reader_seconds: float
    long_running_reader_seconds: float


_log = logging.getLogger(__name__)

_LARGEST_HEAD_BYTES: Final = 1024 * 1024
"""Go's http.DefaultMaxHeaderBytes, which kube-apiserver keeps."""
_HEAD_END: Final = b"\r\n\r\n"


class Connection(RequestHandler):
    """A client connection.

    Attributes:
        certificate: The client's, verified by TLS; None without one.
        draining: Whether the request in progress is the last.
        between_events: Whether a watch is in progress and has sent whole events only.
        awaits_body: Whether bytes of a body are wanted from the client.
        long_running: Whether a watch, a log or a tunnel is in progress.
        was_reset: Whether it has ended by a reset or another failure, and not in good order.
    """

    _request_count: int

    __slots__ = (
        "_head_timeout",
        "_head_timer",
        "_last_payload",
        "_last_read",
        "_partial_head",
        "_pipelined",
        "_tolerant",
        "_unsent_bytes",
        "_unsent_since",
        "awaits_body",
        "between_events",
        "certificate",
        "draining",
        "long_running",
        "was_reset",
    )

    def __init__(self, manager: Server, *, header_timeout_seconds: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._head_timeout = header_timeout_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._last_payload: StreamReader = EMPTY_PAYLOAD
        self._partial_head = bytearray()
        self._pipelined = 0
        self.certificate: PeerCertificate | None = None
        self.draining = False
        self.between_events = False
        self.awaits_body = False
        self.long_running = False
        self._last_read = 0.0
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._tolerant = False
        self.was_reset = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the first head is due at once, as in Go's server."""
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(self._head_timeout, self._give_up_on_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._stop_timer()
        self.was_reset = exc is not None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a head, a body or a tunnel."""
        idle = self._is_idle()
        count = self._request_count
        if self.awaits_body:
            self._last_read = self._loop.time()
        super().data_received(data)
        if self._request_count != count:
            self._stop_timer()
            message, payload = self._messages[-1]
            if isinstance(message, ErrInfo):
                _fail(self._last_payload)
            elif message.upgrade and not self._upgraded:
                self._hold_switch(data, alone=idle and self._request_count == count + 1)
            self._last_payload = payload
            self._partial_head.clear()
            if idle:
                self._pipelined = 0
        elif idle:
            self._take_partial_head(data)
        else:
            self._count_pipelined(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse what is no request. Neither the answer nor the log repeats it: it may hold a credential."""
        del message
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("a request failed in the facade: %s", type(exc).__name__, exc_info=exc)
            answer = statuses.facade_failed()
        elif isinstance(exc, LineTooLong) or status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            answer = statuses.head_too_large()
        else:
            _log.debug("refused what is no valid HTTP/1.1 request: %s", type(exc).__name__)
            answer = statuses.bad_request("the request is not valid HTTP/1.1")
        return write_answer(request, answer, last=True)

    def drain(self) -> None:
        """Close now when idle, else after the request in progress; a watch ends between two events."""
        self.draining = True
        if self._is_idle():
            self.force_close()
        elif self.between_events and self._task_handler is not None:
            self._task_handler.cancel()

    def cut(self) -> None:
        """Cancel the request in progress, which cuts its response."""
        if self._task_handler is not None:
            self._task_handler.cancel()
        else:
            self.force_close()

    @property
    def busy(self) -> bool:
        """Whether a request is in progress."""
        return not self._is_idle()

    def await_body(self) -> None:
        """Expect a body from now on."""
        self.awaits_body = True
        self._last_read = self._loop.time()

    def tolerate_slow_reader(self) -> None:
        """Let a client that lives leave bytes of a long-running answer unread."""
        self.long_running = True
        if not self._tolerant and self.transport is not None:
            self._tolerant = True
            tolerate_slow_peer(self.transport.get_extra_info("socket"))

    def look(self, now: float, limits: IdleLimits) -> None:
        """Give up on a client that has sent nothing of a body, or read nothing of an answer, for too long."""
        if self.awaits_body:
            if self._reading_paused or self.long_running:
                self._last_read = now  # the cluster is slow, or the client may be
            elif now - self._last_read >= limits.body_seconds:
                self._give_up_on_body()
        if self._paused:
            self._look_at_reader(now, limits)
        else:
            self._unsent_bytes = 0

    def _look_at_reader(self, now: float, limits: IdleLimits) -> None:
        transport = self.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        limit = limits.long_running_reader_seconds if self.long_running else limits.reader_seconds
        if unsent != self._unsent_bytes:
            self._unsent_bytes, self._unsent_since = unsent, now
        elif limit and now - self._unsent_since >= limit:
            _log.info("a client that read nothing for %g s was cut", limit)
            reset(transport)

    def _give_up_on_body(self) -> None:
        self.awaits_body = False
        if self._current_request is not None:
            self._close = True  # what may still come is no part of anything
            self._current_request.content.set_exception(BodyIdleError("the client stopped within the body"))
            self._current_request.content.feed_eof()

    @property
    def holds_switch(self) -> bool:
        """Whether what follows the request in progress is held for a switch of protocols."""
        return self._upgraded

    def _is_idle(self) -> bool:
        """Whether no request is in progress or queued."""
        waiter = self._waiter
        return self._request_count == 0 if waiter is None else not waiter.done()

    def _take_partial_head(self, data: bytes) -> None:
        self._partial_head += data
        if len(self._partial_head) > _LARGEST_HEAD_BYTES:
            self._partial_head.clear()
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._head_timer is None and data:
            self._head_timer = self._loop.call_later(self._head_timeout, self._give_up_on_head)

    def _count_pipelined(self, data: bytes) -> None:
        """Bound what a client sends behind a request that is in progress and whose body has ended."""
        request = self._current_request
        if request is None or self._payload_parser is not None or not request.content.is_eof():
            return
        self._pipelined += len(data)
        if self._pipelined > _LARGEST_HEAD_BYTES and self.transport is not None:
            self.transport.abort()

    def _hold_switch(self, data: bytes, *, alone: bool) -> None:
        """Keep what follows a head that asks to switch protocols, as aiohttp does for WebSocket's.

        The parser has dropped what it did not parse of `data`, so it is found again behind the head. That can only be
        done where the head is all that was read; a switch pipelined behind other requests is refused.
        """
        if self._messages[-1][1] is not EMPTY_PAYLOAD:
            return  # It has a body, for which the handler refuses it.
        self._upgraded = True
        read = bytes(self._partial_head + data).lstrip(b"\r\n")
        end = read.find(_HEAD_END)
        if alone and end >= 0:
            self._message_tail = read[end + len(_HEAD_END) :]
        else:
            self._messages[-1] = (_broken(HTTPStatus.BAD_REQUEST), EMPTY_PAYLOAD)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer a head that will not be read to its end, and read no more."""
        self._close = True
        self._stop_timer()
        self._request_count += 1
        self._messages.append((_broken(status), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_up_on_head(self) -> None:
        self._head_timer = None
        if self._is_idle() and self.transport is not None:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _broken(status: HTTPStatus) -> ErrInfo:
    return ErrInfo(status=status, exc=BadHttpMessage(status.phrase), message=status.phrase)


def _fail(payload: StreamReader) -> None:
    """Tell the reader of a body that it is malformed, of which the parser tells the connection only."""
    if not payload.is_eof():
        payload.set_exception(RequestPayloadError("the request's body is malformed"))
        payload.feed_eof()
