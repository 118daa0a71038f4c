"""Holds grpcio to what `cluster_gateway_client.exchange` relies on beyond its public API (grpc issue 36066)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeRequest, RequestHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Refusing(routing_service_pb2_grpc.RoutingServiceServicer):
    """Refuses every call at its first message."""

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        await context.read()
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(Refusing(), server)
    server.add_insecure_port(f"unix:{tmp_path}/core.sock")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/core.sock") as channel:
        yield channel
    await server.stop(None)


async def test_a_raw_write_to_a_refused_call_leaves_its_status_alone_g6(channel: grpc.aio.Channel) -> None:
    for _ in range(20):
        call: Any = routing_service_pb2_grpc.RoutingServiceStub(channel).Exchange()  # type: ignore[arg-type]
        message = ExchangeRequest(head=RequestHead(method="GET"), body=b"x" * 100_000).SerializeToString()
        await call.wait_for_connection()
        while not call.done():
            try:
                await call._cython_call.send_serialized_message(message)
            except grpc.aio.InternalError:
                break
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
