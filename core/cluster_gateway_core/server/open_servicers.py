"""What anybody may call without saying who it is: health and reflection. Both are made to bear it.

The library's own health servicer writes to its watchers with a lock held that setting a status needs too, so that one
watcher whose HTTP/2 window is shut would stop the core's housekeeping and its shutdown. Here each watcher waits alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from cluster_gateway_core.errors import OverloadedError
from cluster_gateway_core.server.status_mapping import abort_with
from cluster_gateway_core.server.stream_limit import host_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cluster_gateway_core.server.stream_limit import StreamLimit

    Context = grpc.aio.ServicerContext[Any, Any]


class Facades(Protocol):
    """Knows facades, which no limit of strangers concerns."""

    def is_facade(self, context: Context) -> bool:
        """Whether the client is a trusted facade."""
        ...


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Serves grpc.health.v1.Health.

    Source: grpc/grpc, doc/health-checking.md.
    """

    def __init__(self, facades: Facades, limit: StreamLimit) -> None:
        self._facades = facades
        self._limit = limit
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._shutting_down = False

    def set(self, service: str, status: int) -> None:
        """Tell the status of a service; without effect once the shutdown has begun."""
        if not self._shutting_down and self._statuses.get(service) != status:
            self._statuses[service] = status
            self._wake()

    def enter_graceful_shutdown(self) -> None:
        """Tell that no service is served, from now on."""
        self._shutting_down = True
        self._statuses = dict.fromkeys(self._statuses, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._wake()

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Tell the status of a service once."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Tell the status of a service, and each later one; a slow watcher gets only the latest."""
        if self._facades.is_facade(context):
            await self._tell(request.service, context)
            return
        try:
            with self._limit.hold(host_of(context)):
                await self._tell(request.service, context)
        except OverloadedError as error:
            await abort_with(context, error)

    async def _tell(self, service: str, context: Context) -> None:
        told: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def add_reflection(server: grpc.aio.Server, service_names: Iterable[str], limit: StreamLimit) -> None:
    """Serve grpc.reflection.v1alpha.ServerReflection."""
    library = cast("Any", reflection_pb2_grpc)  # it has no types
    library.add_ServerReflectionServicer_to_server(_Reflection(service_names, limit), server)


class _Reflection:
    def __init__(self, service_names: Iterable[str], limit: StreamLimit) -> None:
        self._library = cast("Any", reflection).aio.ReflectionServicer(service_names)
        self._limit = limit

    async def ServerReflectionInfo(self, request_iterator: object, context: Context) -> AsyncIterator[Any]:  # noqa: N802
        """Describe the services."""
        try:
            with self._limit.hold(host_of(context)):
                async for answer in self._library.ServerReflectionInfo(request_iterator, context):
                    yield answer
        except OverloadedError as error:
            await abort_with(context, error)
