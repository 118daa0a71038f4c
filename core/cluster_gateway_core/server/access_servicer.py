"""AccessService: what facades must know of the hub."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf import duration_pb2

from cluster_gateway_core.errors import GatewayError, InvalidRequestError
from cluster_gateway_core.identity.impersonator import Impersonator
from cluster_gateway_core.model.attributes import NonResourceAttributes, ResourceAttributes
from cluster_gateway_core.server.caller import parse_user_info
from cluster_gateway_core.server.status_mapping import abort_with
from clustergateway.access.v1 import access_service_pb2, access_service_pb2_grpc, user_info_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc

    from cluster_gateway_core.model.attributes import Attributes, Decision
    from cluster_gateway_core.model.condition import Condition
    from cluster_gateway_core.model.trust import TrustAnchors
    from cluster_gateway_core.model.user import UserInfo
    from cluster_gateway_core.server.caller import CallerResolver


class Reviewer(Protocol):
    """Decides who may do what; `hub.access_review.AccessReviewer` does."""

    @abstractmethod
    async def review(self, user: UserInfo, attributes: Attributes) -> Decision:
        """Decide; HubUnavailableError when the hub could not be asked."""

    @abstractmethod
    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        """Pass when the user may; AccessDeniedError when not, HubUnavailableError when the hub cannot be asked."""


class TokenReviews(Protocol):
    """Knows whose token it is, and for how long; `hub.token_review.TokenReviewer` does."""

    @abstractmethod
    async def review(self, token: str) -> tuple[UserInfo | None, float]:
        """Return a token's user, None when it is not accepted, and how many seconds that may be believed."""


class TrustSource(Protocol):
    """Knows the trust anchors; `hub.trust.TrustStore` does."""

    @abstractmethod
    def watch(self) -> AsyncIterator[TrustAnchors]:
        """Yield the anchors, then each change."""


class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Serves facades, and nobody else: it would tell a stranger what others may do."""

    def __init__(
        self,
        *,
        callers: CallerResolver,
        trust: TrustSource,
        tokens: TokenReviews,
        reviewer: Reviewer,
        conditions: Callable[[], Sequence[Condition]],
    ) -> None:
        self._callers = callers
        self._trust = trust
        self._tokens = tokens
        self._reviewer = reviewer
        self._impersonator = Impersonator(reviewer)
        self._conditions = conditions

    async def WatchTrust(  # noqa: N802
        self,
        request: access_service_pb2.WatchTrustRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[access_service_pb2.WatchTrustResponse]:
        """Stream the trust anchors until the client cancels."""
        del request
        try:
            self._callers.require_facade(context)
        except GatewayError as error:
            await abort_with(context, error)
        async for anchors in self._trust.watch():
            yield render_trust(anchors)

    async def Authenticate(  # noqa: N802
        self,
        request: access_service_pb2.AuthenticateRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> access_service_pb2.AuthenticateResponse:
        """Say whose bearer token it is."""
        try:
            self._callers.require_facade(context)
            user, seconds = await self._tokens.review(request.token)
        except GatewayError as error:
            await abort_with(context, error)
        believed_for = duration_pb2.Duration()
        believed_for.FromMilliseconds(int(seconds * 1000))
        return access_service_pb2.AuthenticateResponse(
            user=render_user_info(user) if user else None, believed_for=believed_for
        )

    async def Authorize(  # noqa: N802
        self,
        request: access_service_pb2.AuthorizeRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> access_service_pb2.AuthorizeResponse:
        """Say whether a user may do something."""
        try:
            self._callers.require_facade(context)
            if not request.user.username:
                raise InvalidRequestError("user must be set")
            decision = await self._reviewer.review(parse_user_info(request.user), parse_attributes(request))
        except GatewayError as error:
            await abort_with(context, error)
        return access_service_pb2.AuthorizeResponse(allowed=decision.allowed, reason=decision.reason)

    async def Impersonate(  # noqa: N802
        self,
        request: access_service_pb2.ImpersonateRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> access_service_pb2.ImpersonateResponse:
        """Say whom a user acts as who sends impersonation headers."""
        try:
            self._callers.require_facade(context)
            if not request.user.username:
                raise InvalidRequestError("user must be set")
            headers = [(header.name, header.value) for header in request.headers]
            user = await self._impersonator.impersonate(parse_user_info(request.user), headers)
        except GatewayError as error:
            await abort_with(context, error)
        return access_service_pb2.ImpersonateResponse(user=render_user_info(user))

    async def GetReadiness(  # noqa: N802
        self,
        request: access_service_pb2.GetReadinessRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> access_service_pb2.GetReadinessResponse:
        """Say what is well and what is not."""
        del request
        try:
            self._callers.require_facade(context)
        except GatewayError as error:
            await abort_with(context, error)
        return access_service_pb2.GetReadinessResponse(
            conditions=[
                access_service_pb2.Condition(name=one.name, ready=one.ready, detail=one.detail)
                for one in self._conditions()
            ]
        )


def parse_attributes(request: access_service_pb2.AuthorizeRequest) -> Attributes:
    """Turn the request's attributes into the core's value.

    Raises:
        InvalidRequestError: It has none.
    """
    match request.WhichOneof("attributes"):
        case "resource":
            resource = request.resource
            return ResourceAttributes(
                verb=resource.verb,
                group=resource.group,
                version=resource.version,
                resource=resource.resource,
                subresource=resource.subresource,
                name=resource.name,
                namespace=resource.namespace,
            )
        case "non_resource":
            return NonResourceAttributes(verb=request.non_resource.verb, path=request.non_resource.path)
        case _:
            raise InvalidRequestError("attributes must be set")


def render_user_info(user: UserInfo) -> user_info_pb2.UserInfo:
    """Turn a user into the message."""
    return user_info_pb2.UserInfo(
        username=user.username,
        uid=user.uid,
        groups=user.groups,
        extra={key: user_info_pb2.ExtraValues(values=values) for key, values in user.extra},
    )


def render_trust(anchors: TrustAnchors) -> access_service_pb2.WatchTrustResponse:
    """Turn the trust anchors into the message."""
    message = access_service_pb2.WatchTrustResponse(client_ca_pem=anchors.client_ca_pem)
    front_proxy = anchors.front_proxy
    if front_proxy is not None:
        message.front_proxy.CopyFrom(
            access_service_pb2.FrontProxyTrust(
                ca_pem=front_proxy.ca_pem,
                allowed_names=front_proxy.allowed_names,
                username_headers=front_proxy.username_headers,
                uid_headers=front_proxy.uid_headers,
                group_headers=front_proxy.group_headers,
                extra_header_prefixes=front_proxy.extra_header_prefixes,
            )
        )
    return message
