"""A core's gRPC services without a hub, for tests of the servicers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from cluster_gateway_core.errors import AccessDeniedError
from cluster_gateway_core.hub.broadcast import Broadcast
from cluster_gateway_core.model.attributes import Decision
from cluster_gateway_core.model.cluster import Cluster
from cluster_gateway_core.server.access_servicer import AccessServicer
from cluster_gateway_core.server.reauthorization import Reauthorization
from cluster_gateway_core.server.registry_servicer import RegistryServicer
from cluster_gateway_core.server.stream_limit import StreamLimit
from cluster_gateway_core.settings import ReviewSettings
from clustergateway.access.v1 import access_service_pb2_grpc
from clustergateway.registry.v1 import registry_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster_gateway_core.model.attributes import Attributes
    from cluster_gateway_core.model.cluster import Health
    from cluster_gateway_core.model.condition import Condition
    from cluster_gateway_core.model.trust import TrustAnchors
    from cluster_gateway_core.model.user import UserInfo
    from cluster_gateway_core.registry.store import ClusterRegistry
    from cluster_gateway_core.server.caller import CallerResolver


@dataclass(slots=True)
class FakeAuthorizer:
    """Allows all but the verbs in `denied` and the objects in `denied_names`, and remembers what it was asked."""

    denied: set[str] = field(default_factory=set)
    denied_names: set[str] = field(default_factory=set)
    asked: list[tuple[UserInfo, Attributes]] = field(default_factory=list)

    async def review(self, user: UserInfo, attributes: Attributes) -> Decision:
        self.asked.append((user, attributes))
        named = getattr(attributes, "name", "") in self.denied_names
        return Decision(allowed=attributes.verb not in self.denied and not named, reason="as told")

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        if not (await self.review(user, attributes)).allowed:
            raise AccessDeniedError("denied", hint="ask somebody")


@dataclass(slots=True)
class FakeTokens:
    """Knows the tokens in `users`."""

    users: dict[str, UserInfo] = field(default_factory=dict)

    async def authenticate(self, token: str) -> UserInfo | None:
        return self.users.get(token)

    async def review(self, token: str) -> tuple[UserInfo | None, float]:
        return self.users.get(token), 2.5


@dataclass(slots=True)
class FakeHealth:
    """Remembers what it was told to store."""

    stored: list[tuple[str, Health, str, bool]] = field(default_factory=list)

    async def update(
        self, cluster_name: str, health: Health, *, resource_version: str = "", validate_only: bool = False
    ) -> Cluster:
        self.stored.append((cluster_name, health, resource_version, validate_only))
        return Cluster(name=cluster_name, health=health)


@dataclass(slots=True, kw_only=True)
class CoreServices:
    """What the services are made of; tests look into it."""

    registry: ClusterRegistry
    callers: CallerResolver
    authorizer: FakeAuthorizer = field(default_factory=FakeAuthorizer)
    tokens: FakeTokens = field(default_factory=FakeTokens)
    health: FakeHealth = field(default_factory=FakeHealth)
    reauthorization: Reauthorization = field(default_factory=lambda: Reauthorization(ReviewSettings()))
    conditions: tuple[Condition, ...] = ()
    watches_per_client: int = 100
    trust: Broadcast[TrustAnchors] = field(default_factory=Broadcast)

    def add_to(self, server: grpc.aio.Server) -> None:
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
            RegistryServicer(
                self.registry,
                callers=self.callers,
                authorizer=self.authorizer,
                reauthorization=self.reauthorization,
                health=self.health,
                watches=StreamLimit(self.watches_per_client),
            ),
            server,
        )
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(
            AccessServicer(
                callers=self.callers,
                trust=self.trust,
                tokens=self.tokens,
                reviewer=self.authorizer,
                conditions=lambda: self.conditions,
            ),
            server,
        )


@asynccontextmanager
async def serving(
    services: CoreServices, address: str, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Serve on an address; yields the address with its real port."""
    server = grpc.aio.server()
    services.add_to(server)
    if credentials is None:
        server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
        address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)
