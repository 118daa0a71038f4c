"""Requests for a cluster: the HTTP side of an exchange with a core.

Nothing is decided here but how bytes are framed. A response is completed only after the core said that it is
complete; anything else cuts the client's connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade import status
from cluster_gateway_facade.serving.response import CLOSES, RelayedResponse, write_answer
from cluster_gateway_facade.serving.tunnel import ClientTunnel
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead

if TYPE_CHECKING:
    from aiohttp import web

    from cluster_gateway_client.client import CoreClient
    from cluster_gateway_client.exchange import Exchange
    from cluster_gateway_facade.handlers.proxied_path import ProxiedTarget
    from cluster_gateway_facade.serving.response import Written
    from clustergateway.access.v1.user_info_pb2 import UserInfo
    from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse

_log = logging.getLogger(__name__)

_SWITCHING_PROTOCOLS: Final = 101
_LARGEST_MESSAGE_BYTES: Final = 512 * 1024
_TUNNEL_FLUSH_SECONDS: Final = 5.0
"""How long bytes that a client sent before it closed may take to reach the cluster."""


async def proxy(
    core: CoreClient, request: web.BaseRequest, proxied: ProxiedTarget, user: UserInfo, forwarded_for: str
) -> Written:
    """Carry a request to a cluster and the response back.

    Cancellation, which is also how a client's disconnect arrives, cancels the exchange.
    """
    upgrade = requested_upgrade(request)
    # Before anything is awaited: what follows an upgrade's head must never be parsed as HTTP.
    tunnel = ClientTunnel(request) if upgrade else None
    head = RequestHead(
        cluster_name=proxied.cluster_name or "",
        method=request.method,
        target=proxied.target,
        headers=[Header(name=name, value=value) for name, value in request.raw_headers],
        asserted_user=user,
        forwarded_for=forwarded_for,
        upgrade=upgrade,
        expect_continue=_expects_continue(request),
    )
    async with core.exchange() as exchange:
        if tunnel is not None:
            return await _Switch(request, exchange, tunnel).run(head)
        return await _Carriage(request, exchange).run(head)


class _Carriage:
    """A request and its response, as HTTP messages."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self._response = RelayedResponse(request)

    async def run(self, head: RequestHead) -> Written:
        try:
            if not self._request.body_exists:
                await self._exchange.start(head, end=True)
                return await self._respond(await self._exchange.receive())
            return await self._run_with_body(head)
        except CoreError as error:
            return self._fail(error)

    async def relay(self, message: ExchangeResponse) -> Written:
        """Send a response whose beginning has been received."""
        try:
            return await self._respond(message)
        except CoreError as error:
            return self._fail(error)

    async def _run_with_body(self, head: RequestHead) -> Written:
        """Send the body beside waiting for the response, which may come first: then the rest is not sent."""
        content = self._request.content
        if content.is_eof() and not head.expect_continue and content.total_bytes <= _LARGEST_MESSAGE_BYTES:
            await self._exchange.start(head, content.read_nowait(), end=True)
            return await self._respond(await self._exchange.receive())
        await self._exchange.start(head, end=False)
        if head.expect_continue:
            first = await self._exchange.receive()
            if not first.proceed:
                return await self._respond(first)
            self._continue()
        upload = asyncio.get_running_loop().create_task(self._upload(), name="upload")
        try:
            return await self._respond(await self._exchange.receive())
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)

    def _continue(self) -> None:
        if self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _upload(self) -> None:
        """Send the body to its end; a body that the client cuts leaves the exchange without an end, so cut too."""
        content = self._request.content
        while chunk := await content.readany():
            for start in range(0, len(chunk), _LARGEST_MESSAGE_BYTES):
                await self._exchange.send(chunk[start : start + _LARGEST_MESSAGE_BYTES])
        await self._exchange.finish()

    async def _respond(self, message: ExchangeResponse) -> Written:
        response = self._response
        head = b""
        if message.HasField("head"):
            received = message.head
            head = response.start(
                received.status, received.reason, [(header.name, header.value) for header in received.headers]
            )
        while True:
            end = message.HasField("end")
            response.write(head, message.body, end=end)
            if end:
                return response.finish()
            head = b""
            await response.drain()
            message = await self._exchange.receive()

    def _fail(self, error: CoreError) -> Written:
        if self._response.started:
            _log.info("response of %s cut: %s: %s", error.cluster_name, error.reason, error.message)
            return self._response.abort()
        answer = write_answer(self._request, status.answer_for(error))
        # A client that was not told to send its body, or has not finished, must not go on on this connection.
        return CLOSES if self._request.can_read_body else answer


class _Switch:
    """A request that asks to switch protocols; afterwards the connection is closed, whatever happened."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange, tunnel: ClientTunnel) -> None:
        self._request = request
        self._exchange = exchange
        self._tunnel = tunnel

    async def run(self, head: RequestHead) -> Written:
        if self._request.body_exists:
            write_answer(
                self._request, status.bad_request("a request that switches protocol cannot have a body")
            )
            return CLOSES
        try:
            await self._exchange.start(head, end=False)
            message = await self._exchange.receive()
        except CoreError as error:
            write_answer(self._request, status.answer_for(error))
            return CLOSES
        if message.head.status != _SWITCHING_PROTOCOLS:
            return await self._relay_refusal(message)
        await self._tunnel.send(_render_switch(message, head.upgrade))
        await self._run_tunnel()
        return CLOSES

    async def _relay_refusal(self, message: ExchangeResponse) -> Written:
        """Relay the cluster's error, and close: bytes that the client sends behind it are nobody's request."""
        await _Carriage(self._request, self._exchange).relay(message)
        return CLOSES

    async def _run_tunnel(self) -> None:
        """Carry bytes both ways until either side ends.

        A client that closes cancels this; what it sent before still goes to the cluster.
        """
        tunnelling = asyncio.get_running_loop().create_task(self._carry(), name="tunnel")
        try:
            await asyncio.shield(tunnelling)
        except asyncio.CancelledError:
            await asyncio.wait((tunnelling,), timeout=_TUNNEL_FLUSH_SECONDS)
            raise
        finally:
            tunnelling.cancel()
            await asyncio.gather(tunnelling, return_exceptions=True)

    async def _carry(self) -> None:
        upload = asyncio.get_running_loop().create_task(self._upload(), name="tunnel to the cluster")
        try:
            await self._download()
        except CoreError as error:
            _log.info("tunnel to %s cut: %s: %s", error.cluster_name, error.reason, error.message)
            self._tunnel.abort()
        except ConnectionError:
            # The client is gone; let what it sent arrive.
            await asyncio.gather(upload, return_exceptions=True)
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)

    async def _upload(self) -> None:
        while data := await self._tunnel.receive():
            for start in range(0, len(data), _LARGEST_MESSAGE_BYTES):
                await self._exchange.send(data[start : start + _LARGEST_MESSAGE_BYTES])
        await self._exchange.finish()

    async def _download(self) -> None:
        while True:
            message = await self._exchange.receive()
            if message.body:
                await self._tunnel.send(message.body)
            if message.HasField("end"):
                self._tunnel.close()
                return


def requested_upgrade(request: web.BaseRequest) -> str:
    """Return the protocol that a request asks to switch to, or "".

    RFC 9110 section 7.8: Upgrade counts only where Connection lists it; names and tokens have no case, and either
    header may come over several lines.
    """
    asked = ""
    listed = False
    for name, value in request.raw_headers:
        key = name.lower()
        if key == b"connection":
            listed = listed or any(token.strip().lower() == b"upgrade" for token in value.split(b","))
        elif key == b"upgrade":
            asked = f"{asked}, {value.decode('latin-1')}" if asked else value.decode("latin-1").strip()
    return asked if listed else ""


def _expects_continue(request: web.BaseRequest) -> bool:
    return request.headers.get("Expect", "").lower() == "100-continue"


def _render_switch(message: ExchangeResponse, upgrade: str) -> bytes:
    """The 101 as the client sees it: the cluster's headers, and the hop's own Connection and Upgrade.

    The core has checked that the cluster chose the protocol that was asked for.
    """
    head = message.head
    lines = [b"HTTP/1.1 101 %b\r\n" % (head.reason or b"Switching Protocols")]
    lines += [b"%b: %b\r\n" % (header.name, header.value) for header in head.headers]
    lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade.encode("latin-1"))
    return b"".join([*lines, b"\r\n", message.body])
