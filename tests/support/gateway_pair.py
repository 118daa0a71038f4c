"""A real facade before a real core's way to clusters, in this process; only the hub is made up.

The way of a request is whole: TLS, authentication by the front proxy's headers, gRPC over the private socket, caller
and authorization, the header and response policies, and real connections to whatever listens at a cluster's address.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.fake_core import FakeCore
from tests.support.routing_core import Passing
from tests.support.running_facade import RunningFacade, running_facade
from tests.support.upstreams import make_settings

from cluster_gateway_core.errors import AccessDeniedError, ClusterNotFoundError
from cluster_gateway_core.model.attributes import ResourceAttributes
from cluster_gateway_core.server.caller import CallerResolver
from cluster_gateway_core.server.drain import Drain
from cluster_gateway_core.server.endpoints import server_options
from cluster_gateway_core.server.reauthorization import Reauthorization
from cluster_gateway_core.server.routing_servicer import RoutingServicer
from cluster_gateway_core.settings import LimitSettings, ReviewSettings, ServingSettings
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from cluster_gateway_core.upstream.guard import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cluster_gateway_core.model.attributes import Attributes
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.model.user import UserInfo

_CLUSTERS = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways"


@dataclass(slots=True)
class Registry:
    """The registered clusters by name."""

    clusters: dict[str, Cluster] = field(default_factory=dict)

    def get(self, name: str) -> Cluster:
        if name not in self.clusters:
            raise ClusterNotFoundError(name)
        return self.clusters[name]


@dataclass(slots=True)
class Hub:
    """The hub's authorizer: allows what `may` says, and remembers whom it was asked about."""

    may: Callable[[UserInfo, ResourceAttributes], bool] = lambda _user, _attributes: True
    asked: list[tuple[UserInfo, ResourceAttributes]] = field(default_factory=list)

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        assert isinstance(attributes, ResourceAttributes)
        self.asked.append((user, attributes))
        if not self.may(user, attributes):
            raise AccessDeniedError(f"{user.username} may not {attributes.verb} {attributes.name}")


class _Nobody:
    """No token is anybody's."""

    async def authenticate(self, token: str) -> None:
        del token


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPair:
    """A running pair.

    Attributes:
        facade: The facade; its clients connect here.
        registry: Which clusters there are.
        hub: Who may do what.
        drain: The core's count of exchanges.
        directory: The core's ways to clusters.
    """

    facade: RunningFacade
    registry: Registry
    hub: Hub
    drain: Drain
    directory: UpstreamDirectory

    @staticmethod
    def path(target: str = "/x", cluster: str = "managed1") -> str:
        """A cluster's target at the facade."""
        return f"{_CLUSTERS}/{cluster}/proxy{target}"

    async def until_idle(self) -> None:
        """Wait until no exchange is in progress in the core and no connection is open at the facade."""
        await self.facade.until(lambda: self.drain.active == 0 and not self.facade.facade._server._open)


def make_servicer(
    settings: ServingSettings,
    hub: Hub,
    directory: UpstreamDirectory,
    drain: Drain,
    limits: LimitSettings | None = None,
) -> RoutingServicer:
    """Join the parts of a core that carry exchanges."""
    anchors: Any = None  # who comes by the private socket needs none
    return RoutingServicer(
        callers=CallerResolver(settings, trust=lambda: anchors, tokens=_Nobody()),
        authorizer=hub,
        reauthorization=Reauthorization(ReviewSettings()),
        guard=Guard(limits or LimitSettings()),
        passing=Passing().make(),
        directory=directory,
        drain=drain,
    )


@asynccontextmanager
async def gateway_pair(
    folder: Path,
    *clusters: Cluster,
    upstream: dict[str, float] | None = None,
    limits: LimitSettings | None = None,
    **serving: Any,
) -> AsyncIterator[GatewayPair]:
    """Run a pair in front of clusters.

    Args:
        folder: Where files are put.
        *clusters: The registered clusters.
        upstream: What differs from the usual settings of connections to clusters.
        limits: How many requests may be in progress, if not the usual.
        **serving: What differs from the usual settings of the facade.
    """
    registry = Registry({cluster.name: cluster for cluster in clusters})
    hub, drain = Hub(), Drain()
    settings = ServingSettings(unix_socket=str(folder / "core.sock"))
    directory = UpstreamDirectory(registry, make_settings(**upstream or {}))
    servicer = make_servicer(settings, hub, directory, drain, limits)
    core = FakeCore(folder / "core.sock", routing=servicer, options=server_options(settings))
    async with running_facade(folder, core=core, **serving) as facade:
        try:
            yield GatewayPair(facade=facade, registry=registry, hub=hub, drain=drain, directory=directory)
        finally:
            directory.close()
