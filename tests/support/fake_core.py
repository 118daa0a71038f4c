"""A core whose answers a test writes down, over real gRPC on a unix socket."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import duration_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from clustergateway.access.v1 import access_service_pb2, access_service_pb2_grpc
from clustergateway.errors.v1 import error_reason_pb2
from clustergateway.routing.v1 import routing_service_pb2, routing_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    Script = Callable[["Conversation"], Awaitable[None]]


class Conversation:
    """One exchange as the core sees it.

    Attributes:
        head: The request's head.
        ended: Whether the request's end has been read.
        cancelled: Set once the facade has cancelled the exchange.
    """

    def __init__(self, requests: Any, context: Any) -> None:
        self._requests = requests
        self._context = context
        self.head = routing_service_pb2.RequestHead()
        self.ended = False
        self.cancelled = asyncio.Event()
        self._first: routing_service_pb2.ExchangeRequest | None = None

    async def open(self) -> None:
        """Read the first message."""
        self._first = await anext(self._requests)
        self.head = self._first.head

    async def read(self) -> bytes:
        """Return the next piece of the body; empty at its end."""
        while not self.ended:
            message, self._first = self._first, None
            if message is None:
                message = await anext(self._requests, None)
            if message is None:
                break
            self.ended = message.HasField("end")
            if message.body:
                return bytes(message.body)
        return b""

    async def read_all(self) -> bytes:
        """Return the body up to its end."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def send_head(self, status: int, *headers: tuple[bytes, bytes], reason: bytes = b"OK") -> None:
        """Send the response's head alone."""
        await self._context.write(routing_service_pb2.ExchangeResponse(head=make_head(status, *headers, reason=reason)))

    async def send(self, body: bytes) -> None:
        """Send a piece of the response's body."""
        await self._context.write(routing_service_pb2.ExchangeResponse(body=body))

    async def proceed(self) -> None:
        """Say that the body is wanted."""
        await self._context.write(routing_service_pb2.ExchangeResponse(proceed=True))

    async def end(self) -> None:
        """Complete the response."""
        await self._context.write(routing_service_pb2.ExchangeResponse(end=routing_service_pb2.ResponseEnd()))

    async def fail(self, reason: str, message: str = "made up") -> None:
        """End the response with an error."""
        error = error_reason_pb2.Error(
            reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"),
            message=message,
            cluster_name=self.head.cluster_name,
        )
        await self._context.write(
            routing_service_pb2.ExchangeResponse(end=routing_service_pb2.ResponseEnd(error=error))
        )

    async def respond(
        self, status: int, *headers: tuple[bytes, bytes], body: bytes = b"", reason: bytes = b"OK"
    ) -> None:
        """Send a whole response in one message."""
        await self._context.write(
            routing_service_pb2.ExchangeResponse(
                head=make_head(status, *headers, reason=reason), body=body, end=routing_service_pb2.ResponseEnd()
            )
        )

    async def hold(self) -> None:
        """Do nothing until the facade cancels."""
        await asyncio.Event().wait()


def make_head(status: int, *headers: tuple[bytes, bytes], reason: bytes = b"OK") -> routing_service_pb2.ResponseHead:
    """Build a response's head."""
    return routing_service_pb2.ResponseHead(
        status=status,
        reason=reason,
        headers=[routing_service_pb2.Header(name=name, value=value) for name, value in headers],
    )


async def answer_ok(conversation: Conversation) -> None:
    """Answer 200 with two bytes, whatever the request."""
    await conversation.read_all()
    await conversation.respond(200, (b"Content-Length", b"2"), body=b"ok")


class FakeCore(access_service_pb2_grpc.AccessServiceServicer, routing_service_pb2_grpc.RoutingServiceServicer):
    """Answers exchanges from scripts in order, and then with `answer_ok`.

    Attributes:
        conversations: Every exchange, in the order in which they began.
        tokens: Users by bearer token; any other token is not accepted.
        denied: Paths and resources that nobody may see.
        questions: Every Authorize request.
        impersonations: Every Impersonate request.
        impersonated: The user that Impersonate answers.
        token_reviews: How often Authenticate was asked.
        believed_seconds: How long its answers may be believed.
        conditions: What GetReadiness answers.
    """

    def __init__(self, socket: Path, *, routing: Any = None, options: Sequence[tuple[str, int]] = ()) -> None:
        """Prepare; with `routing`, exchanges go to that servicer instead of scripts. `options` are gRPC's."""
        self._routing = routing or self
        self._options = options
        self.target = f"unix:{socket}"
        self.conversations: list[Conversation] = []
        self.tokens: dict[str, Any] = {}
        self.denied: set[str] = set()
        self.questions: list[access_service_pb2.AuthorizeRequest] = []
        self.impersonations: list[access_service_pb2.ImpersonateRequest] = []
        self.impersonated: Any = None
        self.token_reviews = 0
        self.believed_seconds = 60
        self.conditions: list[access_service_pb2.Condition] = []
        self.access_failure: grpc.StatusCode | None = None
        self._trust: access_service_pb2.WatchTrustResponse | None = None
        self._trust_changed = asyncio.Event()
        self._scripts: deque[Script] = deque()
        self._arrivals: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        server = grpc.aio.server(options=self._options)
        checks = health.aio.HealthServicer()
        for name in ("", "clustergateway.routing.v1.RoutingService"):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(self, server)
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(self._routing, server)
        server.add_insecure_port(self.target)
        await server.start()
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop(0)
            await self._server.wait_for_termination()

    def script(self, *scripts: Script) -> None:
        """Answer the next exchanges so."""
        self._scripts.extend(scripts)

    def trust(self, message: access_service_pb2.WatchTrustResponse) -> None:
        """Stream these trust anchors to every watcher."""
        self._trust = message
        changed, self._trust_changed = self._trust_changed, asyncio.Event()
        changed.set()

    async def conversation(self, number: int = 0) -> Conversation:
        """Wait for an exchange to begin and return it."""
        await self._arrivals[number].wait()
        return self.conversations[number]

    async def Exchange(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        conversation = Conversation(request_iterator.__aiter__(), context)
        try:
            await conversation.open()
            script = self._scripts.popleft() if self._scripts else answer_ok
            self.conversations.append(conversation)
            self._arrivals[len(self.conversations) - 1].set()
            await script(conversation)
        except asyncio.CancelledError:
            conversation.cancelled.set()
            raise

    async def WatchTrust(self, request: Any, context: Any) -> None:  # noqa: N802
        while True:
            changed = self._trust_changed
            if self._trust is not None:
                await context.write(self._trust)
            await changed.wait()

    async def Authenticate(self, request: Any, context: Any) -> access_service_pb2.AuthenticateResponse:  # noqa: N802
        self.token_reviews += 1
        await self._fail_if_told(context)
        believed_for = duration_pb2.Duration(seconds=self.believed_seconds)
        return access_service_pb2.AuthenticateResponse(user=self.tokens.get(request.token), believed_for=believed_for)

    async def Authorize(self, request: Any, context: Any) -> access_service_pb2.AuthorizeResponse:  # noqa: N802
        self.questions.append(request)
        await self._fail_if_told(context)
        asked = request.non_resource.path or request.resource.resource
        return access_service_pb2.AuthorizeResponse(allowed=asked not in self.denied, reason="no rule")

    async def Impersonate(self, request: Any, context: Any) -> access_service_pb2.ImpersonateResponse:  # noqa: N802
        self.impersonations.append(request)
        await self._fail_if_told(context)
        return access_service_pb2.ImpersonateResponse(user=self.impersonated)

    async def GetReadiness(self, request: Any, context: Any) -> access_service_pb2.GetReadinessResponse:  # noqa: N802
        await self._fail_if_told(context)
        return access_service_pb2.GetReadinessResponse(conditions=self.conditions)

    async def _fail_if_told(self, context: Any) -> None:
        if self.access_failure is not None:
            await context.abort(self.access_failure, "made up")
