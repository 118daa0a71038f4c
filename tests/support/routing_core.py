"""A routing core's RoutingService in this process, on a private socket, in front of a scripted cluster."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from tests.support.upstreams import make_cluster, make_settings

from cluster_gateway_client import CoreClient, CoreEndpoint
from cluster_gateway_core.errors import AccessDeniedError, ClusterNotFoundError, UnauthenticatedError
from cluster_gateway_core.identity.passing import IdentityPassing
from cluster_gateway_core.model.attributes import ResourceAttributes
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.server.drain import Drain
from cluster_gateway_core.server.reauthorization import Reauthorization
from cluster_gateway_core.server.routing_servicer import RoutingServicer
from cluster_gateway_core.settings import LimitSettings, ReviewSettings, ServingSettings
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from cluster_gateway_core.upstream.guard import Guard
from clustergateway.routing.v1 import routing_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster_gateway_core.errors import GatewayError
    from cluster_gateway_core.model.attributes import Attributes
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.model.identity import IdentityRule


class Callers:
    """Every caller is `user`, unless nobody is."""

    def __init__(self) -> None:
        self.known = True
        self.facade = True
        self.user = UserInfo(username="jane")

    async def resolve(self, context: object, asserted: object) -> UserInfo:
        if not self.known:
            raise UnauthenticatedError("nobody knows you")
        return self.user

    def is_facade(self, context: object) -> bool:
        return self.facade


class Authorizer:
    """Allows what is not denied, and remembers what was asked."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.failure: GatewayError | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.askers: list[str] = []

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        assert isinstance(attributes, ResourceAttributes)
        self.askers.append(user.username)
        self.asked.append((attributes.verb, attributes.subresource, attributes.name))
        if self.failure is not None:
            raise self.failure
        if attributes.verb in self.denied:
            raise AccessDeniedError(f"{user.username} may not {attributes.verb}")


class Clusters:
    """The registry, with at most one cluster."""

    def __init__(self, cluster: Cluster | None) -> None:
        self.cluster = cluster

    def get(self, name: str) -> Cluster:
        if self.cluster is None or name != self.cluster.name:
            raise ClusterNotFoundError(name)
        return self.cluster


class Passing:
    """Rules of all clusters and the services that they name."""

    def __init__(self) -> None:
        self.rules: tuple[IdentityRule, ...] = ()
        self.users: dict[str, UserInfo] = {}

    async def exchange(self, url: str, user: UserInfo, *, rule_name: str, cluster_name: str) -> UserInfo:
        return self.users[url]

    def make(self, *, always: bool = False) -> IdentityPassing:
        """Make what tells clusters who is asking, with every request or with those that ask for it."""
        return IdentityPassing(always=always, rules=self, exchanger=self)


class RoutingCore:
    """The parts of a core that tests look at."""

    def __init__(
        self,
        address: str | None,
        *,
        reviews: ReviewSettings | None = None,
        serving: ServingSettings | None = None,
        **settings: float,
    ) -> None:
        self.callers = Callers()
        self.authorizer = Authorizer()
        self.clusters = Clusters(make_cluster(address) if address else None)
        self.directory = UpstreamDirectory(self.clusters, make_settings(**settings))
        self.guard = Guard(LimitSettings())
        self.drain = Drain()
        self.reauthorization = Reauthorization(reviews or ReviewSettings())
        self.passing = Passing()
        self.servicer = RoutingServicer(
            callers=self.callers,
            authorizer=self.authorizer,
            reauthorization=self.reauthorization,
            guard=self.guard,
            passing=self.passing.make(),
            directory=self.directory,
            drain=self.drain,
            settings=serving,
        )

    def pass_identities(self, *, always: bool = True) -> None:
        """Tell the cluster who is asking from now on."""
        self.servicer._passing = self.passing.make(always=always)


@asynccontextmanager
async def serve(servicer: Any) -> AsyncIterator[CoreClient]:
    """Serve a RoutingService on a private socket; yields a client of it."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"unix:{Path(folder) / 'core.sock'}"
        server = grpc.aio.server()
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(servicer, server)
        server.add_insecure_port(target)
        await server.start()
        try:
            async with CoreClient(CoreEndpoint(target=target)) as client:
                yield client
        finally:
            await server.stop(0)


@asynccontextmanager
async def serve_core(
    address: str | None,
    *,
    reviews: ReviewSettings | None = None,
    serving: ServingSettings | None = None,
    **settings: float,
) -> AsyncIterator[tuple[RoutingCore, CoreClient]]:
    """Serve a core in front of the cluster at an address."""
    core = RoutingCore(address, reviews=reviews, serving=serving, **settings)
    async with serve(core.servicer) as client:
        try:
            yield core, client
        finally:
            core.directory.close()
