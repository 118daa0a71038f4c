"""A client of the routing cores."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from cluster_gateway_client.channel import CoreEndpoint, check_material, open_channel, read_material
from cluster_gateway_client.exchange import Exchange
from cluster_gateway_client.response import ClusterResponse
from cluster_gateway_client.retry_budget import RetryBudget
from clustergateway.access.v1.access_service_pb2_grpc import AccessServiceStub
from clustergateway.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from clustergateway.routing.v1.routing_service_pb2 import Header, RequestHead
from clustergateway.routing.v1.routing_service_pb2_grpc import RoutingServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    import grpc

_log = logging.getLogger(__name__)


class CoreClient:
    """Speaks to a pool of cores over one channel; use as an async context manager.

    While it is entered, new certificates and keys in the endpoint's files are taken over: calls that begin then go over
    a new channel, those in progress end on the old one. Files that are broken or do not fit together are not taken.

    Attributes:
        routing: Stub of RoutingService, which `exchange` and `request` are easier to use than.
        registry: Stub of RegistryService; take it from here for each call, for it changes with the channel.
        access: Stub of AccessService, for facades only; likewise.
        fault: Why the newest files are not in force; empty when they are.
    """

    def __init__(self, endpoint: CoreEndpoint, *, check_seconds: float = 5.0) -> None:
        """Read the endpoint's files, which are looked at again as often as `check_seconds` says.

        Raises:
            OSError: A file cannot be read.
            ValueError: The endpoint is neither a unix socket nor has a CA.
        """
        self._endpoint = endpoint
        self._check_seconds = check_seconds
        self._material = read_material(endpoint)
        self._channel: grpc.aio.Channel = open_channel(endpoint, self._material)
        self._draining: dict[grpc.aio.Channel, asyncio.Task[None]] = {}
        self._following: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self.fault = ""
        self.budget = RetryBudget()
        self._take_stubs()

    def _take_stubs(self) -> None:
        self.routing = RoutingServiceStub(self._channel)
        self.registry = RegistryServiceStub(self._channel)
        self.access = AccessServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Return the client; the channel connects when first used."""
        if self._material is not None:
            loop = asyncio.get_running_loop()
            self._following = loop.create_task(self._follow_files(), name="certificates towards the cores")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channels; exchanges in progress are cancelled."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._channel.close()
        draining = dict(self._draining)
        for channel in draining:
            await channel.close()
        await asyncio.gather(*draining.values(), return_exceptions=True)

    def when_channel_changes(self, callback: Callable[[], None]) -> None:
        """Have it told when calls begin to go over a new channel, so that a call without end can begin anew there."""
        self._listeners.append(callback)

    async def _follow_files(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            self._look_at_files()

    def _look_at_files(self) -> None:
        try:
            material = read_material(self._endpoint)
            if material is not None and material != self._material:
                check_material(material)
        except OSError as error:
            self._report(f"a certificate file towards the cores cannot be read: {error.strerror}")
        except ValueError as error:
            self._report(f"the certificate files towards the cores cannot be used: {error}")
        else:
            self.fault = ""
            if material != self._material:
                self._material = material
                self._change_channel()

    def _report(self, fault: str) -> None:
        """Log a fault when it is new, not each time that it is met."""
        if fault != self.fault:
            _log.warning("%s; the last ones stay", fault)
        self.fault = fault

    def _change_channel(self) -> None:
        old, self._channel = self._channel, open_channel(self._endpoint, self._material)
        self._take_stubs()
        closing = asyncio.get_running_loop().create_task(old.close(_DRAIN_SECONDS), name="channel to the cores")
        self._draining[old] = closing
        closing.add_done_callback(lambda _: self._draining.pop(old, None))
        _log.info("new certificates towards the cores are in force")
        for callback in self._listeners:
            callback()

    def exchange(self) -> Exchange:
        """Return a new exchange, for callers that stream a request or switch protocols."""
        return Exchange(self)

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
                yield ClusterResponse(exchange, await exchange.ask(head, content))
                return
            await exchange.start(head, end=False)
            async with _beside(_send_body(exchange, content)):
                yield ClusterResponse(exchange, await exchange.receive())


_DRAIN_SECONDS: Final = 3600.0
"""How long calls may go on with certificates that were replaced: a watch lasts ten minutes, a shell an hour."""
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
