"""Connections have an age, so that cores that are new get their share; no call ends by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.hub_certificates import make_identity

from cluster_gateway_client import CoreClient, CoreEndpoint
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.server.endpoints import add_endpoints, server_options
from cluster_gateway_core.settings import ServingSettings
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse, RequestHead, ResponseEnd, ResponseHead

if TYPE_CHECKING:
    from pathlib import Path

_AUTHORITY = make_identity("ca")
_SERVER = make_identity("core", issuer=_AUTHORITY, usages=(), hosts=("core.example",))
_TOGETHER = 8
_CONNECTIONS = 6
_STREAM = RequestHead(cluster_name="c", method="GET", target=b"/stream")


class Core(routing_service_pb2_grpc.RoutingServiceServicer):
    """Answers at once, or for `/stream` a number for each message that comes."""

    def __init__(self) -> None:
        self.peers: set[str] = set()

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        first = await context.read()
        self.peers.add(context.peer())
        await context.write(ExchangeResponse(head=ResponseHead(status=200)))
        while first.head.target == b"/stream" and not first.HasField("end"):
            first = await context.read()
            await context.write(ExchangeResponse(body=first.body))
            first.head.target = b"/stream"
        await context.write(ExchangeResponse(end=ResponseEnd()))


async def test_no_call_fails_while_connections_age_and_a_stream_outlives_its_connection(tmp_path: Path) -> None:
    """GS-7."""
    contents = {
        "ca.crt": _AUTHORITY.certificate_pem,
        "core.crt": _SERVER.certificate_pem,
        "core.key": _SERVER.key_pem,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    settings = ServingSettings(
        certificate_file=str(tmp_path / "core.crt"),
        private_key_file=str(tmp_path / "core.key"),
        token_address="127.0.0.1:0",
        connection_age_seconds=0.3,
    )
    server = grpc.aio.server(options=server_options(settings))
    core = Core()
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(core, server)
    checks = health.aio.HealthServicer()
    await checks.set("clustergateway.routing.v1.RoutingService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    (address,) = add_endpoints(server, settings, TrustAnchors)
    await server.start()
    endpoint = CoreEndpoint(target=address, ca_file=str(tmp_path / "ca.crt"), server_name="core.example")
    done = asyncio.Event()

    async def ask_on() -> int:
        answers = 0
        while not done.is_set():
            async with client.request("c", "GET", "/") as response:
                assert response.status == 200
                await response.read()
                answers += 1
        return answers

    try:
        async with (
            asyncio.timeout(60),
            CoreClient(endpoint) as client,
            client.exchange() as stream,
            asyncio.TaskGroup() as group,
        ):
            await stream.start(_STREAM, end=False)
            await stream.receive()
            asking = [group.create_task(ask_on()) for _ in range(_TOGETHER)]
            while len(core.peers) < _CONNECTIONS:
                await stream.send(b"%d" % len(core.peers))
                assert (await stream.receive()).body
            done.set()
            await stream.finish()
        assert all(task.result() > 0 for task in asking)
    finally:
        await server.stop(0)
