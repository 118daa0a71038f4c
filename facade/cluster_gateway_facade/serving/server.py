"""The HTTPS server: aiohttp's low-level server, without its router, body decoding or access log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from aiohttp import http_parser, web

from cluster_gateway_facade.authn.peer_certificate import PeerCertificate
from cluster_gateway_facade.serving.connection import Connection
from cluster_gateway_facade.serving.tls import sent_intermediates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

    from cluster_gateway_facade.settings import ServingSettings

_log = logging.getLogger(__name__)

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
            keepalive_timeout=settings.keepalive_seconds,
            access_log=None,
        )
        self._header_timeout_seconds = settings.header_timeout_seconds
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

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._open.discard(cast("Connection", handler))
        if self._draining and not self._open:
            self._all_closed.set()
        super().connection_lost(handler, exc)

    def peer_certificate(self, request: web.BaseRequest) -> PeerCertificate | None:
        """Return the client certificate of a request's connection, which TLS has verified."""
        return cast("Connection", request.protocol).certificate

    async def drain(self, grace_seconds: float) -> None:
        """Close idle connections, end watches, let other requests finish for a while, then cut what is left.

        aiohttp's own shutdown would at once stop reading the bodies and tunnels that are in progress.
        """
        self._draining = True
        for connection in tuple(self._open):
            connection.drain()
        if not await self._all_closed_within(grace_seconds):
            _log.warning("%d connections outlasted the grace time", len(self._open))
            for connection in tuple(self._open):
                connection.cut()
            await self._all_closed_within(_CUT_SECONDS)
        await self.shutdown(0)

    async def _all_closed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while self._open:
                    await self._all_closed.wait()
        except TimeoutError:
            return False
        return True
