"""The HTTPS server: aiohttp's low-level server, without its router, body decoding or access log."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import http_parser, web

from cluster_gateway_facade.authn.peer_certificate import PeerCertificate
from cluster_gateway_facade.serving.acceptor import ClientConnection
from cluster_gateway_facade.serving.connection import Connection, IdleLimits
from cluster_gateway_facade.serving.tls import sent_intermediates
from cluster_gateway_transport.spread import spread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

    from cluster_gateway_facade.settings import ServingSettings

_log = logging.getLogger(__name__)

_BODY_BYTES: Final = 64 * 1024
"""Bytes of a request's body that are held before its reader wants them: most bodies travel in one message so."""
_LOOK_SECONDS: Final = 1.0
_LOOKS: Final = 8
"""How often to look for clients that stand still: each second, and so many times within a limit."""
_CUT_SECONDS: Final = 2.0
"""How long cancelled requests may take to end."""


class FacadeServer(web.Server):
    """The open connections, each with its client's certificate, parsed once."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], settings: ServingSettings
    ) -> None:
        """Prepare to serve.

        Raises:
            RuntimeError: aiohttp runs without its compiled parser; the other one reads some malformed requests
                differently.
        """
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise RuntimeError("aiohttp's compiled HTTP parser is missing or switched off")
        super().__init__(
            handler,
            # A client that goes away cancels its request, and with it the exchange with the cluster.
            handler_cancellation=True,
            # A user in many groups arrives with a header a group; aiohttp's own limits are 128 and 8190.
            max_headers=settings.maximum_header_count,
            max_field_size=settings.maximum_header_bytes,
            max_line_size=settings.maximum_header_bytes,
            # Bodies travel as they are: by default aiohttp inflates them and leaves Content-Encoding in
            # place.
            auto_decompress=False,
            read_bufsize=_BODY_BYTES // 2,
            keepalive_timeout=settings.keepalive_seconds,
            tcp_keepalive=False,  # the listener's options are inherited
            access_log=None,
        )
        self._header_timeout_seconds = settings.header_timeout_seconds
        self._look_seconds = min(
            _LOOK_SECONDS, settings.request_idle_seconds / _LOOKS, settings.reader_idle_seconds / _LOOKS
        )
        self._idle_limits = IdleLimits(
            # The last look within the limit decides: a core's own limit is the same, and its answer says less.
            body_seconds=settings.request_idle_seconds - self._look_seconds,
            reader_seconds=settings.reader_idle_seconds,
            long_running_reader_seconds=settings.long_running_reader_idle_seconds,
        )
        self._look_timer: asyncio.TimerHandle | None = None
        self._open: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._draining = False

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, loop=self._loop, header_timeout_seconds=self._header_timeout_seconds, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take note of a new connection and of its certificate."""
        super().connection_made(handler, transport)
        connection = cast("Connection", handler)
        self._open.add(connection)
        if self._look_timer is None:
            self._look_timer = self._loop.call_later(self._look_seconds, self._look)
        connection.draining = self._draining
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if tls is None or not der:
            return
        try:
            connection.certificate = PeerCertificate(der, sent_intermediates(tls))
        except ValueError:
            # OpenSSL reads more than the rules for certificates allow.
            _log.warning("a client certificate that cannot be read ended its connection")
            transport.abort()
            return
        if isinstance(transport, ClientConnection):
            transport.recognise()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._open.discard(cast("Connection", handler))
        if self._draining and not self._open:
            self._all_closed.set()
        super().connection_lost(handler, exc)

    def _look(self) -> None:
        """Look for clients that stand still: one timer for all, as few of them do."""
        now = self._loop.time()
        for connection in tuple(self._open):
            connection.look(now, self._idle_limits)
        self._look_timer = self._loop.call_later(self._look_seconds, self._look) if self._open else None

    def peer_certificate(self, request: web.BaseRequest) -> PeerCertificate | None:
        """Return the client certificate of a request's connection, which TLS has verified."""
        return cast("Connection", request.protocol).certificate

    async def drain(self, grace_seconds: float, hurrying: asyncio.Event) -> None:
        """Close idle connections, end watches, let other requests finish for a while, then cut what is left.

        aiohttp's own shutdown would at once stop reading the bodies and tunnels that are in progress.

        Args:
            grace_seconds: How long they may take.
            hurrying: Set to cut them at once.
        """
        self._draining = True
        if not self._open:
            self._all_closed.set()
        waiting = [
            self._loop.create_task(self._all_closed.wait(), name="last connection"),
            self._loop.create_task(hurrying.wait(), name="second signal"),
        ]
        ending = self._loop.create_task(self._end_requests(grace_seconds / 2), name="ending watches")
        await asyncio.wait(waiting, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        tasks: list[asyncio.Task[Any]] = [*waiting, ending]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._open:
            _log.warning("cutting %d connections that are still open", len(self._open))
            for connection in tuple(self._open):
                connection.drain()
                connection.cut()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CUT_SECONDS):
                    await self._all_closed.wait()
        if self._look_timer is not None:
            self._look_timer.cancel()
        await self.shutdown(0)

    async def _end_requests(self, within_seconds: float) -> None:
        """Let each connection close when it can, the last of the watches within `within_seconds`."""
        watches = [connection for connection in self._open if connection.between_events]
        for connection in tuple(self._open):
            if not connection.between_events:
                connection.drain()
        async for connection in spread(watches, within_seconds):
            if connection in self._open:
                connection.drain()
