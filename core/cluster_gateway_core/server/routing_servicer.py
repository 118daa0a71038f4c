"""RoutingService: one HTTP exchange with a cluster a call.

The way of a request: who asks, is the target sound, may they, which cluster, what may travel, is there room, then the
relay. Whether the caller may reach a cluster is decided before whether it exists, so that nobody learns names by
trying.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Final, Protocol, cast

from cluster_gateway_core.errors import (
    GatewayError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ShuttingDownError,
    UnauthenticatedError,
)
from cluster_gateway_core.identity.impersonator import Impersonator
from cluster_gateway_core.model.attributes import ResourceAttributes
from cluster_gateway_core.model.http import RequestHead
from cluster_gateway_core.routing.header_policy import AUDIT_ID, first_value, forwarded_headers, has_audit_id
from cluster_gateway_core.routing.request_info import parse_request_info, verb_of_method
from cluster_gateway_core.routing.target import check_target
from cluster_gateway_core.server.relay import Relay
from cluster_gateway_core.server.status_mapping import abort_with, render_error
from cluster_gateway_core.settings import ServingSettings
from cluster_gateway_core.upstream.deadline import Deadlines
from cluster_gateway_core.upstream.exchange import UpstreamExchange
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeRequest, ExchangeResponse, ResponseEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_core.identity.passing import IdentityPassing
    from cluster_gateway_core.model.attributes import Attributes
    from cluster_gateway_core.model.user import UserInfo
    from cluster_gateway_core.server.drain import Drain, Work
    from cluster_gateway_core.server.reauthorization import Reauthorization
    from cluster_gateway_core.server.relay import Context
    from cluster_gateway_core.upstream.directory import UpstreamDirectory
    from cluster_gateway_core.upstream.guard import Guard
    from clustergateway.access.v1.user_info_pb2 import UserInfo as UserInfoMessage
    from clustergateway.routing.v1.routing_service_pb2 import RequestHead as RequestHeadMessage

_log = logging.getLogger(__name__)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UPGRADES: Final = frozenset({"websocket", "spdy/3.1"})
"""Protocols that Kubernetes upgrades to; anything else would be a tunnel of unknown purpose."""


class Callers(Protocol):
    """Who a gRPC client is."""

    async def resolve(self, context: Context, asserted: UserInfoMessage | None) -> UserInfo:
        """Return the user on whose behalf a call is made, or raise UnauthenticatedError or AccessDeniedError."""
        ...

    def is_facade(self, context: Context) -> bool:
        """Whether the client is a trusted facade."""
        ...


class Authorizer(Protocol):
    """The hub's authorizer."""

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        """Pass when the user may; AccessDeniedError when not, HubUnavailableError when the hub cannot be asked."""
        ...


class RoutingServicer(routing_service_pb2_grpc.RoutingServiceServicer):
    """Serves clustergateway.routing.v1.RoutingService."""

    def __init__(  # noqa: PLR0913 - each is a part of the way, and a keyword
        self,
        *,
        callers: Callers,
        authorizer: Authorizer,
        reauthorization: Reauthorization,
        guard: Guard,
        passing: IdentityPassing,
        directory: UpstreamDirectory,
        drain: Drain,
        settings: ServingSettings | None = None,
    ) -> None:
        self._callers = callers
        self._authorizer = authorizer
        self._reauthorization = reauthorization
        self._impersonator = Impersonator(authorizer)
        self._guard = guard
        self._passing = passing
        self._directory = directory
        self._drain = drain
        settings = settings or ServingSettings()
        self._head_seconds = settings.head_seconds
        self._deadlines = Deadlines(shortest_seconds=settings.head_seconds)
        self._pending = settings.pending_streams
        self._silent = 0
        self._unread = 0

    async def Exchange(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]  # noqa: ARG002, N802 - gRPC's signature; reads and writes through the context
        """Carry one HTTP request to a cluster and its response back."""
        first = await self._read_first(context)
        if not isinstance(first, ExchangeRequest) or not first.HasField("head"):
            await abort_with(context, InvalidRequestError("the first message must carry a head, and come soon"))
        if self._drain.draining:
            await abort_with(context, ShuttingDownError("this core is shutting down", retry_after_seconds=1))
        try:
            with self._drain.track() as work:
                await self._serve(first, context, work)
        except UnauthenticatedError as error:
            await abort_with(context, error)
        except GatewayError as error:
            _log.info(
                "exchange with %s failed: %s: %s (audit id %s)",
                error.cluster_name or "-",
                error.reason,
                error.message,
                _audit_id(first.head),
            )
            await self._tell(context, error)
        except Exception:  # noqa: BLE001 - whatever a request does, the others go on
            _log.exception("exchange with %s failed", first.head.cluster_name)
            await self._tell(context, InternalError("the routing core failed; its log has the details"))

    async def _read_first(self, context: Context) -> object:
        """Wait for the first message, but not for ever: until it comes nobody knows who the client is."""
        if self._silent >= self._pending and not self._callers.is_facade(context):
            await abort_with(context, _overloaded("too many streams are open on which nothing has come"))
        task = cast("asyncio.Task[None]", asyncio.current_task())
        deadline = self._deadlines.start(self._head_seconds, task.cancel)
        self._silent += 1
        try:
            return cast("object", await context.read())
        except asyncio.CancelledError:
            if not deadline.has_expired or task.uncancel():
                raise
            return None
        finally:
            self._silent -= 1
            deadline.stop()

    async def _tell(self, context: Context, error: GatewayError) -> None:
        """End an exchange with an error.

        In a message, lest it counts against this core in anybody's balancing; but a client that does not read holds
        that message back, and only the call's status reaches it always.
        """
        if self._unread >= self._pending:
            await abort_with(context, error)
        self._unread += 1
        try:
            await context.write(_failed(error))
        finally:
            self._unread -= 1

    async def _serve(self, first: ExchangeRequest, context: Context, work: Work) -> None:
        message = first.head
        cluster_name = message.cluster_name
        asserted = message.asserted_user if message.HasField("asserted_user") else None
        caller = await self._callers.resolve(context, asserted)
        request = _read_head(first, trusted=self._callers.is_facade(context))
        check_target(request.target)
        impersonation: list[tuple[bytes, bytes]] = []
        headers = forwarded_headers(request.headers, impersonation)
        if not has_audit_id(headers):
            # As kube-apiserver does (endpoints/filters/audit_init.go): our log and the cluster's audit log then agree.
            headers.append((b"Audit-Id", str(uuid.uuid4()).encode()))
            message.headers.add(name=headers[-1][0], value=headers[-1][1])
        user = await self._authorize(caller, impersonation, cluster_name, request)
        upstream = self._directory.resolve(cluster_name)
        info = parse_request_info(request.method, request.target.decode("utf-8", "replace"))
        long_running = info.is_long_running or bool(request.upgrade)
        with self._guard.admit(cluster_name, user.username, long_running=long_running):
            identity = b""
            if self._passing.is_wanted(request.target):
                identity = await self._passing.headers_for(user, upstream.cluster, headers)
            async with UpstreamExchange(upstream, request, headers, identity) as exchange:
                if message.expect_continue:
                    with exchange.expect_reader(limited=not long_running):
                        await context.write(ExchangeResponse(proceed=True))
                work.wake = exchange.wake
                relay = Relay(context, exchange, request, info, work)
                if not long_running:
                    await relay.run(first, cluster_name)
                    return
                async with self._reauthorization.repeat(
                    lambda: self._authorize(caller, impersonation, cluster_name, request)
                ):
                    await relay.run(first, cluster_name)

    async def _authorize(
        self, caller: UserInfo, impersonation: Sequence[tuple[bytes, bytes]], cluster_name: str, request: RequestHead
    ) -> UserInfo:
        """Ask the hub, as its own API server does before it hands a request to us; returns for whom it was asked.

        A WebSocket upgrade is a GET, but opens what `create` guards (kubernetes issue 78741), so it needs both.
        """
        user = await self._impersonator.impersonate(caller, impersonation) if impersonation else caller
        verbs = {verb_of_method(request.method), *(("create",) if request.upgrade else ())}
        for verb in sorted(verbs):
            await self._authorizer.require(user, ResourceAttributes(verb=verb, subresource="proxy", name=cluster_name))
        return user


def _read_head(first: ExchangeRequest, *, trusted: bool) -> RequestHead:
    """Turn the first message into a request.

    Raises:
        InvalidRequestError: The method or the protocol of the upgrade is none that Kubernetes serves, no cluster is
            named, or bytes of a tunnel come before it is open.
    """
    message: RequestHeadMessage = first.head
    if not message.cluster_name:
        raise InvalidRequestError("the request names no cluster")  # to the hub, no name means every name
    if message.method not in _METHODS:
        raise InvalidRequestError("the request's method is none that Kubernetes serves")
    if message.upgrade and not (message.upgrade.isascii() and message.upgrade.lower() in _UPGRADES):
        raise InvalidRequestError("only upgrades to websocket and SPDY/3.1 are served")
    if message.upgrade and (first.body or first.HasField("end")):
        raise InvalidRequestError("a request that switches protocol cannot have a body")
    if not message.forwarded_for.isprintable():
        raise InvalidRequestError("the addresses that it was forwarded for hold a control character")
    return RequestHead(
        method=message.method,
        target=message.target,
        headers=[(header.name, header.value) for header in message.headers],
        forwarded_for=message.forwarded_for if trusted else "",
        upgrade=message.upgrade,
        has_body=not message.upgrade and (bool(first.body) or not first.HasField("end")),
    )


def _audit_id(message: RequestHeadMessage) -> str:
    """The request's audit id, as it may be logged: kube-apiserver takes 64 characters of it."""
    value = first_value(((header.name, header.value) for header in message.headers), AUDIT_ID) or b""
    return repr(value[:64].decode("latin-1"))


def _overloaded(cause: str) -> OverloadedError:
    return OverloadedError(cause, retry_after_seconds=1)


def _failed(error: GatewayError) -> ExchangeResponse:
    return ExchangeResponse(end=ResponseEnd(error=render_error(error)))
