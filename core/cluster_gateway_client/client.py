"""A client of the routing cores."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from cluster_gateway_client.channel import CoreEndpoint, open_channel
from cluster_gateway_client.exchange import Exchange
from cluster_gateway_client.response import ClusterResponse
from clustergateway.access.v1.access_service_pb2_grpc import AccessServiceStub
from clustergateway.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead
from clustergateway.routing.v1.routing_service_pb2_grpc import RoutingServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterable

    import grpc


class CoreClient:
    """Speaks to a pool of cores over one channel; use as an async context manager.

    Attributes:
        registry: Stub of RegistryService.
        access: Stub of AccessService, for facades only.
    """

    def __init__(self, endpoint: CoreEndpoint) -> None:
        self._channel: grpc.aio.Channel = open_channel(endpoint)
        self._routing = RoutingServiceStub(self._channel)
        self.registry = RegistryServiceStub(self._channel)
        self.access = AccessServiceStub(self._channel)

    async def __aenter__(self) -> Self:
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
    ) -> AsyncGenerator[ClusterResponse]:
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
        content = body or b""
        async with self.exchange() as exchange:
            if len(content) <= _LARGEST_MESSAGE_BYTES:
                await exchange.start(head, content, end=True)
                yield ClusterResponse(exchange, await exchange.receive())
                return
            await exchange.start(head, end=False)
            async with _beside(_send_body(exchange, content)):
                yield ClusterResponse(exchange, await exchange.receive())


_LARGEST_MESSAGE_BYTES: Final = 1024 * 1024
"""Most body bytes in one message, by the API's contract."""


@asynccontextmanager
async def _beside(sending: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Send a body while its context reads the response, which may come first: then the rest is not sent.

    A failure to send is not told: reading the response tells it, and better.
    """
    task = asyncio.get_running_loop().create_task(sending, name="request body")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _send_body(exchange: Exchange, body: bytes) -> None:
    for start in range(0, len(body), _LARGEST_MESSAGE_BYTES):
        await exchange.send(body[start : start + _LARGEST_MESSAGE_BYTES])
    await exchange.finish()
