"""Requests for a cluster: the HTTP side of an exchange with a core.

Nothing is decided here but how bytes are framed. A response is completed only after the core said that it is
complete, or for a watch between two events when the facade stops; anything else cuts the client's connection.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Final, cast

from aiohttp import HttpVersion10, hdrs

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade import status
from cluster_gateway_facade.serving.connection import BodyIdleError
from cluster_gateway_facade.serving.response import CLOSES, RelayedResponse, Written, write_answer
from cluster_gateway_facade.serving.tunnel import ClientTunnel
from cluster_gateway_transport import PIECES
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from cluster_gateway_client.client import CoreClient
    from cluster_gateway_client.exchange import Exchange
    from cluster_gateway_facade.handlers.proxied_path import ProxiedTarget
    from cluster_gateway_facade.serving.connection import Connection
    from clustergateway.access.v1.user_info_pb2 import UserInfo
    from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse

_log = logging.getLogger(__name__)

_SWITCHING_PROTOCOLS: Final = 101
_STREAMING: Final = re.compile(rb"/(?:log|exec|attach|portforward|proxy)(?:[/?]|\Z)")
_LARGEST_MESSAGE_BYTES: Final = 512 * 1024
_REFUSAL_SECONDS: Final = 10.0
"""Longest that relaying a refusal to switch protocols may take: nothing limits the request otherwise.

Source: kubernetes/apimachinery, pkg/util/proxy/upgradeaware.go, tryUpgrade.
"""
_TUNNEL_FLUSH_SECONDS: Final = 5.0
"""How long bytes that a client sent before it closed may take to reach the cluster."""


async def proxy(
    core: CoreClient,
    request: web.BaseRequest,
    headers: Sequence[tuple[bytes, bytes]],
    proxied: ProxiedTarget,
    user: UserInfo,
    forwarded_for: str,
) -> Written:
    """Carry a request to a cluster and the response back.

    Of the headers a core drops what no cluster may see; those in which the hub names users are gone already.

    Cancellation, which is also how a client's disconnect arrives, cancels the exchange.
    """
    upgrade = requested_upgrade(request)
    connection = cast("Connection", request.protocol)
    if upgrade and (request.body_exists or not connection.holds_switch):
        # It has a body, or the parser saw no switch in it and may have read on.
        refusal = status.bad_request("a request that switches protocols must be plain and without a body")
        return write_answer(request, refusal, last=True)
    tunnel = ClientTunnel(request) if upgrade else None
    head = RequestHead(
        cluster_name=proxied.cluster_name or "",
        method=request.method,
        target=proxied.target,
        headers=[Header(name=name, value=value) for name, value in headers],
        asserted_user=user,
        forwarded_for=forwarded_for,
        upgrade=upgrade,
        expect_continue=_expects_continue(request),
    )
    watch = _is_watch(proxied.target)
    if upgrade or watch or _streams(proxied.target):
        connection.tolerate_slow_reader()
    try:
        async with core.exchange() as exchange:
            if tunnel is not None:
                return await _Switch(request, exchange, tunnel).run(head)
            return await _Carriage(request, exchange, watch=watch).run(head)
    finally:
        connection.long_running = False


class _Carriage:
    """A request and its response, as HTTP messages."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange, *, watch: bool) -> None:
        self._request = request
        self._exchange = exchange
        self._watch = watch
        self._connection = cast("Connection", request.protocol)
        self._response = RelayedResponse(request)

    async def run(self, head: RequestHead) -> Written:
        try:
            if self._request.body_exists:
                return await self._run_with_body(head)
            return await self._respond(await self._exchange.ask(head))
        except CoreError as error:
            return self._fail(error)
        except asyncio.CancelledError:
            self._stop()
            raise
        except Exception:
            if not self._response.started:
                raise
            _log.exception("a response was cut because the facade failed")
            return self._response.abort()
        finally:
            self._connection.between_events = False

    async def relay(self, message: ExchangeResponse) -> Written:
        """Send a response whose beginning has been received."""
        try:
            return await self._respond(message)
        except CoreError as error:
            return self._fail(error)

    def abort(self) -> Written:
        """Cut what the client has of the response."""
        return self._response.abort()

    async def _run_with_body(self, head: RequestHead) -> Written:
        content = self._request.content
        if content.is_eof() and not head.expect_continue and content.total_bytes <= _LARGEST_MESSAGE_BYTES:
            return await self._respond(await self._exchange.ask(head, content.read_nowait()))
        await self._exchange.start(head, end=False)
        if head.expect_continue:
            first = await self._exchange.receive()
            if not first.proceed:
                return await self._respond(first)
            self._continue()
        try:
            return await self._upload_and_respond()
        except ExceptionGroup as failed:
            return self._fail_upload(failed.exceptions[0])

    async def _upload_and_respond(self) -> Written:
        """Send the body beside waiting for the response, which may come first: then the rest is not sent."""
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(self._upload(), name="upload")
            try:
                return await self._respond(await self._exchange.receive())
            except CoreError as error:
                return self._fail(error)
            finally:
                upload.cancel()

    def _continue(self) -> None:
        if self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _upload(self) -> None:
        """Send the body to its end.

        A body that the client cuts or garbles fails the request: the exchange is left without an end.
        """
        content = self._request.content
        self._connection.await_body()
        try:
            # aiohttp reads as much ahead, twice that at most.
            while chunk := await content.read(PIECES.size):
                PIECES.waiting += 1
                try:
                    await self._exchange.send(chunk)
                finally:
                    PIECES.waiting -= 1
            await self._exchange.finish()
        except CoreError:
            # Who waits for the response hears the same.
            return
        finally:
            self._connection.awaits_body = False

    async def _respond(self, message: ExchangeResponse) -> Written:
        response = self._response
        while message.proceed:
            message = await self._exchange.receive()
        if not message.HasField("head"):
            raise CoreError(
                "INTERNAL",
                "the routing core sent a response without a head",
                hop="CORE",
                hint="Check that facade and core are of the same release.",
            )
        received = message.head
        head = response.start(
            received.status, received.reason, [(header.name, header.value) for header in received.headers]
        )
        whole_events = True
        del received
        while True:
            end = message.HasField("end")
            body = message.body
            del message
            response.write(head, body, end=end)
            if end:
                return response.finish()
            head = b""
            if self._watch:
                whole_events = body.endswith(b"\n") if body else whole_events
            del body
            await response.drain()
            if self._watch:
                if whole_events and self._connection.draining:
                    return response.end_early()
                self._connection.between_events = whole_events
            message = await self._exchange.receive()

    def _stop(self) -> None:
        """End what the client has of a response when the facade stops; nothing where the client is gone."""
        if not self._response.started or self._request.transport is None:
            return
        if self._connection.between_events:
            self._response.end_early()
        else:
            self._response.abort()

    def _fail(self, error: CoreError) -> Written:
        if not self._response.started:
            return write_answer(self._request, status.answer_for(error))
        _log.info("response of %s cut: %s: %s", error.cluster_name, error.reason, error.message)
        return self._response.abort()

    def _fail_upload(self, failure: Exception) -> Written:
        if isinstance(failure, ConnectionError):
            raise failure
        _log.debug("a request's body was malformed: %s", type(failure).__name__)
        if self._response.started:
            return self._response.abort()
        if isinstance(failure, BodyIdleError):
            return write_answer(self._request, status.body_too_slow(), last=True)
        return write_answer(self._request, status.bad_request("the request's body is malformed"), last=True)


class _Switch:
    """A request that asks to switch protocols; afterwards the connection is closed, whatever happened."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange, tunnel: ClientTunnel) -> None:
        self._request = request
        self._exchange = exchange
        self._tunnel = tunnel
        self._connection = cast("Connection", request.protocol)
        self._cluster_name = ""

    async def run(self, head: RequestHead) -> Written:
        self._cluster_name = head.cluster_name
        try:
            message = await self._exchange.ask(head, end=False)
        except CoreError as error:
            return write_answer(self._request, status.answer_for(error), last=True)
        if message.head.status != _SWITCHING_PROTOCOLS:
            return await self._relay_refusal(message)
        await self._tunnel.send(_render_switch(message, head.upgrade))
        await self._run_tunnel()
        return CLOSES

    async def _relay_refusal(self, message: ExchangeResponse) -> Written:
        """Relay the cluster's error, and close: bytes that the client sends behind it are nobody's request."""
        self._connection.draining = True
        carriage = _Carriage(self._request, self._exchange, watch=False)
        try:
            async with asyncio.timeout(_REFUSAL_SECONDS):
                return await carriage.relay(message)
        except TimeoutError:
            _log.info("refusal of %s to switch protocols cut: the client takes it too slowly", self._cluster_name)
            return carriage.abort()

    async def _run_tunnel(self) -> None:
        """Carry bytes both ways until either side ends.

        A client that closes cancels this; what it sent before still goes to the cluster. One that resets the
        connection cuts the tunnel, and so does a facade that stops.
        """
        tunnelling = asyncio.get_running_loop().create_task(self._carry(), name="tunnel")
        try:
            await asyncio.shield(tunnelling)
        except asyncio.CancelledError:
            if self._connection.was_reset:
                _log.info("tunnel to %s cut: the client reset its connection", self._cluster_name)
            elif self._request.transport is None:
                await asyncio.wait((tunnelling,), timeout=_TUNNEL_FLUSH_SECONDS)
            else:
                self._tunnel.abort()
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
        if not self._connection.was_reset:  # then it has not ended, and is cut
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

    RFC 9110 section 7.8: Upgrade counts only where Connection lists it; names and tokens have no case, and
    either header may come over several lines.
    """
    if hdrs.UPGRADE not in request.headers:
        return ""
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
    """Whether a client waits for a 100; HTTP/1.0 knows none, so there it is not sent (RFC 9110 section 10.1.1)."""
    return request.headers.get("Expect", "").lower() == "100-continue" and request.version != HttpVersion10


def _is_watch(target: bytes) -> bool:
    """Whether a cluster answers a target with a stream of events, one a line.

    The first `watch` counts, and any value but false and 0 asks for one.

    Source:
        kubernetes/apimachinery, pkg/runtime/conversion.go, Convert_Slice_string_To_bool.
    """
    _, _, query = target.partition(b"?")
    if b"watch" not in query:
        return False
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == b"watch":
            return value.lower() not in (b"false", b"0")
    return False


def _streams(target: bytes) -> bool:
    """Whether a target is one of those whose answers last for as long as their caller likes.

    Source:
        kubernetes/apiserver, pkg/server/config.go, LongRunningFunc, with kube-apiserver's own subresources.
    """
    return _STREAMING.search(target) is not None


def _render_switch(message: ExchangeResponse, upgrade: str) -> bytes:
    """The 101 as the client sees it: the cluster's headers, and the hop's own Connection and Upgrade.

    The core has checked that the cluster chose the protocol that was asked for.
    """
    head = message.head
    lines = [b"HTTP/1.1 101 %b\r\n" % (head.reason or b"Switching Protocols")]
    lines += [
        b"%b: %b\r\n" % (header.name, header.value)
        for header in head.headers
        if header.name.lower() not in (b"connection", b"upgrade")
    ]
    lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade.encode("latin-1"))
    return b"".join([*lines, b"\r\n", message.body])
