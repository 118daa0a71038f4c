"""What a client can do to a core before anybody has asked who it is, and that the others do not notice."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support import raw_http2 as h2
from tests.support.raw_http2 import RawConnection
from tests.support.routing_core import RoutingCore
from tests.support.scripted_cluster import WAIT_SECONDS, Hold, Receive, ScriptedCluster, Send
from tests.support.upstreams import make_settings

from cluster_gateway_client import CoreClient, CoreEndpoint, CoreError
from cluster_gateway_core.errors import OverloadedError
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.server.endpoints import add_endpoints, server_options
from cluster_gateway_core.server.open_servicers import HealthServicer, add_reflection
from cluster_gateway_core.server.stream_limit import StreamLimit
from cluster_gateway_core.settings import ServingSettings
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import ExchangeRequest, RequestEnd, RequestHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EXCHANGE = "/clustergateway.routing.v1.RoutingService/Exchange"
WATCH = "/grpc.health.v1.Health/Watch"
_STRANGER_WATCHES = 3


class Facades:
    """Nobody is a facade, unless a test says so."""

    def __init__(self) -> None:
        self.trusted = False

    def is_facade(self, context: object) -> bool:
        return self.trusted


class Core:
    """A core's server on a private socket."""

    def __init__(self, folder: Path, *, address: str | None = None, **settings: float) -> None:
        self.path = str(folder / "core.sock")
        self.facades = Facades()
        self.limit = StreamLimit(_STRANGER_WATCHES)
        self.health = HealthServicer(self.facades, self.limit)
        self.settings = ServingSettings(unix_socket=self.path, **settings)  # type: ignore[arg-type]  # numbers all
        self.routing = RoutingCore(address, serving=self.settings)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Core]:
        server = grpc.aio.server(
            options=server_options(self.settings), maximum_concurrent_rpcs=self.settings.maximum_calls
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(self.routing.servicer, server)
        add_reflection(server, ("grpc.health.v1.Health",), self.limit)
        add_endpoints(server, self.settings, TrustAnchors)
        self.health.set("", SERVING)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"unix:{self.path}", options=[("grpc.use_local_subchannel_pool", 1)])

    async def check(self) -> None:
        """A well-behaved client is served."""
        async with self.channel() as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS
            )
            assert answer.status == SERVING


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with Core(tmp_path).serve() as core, asyncio.timeout(4 * WAIT_SECONDS):
        yield core


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - gRPC tells nobody when it has ended a call
            await asyncio.sleep(0.01)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_streams_that_are_opened_and_reset_at_once_leave_nothing_behind(core: Core) -> None:
    """CVE-2023-44487."""
    head = h2.request_fields(EXCHANGE)
    tasks = len(asyncio.all_tasks())
    async with RawConnection(core.path) as attacker:
        for start in range(1, 10_000, 200):
            burst = b"".join(
                h2.frame(h2.HEADERS, h2.END_HEADERS, stream, head)
                + h2.frame(h2.RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4))
                for stream in range(start, start + 200, 2)
            )
            await attacker.send(burst)
            if start % 2000 == 1:
                await core.check()
    await core.check()
    await wait_until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert core.routing.drain.active == 0
    assert core.routing.servicer._deadlines._open == set()


async def test_endless_continuations_are_not_kept(core: Core) -> None:
    """CVE-2023-45288."""
    piece = h2.field("x" * 100, "y" * 100) * 80
    await core.check()
    before = resident_bytes()
    async with RawConnection(core.path) as attacker:
        await attacker.send(h2.frame(h2.HEADERS, 0, 1, h2.request_fields(EXCHANGE)))
        for _ in range(4000):  # 64 MiB
            await attacker.send(h2.frame(h2.CONTINUATION, 0, 1, piece))
            if attacker.closed.is_set():
                break
        await core.check()
    assert resident_bytes() - before < 32 * 1024 * 1024


async def test_metadata_above_the_bound_fails_that_call_alone(core: Core) -> None:
    async with core.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(), metadata=(("x", "y" * 20_000),), timeout=WAIT_SECONDS)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS)


async def test_a_message_above_the_bound_fails_that_call_alone(core: Core) -> None:
    async with core.channel() as channel:
        call = channel.stream_stream(EXCHANGE)()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - whichever notices
            await call.write(b"\x0a" + b"\0" * (4 * 1024 * 1024))
            await call.read()
            raise grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await core.check()


@pytest.mark.parametrize(
    "method",
    [
        "/clustergateway.routing.v1.RoutingService/Nothing",
        "/clustergateway.routing.v1.RoutingService/exchange",
        "/clustergateway.routing.v2.RoutingService/Exchange",
        "/clustergateway.routing.v1.RoutingService/Exchange/",
        "//clustergateway.routing.v1.RoutingService/Exchange",
        "clustergateway.routing.v1.RoutingService/Exchange",
        "/",
        "",
    ],
)
async def test_a_method_that_is_not_there_is_not_served(core: Core, method: str) -> None:
    """CVE-2026-33186: neither is one that only looks like one that is."""
    async with RawConnection(core.path) as raw:
        head = h2.request_fields(method)
        await raw.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, head))
        await raw.wait_for(h2.HEADERS, 1)
    assert core.routing.authorizer.asked == []
    assert core.routing.drain.active == 0
    if method.startswith("/"):
        async with core.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method)(b"", timeout=WAIT_SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_watcher_of_health_whose_window_is_shut_stops_nobody(core: Core) -> None:
    """The library's own servicer would hold its lock until that watcher reads."""
    async with RawConnection(core.path, {h2.INITIAL_WINDOW_SIZE: 0}) as attacker:
        await attacker.send(
            h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.request_fields(WATCH))
            + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b""))
        )
        await attacker.wait_for(h2.HEADERS, 1)
        async with core.channel() as channel:
            call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await call.read()).status == SERVING
            core.health.set("", NOT_SERVING)
            assert (await call.read()).status == NOT_SERVING
            core.health.set("", SERVING)
            assert (await call.read()).status == SERVING
            core.health.enter_graceful_shutdown()
            assert (await call.read()).status == NOT_SERVING
            core.health.set("", SERVING)
            call.cancel()
            unknown = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="none"))
            assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="none"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stranger_holds_a_few_watches_and_a_facade_as_many_as_it_likes(core: Core) -> None:
    async with core.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        held = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(_STRANGER_WATCHES)]
        for call in held:
            await call.read()
        surplus = stub.Watch(health_pb2.HealthCheckRequest())
        assert await surplus.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
        assert await reflection.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        core.facades.trusted = True
        for _ in range(2 * _STRANGER_WATCHES):
            facade = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await facade.read()).status == SERVING
            facade.cancel()
        for call in held:
            call.cancel()
    await wait_until(lambda: not core.limit._held)


async def test_more_calls_than_a_core_bears_are_refused_at_once(tmp_path: Path) -> None:
    async with (
        Core(tmp_path, maximum_calls=4).serve() as core,
        asyncio.timeout(WAIT_SECONDS),
        core.channel() as channel,
    ):
        core.facades.trusted = True
        stub = health_pb2_grpc.HealthStub(channel)
        held = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(4)]
        for call in held:
            await call.read()
        surplus = stub.Watch(health_pb2.HealthCheckRequest())
        assert await surplus.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in held:
            call.cancel()


async def test_more_connections_than_an_endpoint_bears_are_closed_and_those_there_are_go_on(tmp_path: Path) -> None:
    async with Core(tmp_path, maximum_connections=2).serve() as core, asyncio.timeout(WAIT_SECONDS):
        async with RawConnection(core.path) as first, RawConnection(core.path) as second:
            await first.wait_for(h2.SETTINGS)
            await second.wait_for(h2.SETTINGS)
            async with RawConnection(core.path) as third:
                await third.closed.wait()
            assert not first.closed.is_set()
            assert not second.closed.is_set()
        await core.check()


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with Core(tmp_path, handshake_seconds=0.2).serve() as core, asyncio.timeout(WAIT_SECONDS):
        with socket.socket(socket.AF_UNIX) as mute:
            mute.setblocking(False)  # noqa: FBT003
            loop = asyncio.get_running_loop()
            await loop.sock_connect(mute, core.path)
            while await loop.sock_recv(mute, 1024):
                pass
        await core.check()


async def test_a_connection_of_age_is_renewed_and_its_streams_go_on(tmp_path: Path) -> None:
    async with (
        Core(tmp_path, connection_age_seconds=0.3).serve() as core,
        asyncio.timeout(WAIT_SECONDS),
        core.channel() as channel,
        RawConnection(core.path) as idle,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        call = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await call.read()).status == SERVING
        await idle.wait_for(h2.GOAWAY)
        for status in (NOT_SERVING, SERVING) * 3:
            core.health.set("", status)
            assert (await call.read()).status == status
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == status
        call.cancel()


def test_streams_are_counted_by_who_holds_them_and_forgotten_when_they_end() -> None:
    limit = StreamLimit(1)
    with limit.hold("jane"):
        with pytest.raises(OverloadedError, match="1 streams of this kind"), limit.hold("jane"):
            pass
        with limit.hold("joe"):
            pass
    with limit.hold("jane"):
        pass
    assert limit._held == {}


async def test_no_request_fails_while_connections_are_renewed(tmp_path: Path) -> None:
    """F12, with the balancing and health checking of facades; that the cluster is unknown shows who answered."""
    async with (
        Core(tmp_path, connection_age_seconds=0.1).serve() as core,
        asyncio.timeout(4 * WAIT_SECONDS),
        CoreClient(CoreEndpoint(target=f"unix:{core.path}")) as client,
    ):
        core.facades.trusted = True
        core.health.set("clustergateway.routing.v1.RoutingService", SERVING)
        seen: set[str] = set()
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0  # some ten ages
        while loop.time() < until:
            with pytest.raises(CoreError) as caught:
                async with client.request("managed1", "GET", "/api"):
                    pass
            seen.add(caught.value.reason)
        assert seen == {"CLUSTER_NOT_FOUND"}


def exchange_request(**head: object) -> bytes:
    """The only message of a call, as a frame's payload."""
    fields: dict[str, object] = {"cluster_name": "managed1", "method": "GET", "target": b"/api", **head}
    end = RequestEnd() if not head.get("upgrade") else None
    request = ExchangeRequest(head=RequestHead(**fields), end=end)  # type: ignore[arg-type]
    return h2.message(request.SerializeToString())


async def test_strangers_that_say_nothing_do_not_use_up_the_streams(tmp_path: Path) -> None:
    serving = Core(tmp_path, pending_streams=2).serve()
    async with serving as core, asyncio.timeout(WAIT_SECONDS), core.channel() as channel:
        core.routing.callers.facade = False
        stub = routing_service_pb2_grpc.RoutingServiceStub(channel)
        silent = [stub.Exchange() for _ in range(2)]
        for call in silent:
            await call.wait_for_connection()
        await wait_until(lambda: core.routing.servicer._silent == 2)
        refused = stub.Exchange()
        assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "nothing has come" in await refused.details()
        core.routing.callers.facade = True
        async with CoreClient(CoreEndpoint(target=f"unix:{core.path}")) as client:
            core.health.set("clustergateway.routing.v1.RoutingService", SERVING)
            with pytest.raises(CoreError, match="no such cluster"):
                async with client.request("managed1", "GET", "/api"):
                    pass
        for call in silent:
            call.cancel()
        await wait_until(lambda: core.routing.servicer._silent == 0)


async def test_errors_that_nobody_reads_do_not_use_up_the_calls(tmp_path: Path) -> None:
    """Beyond some of them an error is the call's status, which needs no window."""
    serving = Core(tmp_path, pending_streams=2).serve()
    async with serving as core, asyncio.timeout(WAIT_SECONDS):
        async with RawConnection(core.path, {h2.INITIAL_WINDOW_SIZE: 0}) as attacker:
            for stream in (1, 3, 5, 7):
                await attacker.send(
                    h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.request_fields(EXCHANGE))
                    + h2.frame(h2.DATA, 0, stream, exchange_request())
                )
                if stream == 3:
                    await wait_until(lambda: core.routing.servicer._unread == 2)
            await wait_until(lambda: {5, 7} <= attacker.ended_streams)
            assert not {1, 3} & attacker.ended_streams
            assert core.routing.servicer._unread == 2
        await wait_until(lambda: core.routing.servicer._unread == 0)


@pytest.mark.parametrize("kind", ["answer", "continue", "switch"])
async def test_a_client_whose_window_is_shut_does_not_keep_a_cluster(tmp_path: Path, kind: str) -> None:
    """Whatever the first message says that it does not read."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    head: dict[str, object] = {}
    if kind == "continue":
        head = {"expect_continue": True}
    elif kind == "switch":
        head = {"upgrade": "websocket"}
        answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with ScriptedCluster((Receive(b"\r\n\r\n"), Send(answer), Hold())) as cluster:
        core = Core(tmp_path, address=cluster.address)
        core.routing.directory = core.routing.servicer._directory = UpstreamDirectory(
            core.routing.clusters, make_settings(reader_idle_seconds=0.05, long_running_reader_idle_seconds=0.05)
        )
        async with core.serve(), asyncio.timeout(WAIT_SECONDS):
            async with RawConnection(core.path, {h2.INITIAL_WINDOW_SIZE: 0}) as attacker:
                await attacker.send(
                    h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.request_fields(EXCHANGE))
                    + h2.frame(h2.DATA, 0, 1, exchange_request(**head))
                )
                await (await cluster.connection(0)).wait_ended()
                assert 1 not in attacker.ended_streams
            await core.routing.drain.wait_idle(WAIT_SECONDS)
