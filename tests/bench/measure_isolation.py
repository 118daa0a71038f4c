"""Measures what a healthy cluster's callers notice of a sick neighbour.

usage: python -m tests.bench.measure_isolation [--rate 100] [--neighbour-rate 100] [--seconds 6] [--rounds 3]

Two routing cores with their default limits stand in front of the same healthy cluster. One of them has a neighbour as
well that is sick, each case in its own way, and gets requests for it; the other, its twin, has none. Both are
measured at the same time with the same load, so that a noisy moment of the machine hits both, and what counts is the
ratio between them. Requests come at a fixed rate, and their latency counts from when they were due. Cores, clusters,
the neighbour's load and the measured load are processes of their own; each case of each round has a neighbour that
the core has not met yet. The first case has a healthy neighbour: it shows what the mere load costs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.full_backlog import full_backlog
from tests.support.routing_core import Authorizer, Callers, Passing
from tests.support.upstreams import make_cluster

from cluster_gateway_client import CoreClient, CoreEndpoint, CoreError
from cluster_gateway_core.registry.store import ClusterRegistry
from cluster_gateway_core.server.drain import Drain
from cluster_gateway_core.server.endpoints import server_options
from cluster_gateway_core.server.open_servicers import HealthServicer
from cluster_gateway_core.server.reauthorization import Reauthorization
from cluster_gateway_core.server.routing_servicer import RoutingServicer
from cluster_gateway_core.server.stream_limit import StreamLimit
from cluster_gateway_core.settings import LimitSettings, ReviewSettings, ServingSettings, UpstreamSettings
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from cluster_gateway_core.upstream.guard import Guard
from clustergateway.routing.v1 import routing_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_BODY: Final = b"x" * 2048
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(_BODY)
_ANSWERS_A_CONNECTION: Final = 20
"""So that connections are opened, and the healthy cluster's name is looked up, all the time."""
_CASES: Final = {
    "healthy neighbour": "a healthy cluster",
    "mute": "accepts TCP, and never says a word to TLS",
    "unanswering": "accepts requests, and never answers one",
    "black hole": "drops every SYN",
    "refusing": "refuses every connection",
    "dead DNS": "has a name whose servers never answer",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Latencies of one case in seconds, by round: of the core with the neighbour, and of its twin."""

    beside: list[list[float]] = field(default_factory=list)
    twin: list[list[float]] = field(default_factory=list)


def pick_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class _Answering(asyncio.Protocol):
    """A cluster that answers some request heads of each connection, or none."""

    def __init__(self, *, answers: bool) -> None:
        self._left = _ANSWERS_A_CONNECTION if answers else 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport

    def data_received(self, data: bytes) -> None:
        """Answer; asyncio.Protocol."""
        if not self._left or self._transport is None or not data.endswith(b"\r\n\r\n"):
            return
        self._left -= 1
        if self._left:
            self._transport.write(b"%b\r\n%b" % (_HEAD, _BODY))
        else:
            self._transport.write(b"%bConnection: close\r\n\r\n%b" % (_HEAD, _BODY))
            self._transport.close()


async def run_clusters(ready: Callable[[object], None]) -> None:
    """Serve the healthy cluster and the two that only listen, until the process is ended."""
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda answers=answers: _Answering(answers=answers), "127.0.0.1", 0)  # type: ignore[misc]
        for answers in (True, False)
    ]
    with full_backlog() as hole:
        ready([*(server.sockets[0].getsockname()[1] for server in servers), hole])
        await asyncio.Event().wait()


async def run_core(path: str, endpoints: dict[str, str]) -> None:
    """Serve a routing core on a private socket, until the process is ended; names in .hang never resolve."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: object, **options: object) -> object:
        if host.endswith(".hang"):
            if options.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not numeric")
            threading.Event().wait()
        return real(host, port, *args, **options)  # type: ignore[arg-type]

    # The one thing here that is made up: no name server is needed that does not answer.
    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    registry, callers = ClusterRegistry(), Callers()
    registry.replace(make_cluster(address, name=name) for name, address in endpoints.items())
    servicer = RoutingServicer(
        callers=callers,
        authorizer=Authorizer(),
        reauthorization=Reauthorization(ReviewSettings()),
        guard=Guard(LimitSettings()),
        passing=Passing().make(),
        directory=UpstreamDirectory(registry, UpstreamSettings()),
        drain=Drain(),
    )
    server = grpc.aio.server(options=server_options(ServingSettings()))
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(servicer, server)
    health = HealthServicer(callers, StreamLimit(1))
    health.set("clustergateway.routing.v1.RoutingService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await server.wait_for_termination()


async def send_steadily(
    client: CoreClient, cluster_name: str, rate: float, seconds: float, note: Callable[[float], None]
) -> None:
    """Send at a fixed rate, whatever becomes of the requests; what is still open at the end is cancelled."""
    start, number, running = time.perf_counter(), 0, set[asyncio.Task[None]]()

    async def request(due: float) -> None:
        with contextlib.suppress(CoreError):
            async with client.request(cluster_name, "GET", "/api/v1/namespaces/default") as response:
                await response.read()
        note(time.perf_counter() - due)  # the loop's own clock counts whole milliseconds

    while (due := start + number / rate) < start + seconds:
        await asyncio.sleep(max(0, due - time.perf_counter()))
        task = asyncio.get_running_loop().create_task(request(due), name="request")
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
    for task in tuple(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def run_neighbour(path: str) -> None:
    """Send to the cluster that each line on stdin names, at its rate and for its time."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with CoreClient(CoreEndpoint(target=f"unix:{path}")) as client:
        while line := await reader.readline():
            order = json.loads(line)
            await send_steadily(client, order["cluster"], order["rate"], order["seconds"], lambda _: None)
            sys.stdout.write("done\n")
            sys.stdout.flush()


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process of this program, ended when the context is left."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.measure_isolation", *arguments), stdin=pipe, stdout=pipe
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    """The next line of a child."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the measurement has ended")
    return line


async def measure(parsed: argparse.Namespace) -> dict[str, Figures]:
    """Run all cases in turns."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-gateway-bench-")))
        clusters = await stack.enter_async_context(child("clusters"))
        healthy, listening, hole = json.loads(await line_of(clusters))
        addresses = {
            "healthy neighbour": f"http://127.0.0.1:{healthy}",
            "mute": f"https://127.0.0.1:{listening}",
            "unanswering": f"http://127.0.0.1:{listening}",
            "black hole": f"https://127.0.0.1:{hole}",
            "refusing": f"https://127.0.0.1:{pick_port()}",
        }
        endpoints = {"healthy": f"http://localhost:{healthy}"}
        for round_number in range(parsed.rounds):
            for case in _CASES:
                name = name_of(case, round_number)
                endpoints[name] = addresses.get(case, f"https://{name}.hang:6443")
        paths = [str(directory / name) for name in ("beside", "twin")]
        for path in paths:
            await stack.enter_async_context(child("core", path, json.dumps(endpoints)))
        neighbour = await stack.enter_async_context(child("neighbour", paths[0]))
        clients = [await stack.enter_async_context(CoreClient(CoreEndpoint(target=f"unix:{path}"))) for path in paths]
        for client in clients:
            await wait_serving(client)
            await send_steadily(client, "healthy", parsed.rate, 1, lambda _: None)
        figures = {case: Figures() for case in _CASES}
        for round_number in range(parsed.rounds):
            for case, found in figures.items():
                found.beside.append([])
                found.twin.append([])
                async with asyncio.TaskGroup() as group:
                    for client, latencies in zip(clients, (found.beside[-1], found.twin[-1]), strict=True):
                        steadily = send_steadily(client, "healthy", parsed.rate, parsed.seconds, latencies.append)
                        group.create_task(steadily, name="measured")
                    await load_neighbour(neighbour, name_of(case, round_number), parsed)
        return figures


def name_of(case: str, round_number: int) -> str:
    """Name of the neighbour in one case of one round."""
    return f"{case}{round_number}".replace(" ", "-").lower()


async def load_neighbour(process: asyncio.subprocess.Process, name: str, parsed: argparse.Namespace) -> None:
    """Have the neighbour's load sent."""
    assert process.stdin is not None
    order = {"cluster": name, "rate": parsed.neighbour_rate, "seconds": parsed.seconds}
    process.stdin.write(json.dumps(order).encode() + b"\n")
    await process.stdin.drain()
    await line_of(process)


async def wait_serving(client: CoreClient) -> None:
    """Wait for the core, and open the way to the healthy cluster."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with client.request("healthy", "GET", "/api") as response:
                    await response.read()
            except CoreError:
                await asyncio.sleep(0.1)
            else:
                return


def print_table(figures: dict[str, Figures]) -> None:
    """Print each case's figures beside its twin's, and their ratios: of each, the median of the rounds."""
    heading = "neighbour          | beside it: p50 ms  p99 ms | twin: p50 ms  p99 ms | ratio: p50   p99"
    sys.stdout.write(f"{heading}\n")
    for case, found in figures.items():
        beside, twin = [quantiles(one) for one in found.beside], [quantiles(one) for one in found.twin]
        ratios = [(p50 / twin50, p99 / twin99) for (p50, p99), (twin50, twin99) in zip(beside, twin, strict=True)]
        (p50, p99), (twin50, twin99), (ratio50, ratio99) = medians(beside), medians(twin), medians(ratios)
        sys.stdout.write(
            f"{case:18} | {p50:17.2f} {p99:7.2f} | {twin50:12.2f} {twin99:7.2f} | {ratio50:10.2f} {ratio99:5.2f}"
            f"   {_CASES[case]}\n"
        )


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Median of the first ones, and of the second ones."""
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)


def quantiles(latencies: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def main() -> None:
    """Run from the command line, or as one of the processes."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--rate", type=float, default=100, help="requests a second to the healthy cluster, each core")
    parser.add_argument("--neighbour-rate", type=float, default=100, help="requests a second to its neighbour")
    parser.add_argument("--seconds", type=float, default=6, help="of each case in each round")
    parser.add_argument("--rounds", type=int, default=3)
    role = parser.add_subparsers(dest="role")
    role.add_parser("clusters")
    core = role.add_parser("core")
    core.add_argument("path")
    core.add_argument("endpoints", type=json.loads)
    role.add_parser("neighbour").add_argument("path")
    parsed = parser.parse_args()
    match parsed.role:
        case "clusters":
            uvloop.run(run_clusters(lambda ports: print(json.dumps(ports), flush=True)))  # noqa: T201 - to the parent
        case "core":
            uvloop.run(run_core(parsed.path, parsed.endpoints))
        case "neighbour":
            uvloop.run(run_neighbour(parsed.path))
        case _:
            print_table(uvloop.run(measure(parsed)))


if __name__ == "__main__":
    main()
