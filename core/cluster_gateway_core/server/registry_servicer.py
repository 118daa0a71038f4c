"""RegistryService: the registered clusters, without their credentials."""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from cluster_gateway_core.errors import GatewayError, InvalidRequestError
from cluster_gateway_core.model.attributes import ResourceAttributes
from cluster_gateway_core.model.cluster import Health
from cluster_gateway_core.registry.label_selector import parse_label_selector
from cluster_gateway_core.server.registry_messages import render_cluster, render_event
from cluster_gateway_core.server.status_mapping import abort_with
from clustergateway.registry.v1 import registry_service_pb2, registry_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from cluster_gateway_core.model.attributes import Attributes
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.model.user import UserInfo
    from cluster_gateway_core.registry.store import ClusterRegistry
    from cluster_gateway_core.server.caller import CallerResolver
    from cluster_gateway_core.server.reauthorization import Reauthorization
    from cluster_gateway_core.server.stream_limit import StreamLimit


class Authorizer(Protocol):
    """Knows who may do what; `hub.access_review.AccessReviewer` does."""

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        """Pass when the user may; AccessDeniedError when not, HubUnavailableError when the hub cannot be asked."""


class HealthWriter(Protocol):
    """Stores health; `hub.health_store.HealthStore` does."""

    @abstractmethod
    async def update(
        self, cluster_name: str, health: Health, *, resource_version: str = "", validate_only: bool = False
    ) -> Cluster:
        """Store it and return the cluster as it is then."""


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Serves the registry; authorization comes before any answer, also that there is no such cluster."""

    def __init__(
        self,
        registry: ClusterRegistry,
        *,
        callers: CallerResolver,
        authorizer: Authorizer,
        reauthorization: Reauthorization,
        health: HealthWriter,
        watches: StreamLimit,
    ) -> None:
        self._registry = registry
        self._callers = callers
        self._authorizer = authorizer
        self._reauthorization = reauthorization
        self._health = health
        self._watches = watches

    async def GetCluster(  # noqa: N802
        self,
        request: registry_service_pb2.GetClusterRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> registry_service_pb2.GetClusterResponse:
        """Read one cluster."""
        try:
            _require_name(request.name)
            await self._authorize(request, context, ResourceAttributes(verb="get", name=request.name))
            cluster = self._registry.get(request.name)
        except GatewayError as error:
            await abort_with(context, error)
        return registry_service_pb2.GetClusterResponse(cluster=render_cluster(cluster))

    async def ListClusters(  # noqa: N802
        self,
        request: registry_service_pb2.ListClustersRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> registry_service_pb2.ListClustersResponse:
        """Read one page; all pages of a list show the registry at the same version."""
        try:
            await self._authorize(request, context, ResourceAttributes(verb="list"))
            return self._list_page(request)
        except GatewayError as error:
            await abort_with(context, error)

    async def WatchClusters(  # noqa: N802
        self,
        request: registry_service_pb2.WatchClustersRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[registry_service_pb2.WatchClustersResponse]:
        """Stream changes until the client cancels."""
        may_watch = ResourceAttributes(verb="watch")
        try:
            user = await self._authorize(request, context, may_watch)
            selector = parse_label_selector(request.label_selector)
            with self._watches.hold(user.username):
                async with self._reauthorization.repeat(lambda: self._authorize(request, context, may_watch)):
                    async for event in self._registry.watch(selector, request.resource_version):
                        yield render_event(event)
        except GatewayError as error:
            await abort_with(context, error)

    async def UpdateClusterHealth(  # noqa: N802
        self,
        request: registry_service_pb2.UpdateClusterHealthRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> registry_service_pb2.UpdateClusterHealthResponse:
        """Store a cluster's health with its Secret."""
        try:
            _require_name(request.name)
            attributes = ResourceAttributes(verb="update", subresource="health", name=request.name)
            await self._authorize(request, context, attributes)
            # A Secret that registers no cluster must not be written.
            self._registry.get(request.name)
            cluster = await self._health.update(
                request.name,
                Health(healthy=request.health.healthy, reason=request.health.reason),
                resource_version=request.resource_version,
                validate_only=request.validate_only,
            )
        except GatewayError as error:
            await abort_with(context, error)
        return registry_service_pb2.UpdateClusterHealthResponse(cluster=render_cluster(cluster))

    async def _authorize(
        self,
        request: (
            registry_service_pb2.GetClusterRequest
            | registry_service_pb2.ListClustersRequest
            | registry_service_pb2.WatchClustersRequest
            | registry_service_pb2.UpdateClusterHealthRequest
        ),
        context: grpc.aio.ServicerContext[Any, Any],
        attributes: Attributes,
    ) -> UserInfo:
        asserted = request.asserted_user if request.HasField("asserted_user") else None
        user = await self._callers.resolve(context, asserted)
        await self._authorizer.require(user, attributes)
        return user

    def _list_page(
        self, request: registry_service_pb2.ListClustersRequest
    ) -> registry_service_pb2.ListClustersResponse:
        if request.page_size < 0:
            raise InvalidRequestError("page_size must not be negative")
        selector = parse_label_selector(request.label_selector)
        start = PageToken.parse(request.page_token) if request.page_token else None
        version = self._registry.parse_version(start.resource_version) if start else None
        found = self._registry.list(selector, version=version)
        rest = [cluster for cluster in found.clusters if start is None or cluster.name > start.after]
        page = rest[: request.page_size] if request.page_size else rest
        remaining = len(rest) - len(page)
        token = PageToken(resource_version=found.resource_version, after=page[-1].name) if remaining else None
        return registry_service_pb2.ListClustersResponse(
            clusters=[render_cluster(cluster) for cluster in page],
            resource_version=found.resource_version,
            next_page_token=token.render() if token else "",
            remaining_items=remaining,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageToken:
    """Where a page begins; opaque to clients.

    Attributes:
        resource_version: Version of the registry that all pages show.
        after: Name of the last cluster of the page before.
    """

    resource_version: str
    after: str

    def render(self) -> str:
        """Make it printable."""
        text = json.dumps([self.resource_version, self.after]).encode()
        return base64.urlsafe_b64encode(text).decode()

    @classmethod
    def parse(cls, token: str) -> PageToken:
        """Read what `render` made.

        Raises:
            InvalidRequestError: It is something else.
        """
        try:
            parts = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
            version, after = cast("list[Any]", parts)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError("page_token is not one of this API") from error
        if not isinstance(version, str) or not isinstance(after, str):
            raise InvalidRequestError("page_token is not one of this API")
        return cls(resource_version=version, after=after)


def _require_name(name: str) -> None:
    if not name:
        raise InvalidRequestError("name must be set")
