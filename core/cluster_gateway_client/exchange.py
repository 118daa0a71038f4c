"""One HTTP exchange with a cluster over gRPC.

The gRPC library reports a failed call at whichever method is waiting, and sometimes as an error of its own making
instead of the call's status; this is the one place that knows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

import grpc

from cluster_gateway_client.errors import CoreError
from clustergateway.routing.v1.routing_service_pb2 import (
    ExchangeRequest,
    ExchangeResponse,
    RequestEnd,
    RequestHead,
)

if TYPE_CHECKING:
    from cluster_gateway_client.retry_budget import RetryBudget
    from clustergateway.routing.v1.routing_service_pb2_grpc import RoutingServiceStub

_log = logging.getLogger(__name__)

_END: Final = RequestEnd()
Call: TypeAlias = "grpc.aio.StreamStreamCall[ExchangeRequest, ExchangeResponse]"


class Cores(Protocol):
    """What an exchange needs of its client.

    Attributes:
        routing: Stub of RoutingService.
        budget: Which requests may be repeated.
    """

    routing: RoutingServiceStub
    budget: RetryBudget


class Exchange:
    """A request in progress, used as an async context manager: leaving it cancels what is not finished.

    One task may send while another receives.
    """

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._call: Call | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        """Open the stream; nothing is sent yet."""
        self._call = self._cores.routing.Exchange()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel the stream unless the response has ended: then the core ends it."""
        if self._call is not None and not self._ended and not self._call.done():
            self._call.cancel()

    async def start(self, head: RequestHead, body: bytes = b"", *, end: bool) -> None:
        """Send the head, with the body's beginning and its end where they are at hand.

        Raises:
            CoreError: No core took the request.
        """
        await self._send(ExchangeRequest(head=head, body=body, end=_END if end else None))

    async def ask(self, head: RequestHead, body: bytes = b"", *, end: bool = True) -> ExchangeResponse:
        """Send what is at hand of a request, as `start`, and wait for the response's first message.

        Another core is asked, once, where that cannot do anything twice: when a core refused the request before it
        did anything, and for GET and HEAD when a core was lost that had not answered. Only a tenth of all requests may
        be repeated.

        Raises:
            CoreError: As `start` and `receive`.
        """
        self._cores.budget.note_request()
        try:
            await self.start(head, body, end=end)
            return await self.receive()
        except CoreError as error:
            if not (_may_repeat(head, error) and self._cores.budget.take()):
                raise
            _log.info("a request for %s is sent to another core: %s", head.cluster_name, error.message)
        self._call = self._cores.routing.Exchange()
        await self.start(head, body, end=end)
        return await self.receive()

    async def send(self, body: bytes) -> None:
        """Send body bytes, at most 1 MiB; waits while the cluster is slow. Raises CoreError when the call failed."""
        await self._send(ExchangeRequest(body=body))

    async def finish(self) -> None:
        """End the body, or after a 101 this direction. Raises CoreError when the call failed."""
        await self._send(ExchangeRequest(end=_END))

    async def receive(self) -> ExchangeResponse:
        """Wait for the next piece of the response; after one with `end` there is nothing more.

        Cancellation cancels the whole exchange.

        Raises:
            CoreError: The gateway failed the request, or the stream ended without an end: a body received so far is
                cut and must not be shown as complete.
        """
        call = self._open_call
        try:
            message = await call.read()
        except asyncio.CancelledError:
            if call.cancelled() and not _being_cancelled():
                raise await self._failure() from None
            raise
        except grpc.aio.AioRpcError as error:
            raise await self._failure() from error
        if not isinstance(message, ExchangeResponse):
            raise await self._failure()
        if message.HasField("end"):
            self._ended = True
            if message.end.HasField("error"):
                raise CoreError.from_message(message.end.error)
        return message

    @property
    def _open_call(self) -> Call:
        if self._call is None:
            raise RuntimeError("the exchange is not entered")
        return self._call

    async def _send(self, message: ExchangeRequest) -> None:
        call = self._open_call
        if call.done():
            raise await self._failure()
        try:
            await _write(call, message)
        except asyncio.CancelledError:
            if call.cancelled() and not _being_cancelled():
                raise await self._failure() from None
            raise
        except (grpc.aio.AioRpcError, grpc.aio.InternalError) as error:
            raise await self._failure() from error

    async def _failure(self) -> CoreError:
        """Why the call ended though the response has not."""
        outcome = await _outcome_of(self._open_call)
        if outcome.code() is grpc.StatusCode.OK:
            return CoreError(
                "RESPONSE_TRUNCATED",
                "the routing core ended the response early",
                hop="CORE",
                hint="Ask again; if it lasts, look at the core's log.",
            )
        return CoreError.from_rpc_error(outcome)


def _may_repeat(head: RequestHead, failure: CoreError) -> bool:
    """Whether a request that failed without any response may be sent again."""
    if failure.reason == "SHUTTING_DOWN":
        return True
    # It may have reached the cluster; those two change nothing there.
    return failure.reason == "CORE_UNAVAILABLE" and head.method in ("GET", "HEAD") and not head.upgrade


async def _outcome_of(call: Call) -> grpc.aio.AioRpcError:
    """Status of a call; waits until it has ended."""
    trailing = grpc.aio.Metadata() if call.cancelled() else await call.trailing_metadata()
    return grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), trailing, details=await call.details())


async def _write(call: Call, message: ExchangeRequest) -> None:
    """Write as `call.write` does, but leave the status to the core.

    On a call that has failed, the library's own method puts INTERNAL in the place of the status that is about to arrive
    (grpc issue 36066), and the reason would be lost. A contract test holds grpcio to what this relies on.
    """
    await call.wait_for_connection()
    await call._cython_call.send_serialized_message(message.SerializeToString())  # type: ignore[attr-defined]  # noqa: SLF001


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
