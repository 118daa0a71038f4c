"""Measures the plain GET of one namespace through the hub: requests per second, latency and CPU a request.

usage: python tests/bench/measure_get.py [--clients 1 16] [--seconds 5] [--rounds 3]

Starts the demo's control planes and gateway, and sends with client-go (tests/bench/load). The routes are interleaved,
so that a noisy hour of the machine hits all of them: straight to the cluster, through `kubectl proxy`, and through the
hub. CPU is that of the processes in between, from /proc; each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from cluster_gateway.control_planes import (
    ChildProcess,
    ControlPlane,
    Program,
    find_programs,
    pick_free_ports,
    register_cluster,
    register_gateway,
    run_command,
    start_control_planes,
    wait_available,
    wait_until,
)
from cluster_gateway.control_planes.gateway import start_gateway
from cluster_gateway.demo import render_contexts

_LOAD_SOURCE = Path(__file__).with_name("load")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to the cluster, and the processes whose CPU counts."""

    name: str
    kubeconfig: Path
    context: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run on one route showed."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """Return the CPU time, user and system, that processes have used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # proc(5): utime and stime, counted behind the command's name
    return total / _TICKS_PER_SECOND


def children(pid: int) -> tuple[int, ...]:
    """Return a process' children."""
    return tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def measure(route: Route, load: Path, clients: int, seconds: float) -> Figures:
    """Send on one route."""
    before = cpu_seconds(route.pids)
    result = await run_command(
        [
            *(str(load), "-kubeconfig", str(route.kubeconfig), "-context", route.context),
            *("-clients", str(clients), "-seconds", str(seconds)),
        ],
        timeout_seconds=seconds + 30,
    )
    if result.exit_code:
        raise RuntimeError(f"the load on {route.name} failed: {result.stderr}")
    told = json.loads(result.stdout)
    if told["errors"]:
        raise RuntimeError(f"{told['errors']} requests on {route.name} failed: {result.stderr}")
    used = cpu_seconds(route.pids) - before
    return Figures(
        rate=told["requests"] / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        cpu_ms=used / told["requests"] * 1000,
    )


async def build_load(directory: Path) -> Path:
    """Build the load generator."""
    target = directory / "load"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    result = await run_command(
        ["go", "build", "-o", str(target), "."], timeout_seconds=600, environment=environment, directory=_LOAD_SOURCE
    )
    if result.exit_code:
        raise RuntimeError(f"building the load generator failed: {result.stderr}")
    return target


async def start_kubectl_proxy(stack: AsyncExitStack, plane: ControlPlane, directory: Path) -> Route:
    """Start `kubectl proxy`, the leanest thing that does a part of our job."""
    port = pick_free_ports(1)[0]
    command = [plane.programs[Program.KUBECTL], "--kubeconfig", plane.kubeconfig, "proxy", f"--port={port}"]
    process = ChildProcess("kubectl proxy", command, directory / "kubectl-proxy.log")
    await process.start()
    stack.push_async_callback(process.stop)

    async def is_serving() -> bool:
        return f"127.0.0.1:{port}" in process.log.read_text()

    await wait_until(is_serving, what="kubectl proxy serves", processes=[process], timeout_seconds=20)
    kubeconfig = directory / "kubectl-proxy.kubeconfig"
    cluster = {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}
    kubeconfig.write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context]}
            | {"users": [{"name": "nobody", "user": {}}]}
        )
    )
    return Route(name="kubectl proxy", kubeconfig=kubeconfig, context="proxy", pids=(process.pid,))


async def run(parsed: argparse.Namespace, directory: Path) -> None:
    """Start everything, measure, and print a table."""
    load = await build_load(directory)
    async with AsyncExitStack() as stack:
        programs = await find_programs()
        planes = await stack.enter_async_context(
            start_control_planes(directory / "planes", ("hub", "managed1", "managed2"), programs=programs)
        )
        hub, managed = planes["hub"], planes["managed1"]
        (directory / "gateway").mkdir()
        gateway = await stack.enter_async_context(start_gateway(hub, directory / "gateway"))
        await register_gateway(hub, gateway.port, gateway.ca.certificate)
        await register_cluster(hub, "managed1", managed)
        await wait_available(hub)
        contexts = directory / "kubeconfig"
        contexts.write_bytes(render_contexts(hub))
        routes = [
            Route(name="direct", kubeconfig=managed.kubeconfig, context="managed1", pids=()),
            await start_kubectl_proxy(stack, managed, directory),
            Route(name="gateway", kubeconfig=contexts, context="managed1", pids=children(gateway.process.pid)),
        ]
        for clients in parsed.clients:
            rounds: dict[str, list[Figures]] = {route.name: [] for route in routes}
            for _ in range(parsed.rounds):
                for route in routes:
                    rounds[route.name].append(await measure(route, load, clients, parsed.seconds))
            print_table(clients, rounds)


def print_table(clients: int, rounds: dict[str, list[Figures]]) -> None:
    """Print the median of each figure."""
    sys.stdout.write(f"\n{clients} clients: requests/s  p50 ms  p99 ms  CPU ms a request\n")
    for name, figures in rounds.items():
        rate, p50, p99, cpu = (
            statistics.median(getattr(one, field) for one in figures)
            for field in ("rate", "p50_ms", "p99_ms", "cpu_ms")
        )
        sys.stdout.write(f"  {name:15} {rate:8.0f} {p50:9.2f} {p99:7.2f} {cpu:8.2f}\n")
    sys.stdout.flush()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    with tempfile.TemporaryDirectory(prefix="cluster-gateway-bench-") as directory:
        asyncio.run(run(parser.parse_args(), Path(directory)))


if __name__ == "__main__":
    main()
