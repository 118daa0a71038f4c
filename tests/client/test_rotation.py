"""New certificates towards the cores are taken over while the client runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.hub_certificates import Identity, make_identity

from cluster_gateway_client import CoreClient, CoreEndpoint
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.server.endpoints import add_endpoints, server_options
from cluster_gateway_core.settings import ServingSettings
from cluster_gateway_facade.core_access import TrustWatch
from clustergateway.access.v1 import access_service_pb2, access_service_pb2_grpc
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse, RequestHead, ResponseEnd, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_AUTHORITY = make_identity("ca")
_NAME = "core.example"


class WhoAmI(routing_service_pb2_grpc.RoutingServiceServicer, access_service_pb2_grpc.AccessServiceServicer):
    """Answers with the caller's certificate name; with POST it repeats what it is sent until that ends."""

    def __init__(self) -> None:
        self.trust_watchers: list[str] = []

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        first = await context.read()
        await context.write(ExchangeResponse(head=ResponseHead(status=200), body=_name(context)))
        while first.head.method == "POST" and not first.HasField("end"):
            first = await context.read()
            await context.write(ExchangeResponse(body=first.body + b" " + _name(context)))
            first.head.method = "POST"
        await context.write(ExchangeResponse(end=ResponseEnd()))

    async def WatchTrust(self, request: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        self.trust_watchers.append(_name(context).decode())
        await context.write(access_service_pb2.WatchTrustResponse(client_ca_pem=_name(context)))
        await asyncio.Event().wait()


def _name(context: Any) -> bytes:
    return bytes(context.auth_context().get("x509_common_name", [b""])[0])


@dataclass(kw_only=True)
class Stage:
    """A core, a client of it, and the client's files."""

    folder: Path
    client: CoreClient
    core: WhoAmI

    def write(self, name: str, *, issuer: Identity = _AUTHORITY) -> None:
        identity = make_identity(name, issuer=issuer)
        (self.folder / "client.key").write_bytes(identity.key_pem)
        (self.folder / "client.crt").write_bytes(identity.certificate_pem)

    async def ask(self) -> bytes:
        async with self.client.request("c", "GET", "/") as response:
            return await response.read()

    async def until_asked_as(self, name: bytes) -> None:
        async with asyncio.timeout(10):
            while await self.ask() != name:  # noqa: ASYNC110 - of files nothing tells
                await asyncio.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with run(tmp_path) as made:
        yield made


@asynccontextmanager
async def run(folder: Path) -> AsyncIterator[Stage]:
    server_identity = make_identity("core", issuer=_AUTHORITY, usages=(), hosts=(_NAME,))
    files = {
        "core.crt": server_identity.certificate_pem,
        "core.key": server_identity.key_pem,
        "ca.crt": _AUTHORITY.certificate_pem,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    settings = ServingSettings(
        certificate_file=str(folder / "core.crt"), private_key_file=str(folder / "core.key"), address="127.0.0.1:0"
    )
    server = grpc.aio.server(options=server_options(settings))
    core = WhoAmI()
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(core, server)
    access_service_pb2_grpc.add_AccessServiceServicer_to_server(core, server)
    checks = health.aio.HealthServicer()
    await checks.set("clustergateway.routing.v1.RoutingService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    (address,) = add_endpoints(server, settings, lambda: TrustAnchors(client_ca_pem=_AUTHORITY.certificate_pem))
    await server.start()
    endpoint = CoreEndpoint(
        target=address,
        ca_file=str(folder / "ca.crt"),
        certificate_file=str(folder / "client.crt"),
        private_key_file=str(folder / "client.key"),
        server_name=_NAME,
    )
    first = make_identity("first", issuer=_AUTHORITY)
    (folder / "client.key").write_bytes(first.key_pem)
    (folder / "client.crt").write_bytes(first.certificate_pem)
    try:
        async with CoreClient(endpoint, check_seconds=0.01) as client:
            yield Stage(folder=folder, client=client, core=core)
    finally:
        await server.stop(0)


async def test_a_new_certificate_is_shown_by_new_calls_and_open_ones_go_on(stage: Stage) -> None:
    """TOK-2."""
    async with stage.client.exchange() as exchange:
        await exchange.start(RequestHead(cluster_name="c", method="POST", target=b"/"), end=False)
        assert (await exchange.receive()).body == b"first"
        stage.write("second")
        await stage.until_asked_as(b"second")
        await exchange.send(b"still")
        assert (await exchange.receive()).body == b"still first"


async def test_one_channel_is_left_after_many_rotations(stage: Stage) -> None:
    """TOK-3."""
    for number in range(5):
        stage.write(f"client-{number}")
        await stage.until_asked_as(f"client-{number}".encode())
    await until(lambda: not stage.client._draining)
    assert await stage.ask() == b"client-4"


async def test_the_same_content_opens_no_new_channel(stage: Stage) -> None:
    """TOK-5."""
    channel = stage.client._channel
    for name in ("client.crt", "client.key", "ca.crt"):
        path = stage.folder / name
        path.write_bytes(path.read_bytes())
    stage.client._look_at_files()
    assert stage.client._channel is channel
    assert stage.client.fault == ""


@pytest.mark.parametrize("damage", ["gone", "empty", "junk", "another's key", "junk authority"])
async def test_broken_files_leave_the_last_good_ones_and_are_told_once(
    stage: Stage, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """TOK-2."""
    channel = stage.client._channel
    name = "ca.crt" if damage == "junk authority" else "client.key"
    path = stage.folder / name
    good = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "another's key":
            path.write_bytes(make_identity("x").key_pem)
        case _:
            path.write_bytes(b"junk")
    for _ in range(3):
        stage.client._look_at_files()
    assert stage.client.fault
    assert sum("the last ones stay" in record.message for record in caplog.records) == 1
    assert stage.client._channel is channel
    assert await stage.ask() == b"first"
    path.write_bytes(good)
    stage.client._look_at_files()
    assert stage.client.fault == ""
    assert stage.client._channel is channel


async def test_a_new_authority_of_the_cores_counts_for_new_connections(stage: Stage) -> None:
    other = make_identity("another ca")
    server = make_identity("core", issuer=other, usages=(), hosts=(_NAME,))
    assert await stage.ask() == b"first"
    (stage.folder / "core.crt").write_bytes(server.certificate_pem)
    (stage.folder / "core.key").write_bytes(server.key_pem)
    (stage.folder / "ca.crt").write_bytes(other.certificate_pem)
    stage.write("second")
    await stage.until_asked_as(b"second")


async def test_the_watch_of_trust_anchors_moves_to_the_new_channel(stage: Stage) -> None:
    seen: list[bytes] = []
    watch = TrustWatch(stage.client, lambda message: seen.append(message.client_ca_pem))
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run())
        await until(lambda: seen == [b"first"])
        stage.write("second")
        await until(lambda: seen == [b"first", b"second"])
        assert not watching.done()
        watching.cancel()
    assert stage.core.trust_watchers == ["first", "second"]
