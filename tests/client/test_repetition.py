"""What is asked of a second core, and what never (research, part (c), retry policy)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.hub_certificates import make_identity

from cluster_gateway_client import CoreClient, CoreEndpoint, CoreError
from cluster_gateway_client.retry_budget import RetryBudget
from cluster_gateway_core.errors import ShuttingDownError
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.server.endpoints import add_endpoints, server_options
from cluster_gateway_core.server.status_mapping import abort_with
from cluster_gateway_core.settings import ServingSettings
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse, RequestHead, ResponseEnd, ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_AUTHORITY = make_identity("ca")
_SERVER = make_identity("core", issuer=_AUTHORITY, usages=(), hosts=("core.example",))


@dataclass
class Pool:
    """Two cores behind one client.

    Attributes:
        acts: What the cores do with the exchanges that come, in their order; then they answer.
        received: Method and body of each exchange, in their order.
    """

    acts: list[str] = field(default_factory=list)
    received: list[tuple[str, bytes]] = field(default_factory=list)
    client: CoreClient = field(init=False)
    servers: list[grpc.aio.Server] = field(default_factory=list)


class Core(routing_service_pb2_grpc.RoutingServiceServicer):
    """One of them."""

    def __init__(self, pool: Pool, server: grpc.aio.Server) -> None:
        self._pool = pool
        self._server = server
        self._stopping: asyncio.Task[None] | None = None

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        first = await context.read()
        self._pool.received.append((first.head.method, first.body))
        act = self._pool.acts.pop(0) if self._pool.acts else "answer"
        if act == "refuse":
            await abort_with(context, ShuttingDownError("this core is shutting down", retry_after_seconds=1))
        if act == "begin and die":
            await context.write(ExchangeResponse(head=ResponseHead(status=200), body=b"half"))
        if act != "answer":
            self._stopping = asyncio.get_running_loop().create_task(self._server.stop(0))
            await asyncio.Event().wait()
        await context.write(ExchangeResponse(head=ResponseHead(status=200), body=first.body, end=ResponseEnd()))


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
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
    )
    made = Pool()
    async with AsyncExitStack() as stack:
        addresses = []
        for _ in range(2):
            server = grpc.aio.server(options=server_options(settings))
            routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(Core(made, server), server)
            checks = health.aio.HealthServicer()
            await checks.set("clustergateway.routing.v1.RoutingService", health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(checks, server)
            addresses += add_endpoints(server, settings, TrustAnchors)
            await server.start()
            stack.push_async_callback(server.stop, 0)
        endpoint = CoreEndpoint(
            target=f"ipv4:{','.join(addresses)}", ca_file=str(tmp_path / "ca.crt"), server_name="core.example"
        )
        made.client = await stack.enter_async_context(CoreClient(endpoint))
        yield made


async def ask(pool: Pool, method: str, body: bytes | None = None) -> bytes:
    async with asyncio.timeout(20), pool.client.request("c", method, "/", body=body) as response:
        return await response.read()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_a_draining_core_refuses_goes_whole_to_another(pool: Pool, method: str) -> None:
    pool.acts = ["refuse"]
    assert await ask(pool, method, b"content") == b"content"
    assert pool.received == [(method, b"content")] * 2


async def test_a_switch_of_protocols_that_is_refused_goes_to_another(pool: Pool) -> None:
    pool.acts = ["refuse"]
    head = RequestHead(cluster_name="c", method="POST", target=b"/", upgrade="websocket")
    async with pool.client.exchange() as exchange:
        assert (await exchange.ask(head, end=False)).head.status == 200
    assert len(pool.received) == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_read_whose_core_dies_before_any_answer_goes_to_another(pool: Pool, method: str) -> None:
    """F2."""
    pool.acts = ["die"]
    await ask(pool, method)
    assert pool.received == [(method, b"")] * 2


@pytest.mark.parametrize(("method", "upgrade"), [("POST", ""), ("DELETE", ""), ("GET", "websocket")])
async def test_what_may_have_changed_something_is_never_sent_twice(pool: Pool, method: str, upgrade: str) -> None:
    """F2."""
    pool.acts = ["die"]
    head = RequestHead(cluster_name="c", method=method, target=b"/", upgrade=upgrade)
    async with asyncio.timeout(20), pool.client.exchange() as exchange:
        with pytest.raises(CoreError) as lost:
            await exchange.ask(head, end=not upgrade)
    assert lost.value.reason == "CORE_UNAVAILABLE"
    assert pool.received == [(method, b"")]
    assert await ask(pool, "GET") == b""  # the other core serves


async def test_an_answer_that_has_begun_is_cut_and_not_begun_again(pool: Pool) -> None:
    """F2."""
    pool.acts = ["begin and die"]
    with pytest.raises(CoreError) as lost:
        await ask(pool, "GET")
    assert lost.value.reason == "CORE_UNAVAILABLE"
    assert len(pool.received) == 1


async def test_a_request_is_repeated_once_and_no_more(pool: Pool) -> None:
    pool.acts = ["refuse", "refuse", "refuse"]
    with pytest.raises(CoreError) as refused:
        await ask(pool, "GET")
    assert refused.value.reason == "SHUTTING_DOWN"
    assert len(pool.received) == 2


async def test_a_client_whose_requests_are_all_refused_stops_repeating_them(pool: Pool) -> None:
    pool.acts = ["refuse"] * 1000
    for _ in range(60):
        with pytest.raises(CoreError):
            await ask(pool, "GET")
    # The reserve of ten at first, then a tenth of the requests.
    assert 60 + 10 <= len(pool.received) <= 60 + 10 + 6


def test_a_budget_fills_by_a_tenth_of_the_requests_up_to_its_reserve() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.note_request()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(9):
        budget.note_request()
    assert not budget.take()
    for _ in range(2):
        budget.note_request()
    assert budget.take()
    assert not budget.take()
