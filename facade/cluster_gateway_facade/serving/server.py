"""The HTTPS server: aiohttp's low-level server, without its router, body decoding or access log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from cluster_gateway_facade.authn.peer_certificate import PeerCertificate

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

    from cluster_gateway_facade.settings import ServingSettings


class FacadeServer(web.Server):
    """Keeps each connection's client certificate, parsed once."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], settings: ServingSettings
    ) -> None:
        super().__init__(
            handler,
            # A client that goes away cancels its request, and with it the exchange with the cluster.
            handler_cancellation=True,
            # A user in many groups arrives with a header a group; aiohttp's own limits are 128 and 8190.
            max_headers=settings.maximum_header_count,
            max_field_size=settings.maximum_header_bytes,
            max_line_size=settings.maximum_header_bytes,
            # Bodies travel as they are: by default aiohttp inflates them and leaves Content-Encoding in place.
            auto_decompress=False,
            keepalive_timeout=settings.keepalive_seconds,
            access_log=None,
        )
        self._peers: dict[RequestHandler[web.BaseRequest], PeerCertificate] = {}

    def connection_made(
        self, handler: RequestHandler[web.BaseRequest], transport: asyncio.Transport
    ) -> None:
        """Take note of a new connection's certificate."""
        super().connection_made(handler, transport)
        connection = transport.get_extra_info("ssl_object")
        der = connection.getpeercert(binary_form=True) if connection is not None else None
        if der:
            self._peers[handler] = PeerCertificate(der)

    def connection_lost(
        self, handler: RequestHandler[web.BaseRequest], exc: BaseException | None = None
    ) -> None:
        """Forget a connection."""
        self._peers.pop(handler, None)
        super().connection_lost(handler, exc)

    def peer_certificate(self, request: web.BaseRequest) -> PeerCertificate | None:
        """Return the client certificate of a request's connection, which TLS has verified."""
        return self._peers.get(request.protocol)
