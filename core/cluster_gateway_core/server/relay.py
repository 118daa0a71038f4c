"""Carrying the bytes of one exchange between a gRPC stream and a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from cluster_gateway_core.errors import GatewayError, InvalidRequestError, UpstreamTimeoutError
from cluster_gateway_core.routing.header_policy import first_value, returned_headers
from cluster_gateway_core.routing.response_policy import check_response
from cluster_gateway_transport import PIECES
from clustergateway.routing.v1.routing_service_pb2 import (
    ExchangeRequest,
    ExchangeResponse,
    Header,
    ResponseEnd,
)
from clustergateway.routing.v1.routing_service_pb2 import ResponseHead as ResponseHeadMessage

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import grpc

    from cluster_gateway_core.model.http import RequestHead, ResponseHead
    from cluster_gateway_core.routing.request_info import RequestInfo
    from cluster_gateway_core.server.drain import Work
    from cluster_gateway_core.upstream.exchange import UpstreamExchange

Context: TypeAlias = "grpc.aio.ServicerContext[ExchangeRequest, ExchangeResponse]"

_SWITCHING_PROTOCOLS: Final = 101
_REFUSAL_SECONDS: Final = 10.0
"""Longest that relaying a refusal to switch protocols may take: nothing limits the request otherwise.

Source: kubernetes/apimachinery, pkg/util/proxy/upgradeaware.go, tryUpgrade.
"""
_CANCELLATION_SECONDS: Final = 0.5
"""How long the news that a call is cancelled may be behind the end of its messages."""


class Relay:
    """The two directions of one exchange."""

    def __init__(
        self,
        context: Context,
        exchange: UpstreamExchange,
        request: RequestHead,
        info: RequestInfo,
        work: Work,
    ) -> None:
        self._context = context
        self._exchange = exchange
        self._request = request
        self._info = info
        self._work = work
        self._events_are_lines = False
        self._within_line = False
        self._limited = not (info.is_long_running or request.upgrade)

    async def run(self, first: ExchangeRequest, cluster_name: str) -> None:
        """Carry the exchange to its end.

        Cancellation leaves the exchange unfinished, so that its connection is cut.

        Raises:
            GatewayError: Either direction failed.
        """
        if self._request.has_body:
            await self._beside(self._upload(first), self._respond(cluster_name))
        else:
            await self._respond(cluster_name)

    async def _beside(self, upload: Coroutine[None, None, None], download: Coroutine[None, None, None]) -> None:
        """Run the caller's direction until the cluster's direction ends."""
        try:
            async with asyncio.TaskGroup() as group:
                uploading = group.create_task(upload, name="upload")
                await download
                uploading.cancel()
        except BaseExceptionGroup as failures:
            raise _first_failure(failures) from None

    async def _respond(self, cluster_name: str) -> None:
        head = await self._exchange.response_head(limited=self._limited)
        check_response(cluster_name, self._request, self._info, head)
        self._events_are_lines = b"json" in (first_value(head.headers, b"content-type") or b"")
        message = ExchangeResponse(head=_render_head(head))
        if head.status == _SWITCHING_PROTOCOLS:
            self._exchange.open_tunnel()
            await self._write(message)
            await self._beside(self._upload(None), self._download(ExchangeResponse()))
        elif self._request.upgrade:
            await self._relay_refusal(cluster_name, message)
        else:
            await self._download(message)

    async def _relay_refusal(self, cluster_name: str, message: ExchangeResponse) -> None:
        late = UpstreamTimeoutError(
            f"the refusal of cluster {cluster_name} to switch protocols did not end within {_REFUSAL_SECONDS:g} s",
            cluster_name=cluster_name,
        )
        with self._exchange.limit(_REFUSAL_SECONDS, late):
            await self._download(message)

    async def _download(self, message: ExchangeResponse) -> None:
        """Send what arrives until the response ends; the first message may carry a head already."""
        while True:
            body, complete = self._exchange.take_body(PIECES.size)
            has_body = bool(body)
            if has_body:
                message.body = body
                self._within_line = self._events_are_lines and not body.endswith(b"\n")
            del body  # else a caller that reads no further would have it held twice
            if complete or self._may_end_now():
                message.end.CopyFrom(_COMPLETE)
                await self._write(message)
                return
            if has_body or message.HasField("head"):
                await self._write(message)
                message = ExchangeResponse()
            await self._exchange.body_readable(limited=self._limited)

    async def _write(self, message: ExchangeResponse) -> None:
        """Send a message, which waits while the caller is slow."""
        PIECES.waiting += 1
        try:
            with self._exchange.expect_reader(limited=self._limited):
                await self._context.write(message)
        finally:
            PIECES.waiting -= 1

    def _may_end_now(self) -> bool:
        """Whether a watch can end here without losing part of an event: informers then resume, elsewhere.

        kube-apiserver writes events through a buffer, so in a burst a chunk can end within one; a line of JSON cannot.
        """
        between = self._exchange.is_between_chunks and not self._within_line
        return between and self._work.ending and self._info.verb == "watch"

    async def _upload(self, message: ExchangeRequest | None) -> None:
        """Send what the caller sends until it ends; `message` has been read already."""
        while True:
            if message is None:
                message = await self._read()
            if message.body:
                await self._exchange.send(message.body)
            if message.HasField("end"):
                self._exchange.finish()
                return
            message = None

    async def _read(self) -> ExchangeRequest:
        with self._exchange.expect_body(limited=self._limited):
            message = cast("object", await self._context.read())
        if not isinstance(message, ExchangeRequest):  # grpc.aio.EOF, which the stubs do not tell of
            # A client that leaves cancels the call, of which the library tells only after the end of its messages.
            await asyncio.sleep(_CANCELLATION_SECONDS)
            raise InvalidRequestError("the client ended the stream without an end message")
        if message.HasField("head"):
            raise InvalidRequestError("the client sent a second head on the stream")
        return message


_COMPLETE: Final = ResponseEnd()


def _render_head(head: ResponseHead) -> ResponseHeadMessage:
    headers = [Header(name=name, value=value) for name, value in returned_headers(head.headers)]
    return ResponseHeadMessage(status=head.status, reason=head.reason, headers=headers)


def _first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Prefer a failure with a meaning for the caller."""
    known = failures.subgroup(GatewayError)
    failure: BaseException = (known or failures).exceptions[0]
    while isinstance(failure, BaseExceptionGroup):
        failure = cast("BaseExceptionGroup[BaseException]", failure).exceptions[0]
    return failure
