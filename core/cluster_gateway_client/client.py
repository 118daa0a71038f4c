"""A client of the routing cores."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from clustergateway.access.v1.access_service_pb2_grpc import AccessServiceStub
from clustergateway.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead
from clustergateway.routing.v1.routing_service_pb2_grpc import RoutingServiceStub

from cluster_gateway_client.channel import CoreEndpoint, open_channel
from cluster_gateway_client.exchange import Exchange
from cluster_gateway_client.response import ClusterResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import grpc
    from clustergateway.access.v1.access_service_pb2_grpc import AccessServiceAsyncStub
    from clustergateway.registry.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub
    from clustergateway.routing.v1.routing_service_pb2_grpc import RoutingServiceAsyncStub


class CoreClient:
    """Speaks to a pool of cores over one channel; use as an async context manager.

    Attributes:
        registry: Stub of RegistryService.
        access: Stub of AccessService, for facades only.
    """

    def __init__(self, endpoint: CoreEndpoint) -> None:
        self._channel: grpc.aio.Channel = open_channel(endpoint)
        self._routing: RoutingServiceAsyncStub = RoutingServiceStub(self._channel)
        self.registry: RegistryServiceAsyncStub = RegistryServiceStub(self._channel)
        self.access: AccessServiceAsyncStub = AccessServiceStub(self._channel)

    async def __aenter__(self) -> CoreClient:
        """Return the client; the channel connects when first used."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channel; exchanges in progress are cancelled."""
        await self._channel.close()

    def exchange(self) -> Exchange:
        """Return a new exchange, for callers that stream a request or switch protocols."""
        return Exchange(self._routing)

    @asynccontextmanager
    async def request(
        self,
        cluster_name: str,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> AsyncIterator[ClusterResponse]:
        """Send one request to a cluster and read its response within the context.

        Leaving the context early cancels the request; so does cancellation.

        Args:
            cluster_name: The cluster.
            method: HTTP method in upper case.
            target: Path and query below the cluster's root, already percent-encoded.
            headers: Headers to send.
            body: Whole body, or None for none.

        Raises:
            CoreError: The gateway failed the request. An error that the cluster answers is a response.
        """
        head = RequestHead(
            cluster_name=cluster_name,
            method=method,
            target=target.encode("ascii"),
            headers=[Header(name=name.encode("ascii"), value=value.encode("latin-1")) for name, value in headers],
        )
        if body is not None:
            head.headers.add(name=b"Content-Length", value=b"%d" % len(body))
        async with self.exchange() as exchange:
            await exchange.start(head, end=not body)
            if body:
                await _send_body(exchange, body)
            yield ClusterResponse(exchange, await exchange.receive())


async def _send_body(exchange: Exchange, body: bytes) -> None:
    step = 1024 * 1024
    for start in range(0, len(body), step):
        await exchange.send(body[start : start + step])
    await exchange.finish()
