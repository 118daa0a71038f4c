"""What the benches measure: real control planes, the gateway, and the other ways to a cluster beside it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.control_planes import (
    REQUIRED_PROGRAMS,
    ChildProcess,
    ControlPlane,
    Program,
    find_programs,
    pick_free_ports,
    register_cluster,
    register_gateway,
    run_command,
    run_pod,
    start_control_planes,
    start_kubelet,
    wait_available,
    wait_until,
)
from cluster_gateway.control_planes.gateway import LocalGateway, start_gateway
from cluster_gateway.demo import render_contexts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AsyncExitStack

CLUSTER = "managed1"
POD = "bench"
_LOAD = Path(__file__).with_name("load")
_WATCH_SECONDS = 120.0
_ROOT = Path(__file__).parents[2]
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to the cluster.

    Attributes:
        name: What it is called in tables.
        arguments: What the load generator is told.
        pids: The processes in between, whose CPU and memory count.
    """

    name: str
    arguments: tuple[str, ...]
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Everything that is running.

    Attributes:
        load: The load generator.
        routes: The ways, by name.
        gateway: The gateway.
        hub: The control plane whose Secrets register clusters.
        managed: The cluster at the end of every route.
    """

    load: Path
    routes: dict[str, Route]
    gateway: LocalGateway
    hub: ControlPlane
    managed: ControlPlane


@asynccontextmanager
async def start_rig(stack: AsyncExitStack, directory: Path) -> AsyncIterator[Rig]:
    """Start a hub, a cluster with a pod, the gateway and `kubectl proxy`; what is started ends with `stack`."""
    load = await build_load()
    programs = await find_programs(REQUIRED_PROGRAMS)
    planes = await stack.enter_async_context(
        start_control_planes(directory / "planes", ("hub", "managed1", "managed2"), programs=programs)
    )
    hub, managed = planes["hub"], planes[CLUSTER]
    await stack.enter_async_context(start_kubelet(managed))
    await run_pod(managed, POD)
    (directory / "gateway").mkdir()
    gateway = await stack.enter_async_context(start_gateway(hub, directory / "gateway"))
    await register_gateway(hub, gateway.port, gateway.ca.certificate)
    await register_cluster(hub, CLUSTER, managed)
    await wait_available(hub)
    contexts = directory / "kubeconfig"
    contexts.write_bytes(render_contexts(hub))
    hub.issue_client_certificate("bench", ["system:masters"]).write(directory, "grpc-client")
    pids = children(gateway.process.pid)
    routes = [
        Route(name="direct", arguments=_by_kubeconfig(managed.kubeconfig, CLUSTER)),
        await start_kubectl_proxy(stack, managed, directory),
        Route(name="gateway", arguments=_by_kubeconfig(contexts, CLUSTER), pids=pids),
        Route(name="gateway grpc", arguments=_by_grpc(gateway, directory), pids=core_of(pids)),
    ]
    yield Rig(load=load, routes={route.name: route for route in routes}, gateway=gateway, hub=hub, managed=managed)


async def build_load() -> Path:
    """Build the load generator and what it is generated from."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    binaries = _LOAD / ".bin"
    tools = ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
    buf = str(Path(sys.executable).with_name("buf"))
    proto = str(_ROOT / "proto" / "clustergateway")
    for command in (
        ("go", "build", "-o", f"{binaries}/", *tools),
        (buf, "generate", "--template", "buf.gen.yaml", str(_ROOT), "--path", proto),
        ("go", "build", "-o", str(binaries / "load"), "."),
    ):
        result = await run_command(command, timeout_seconds=900, environment=environment, directory=_LOAD)
        if result.exit_code:
            raise RuntimeError(f"building the load generator failed: {result.stderr}")
    return binaries / "load"


async def start_kubectl_proxy(stack: AsyncExitStack, plane: ControlPlane, directory: Path) -> Route:
    """Start `kubectl proxy`, the leanest thing that does a part of the gateway's job."""
    port = pick_free_ports(1)[0]
    command = [plane.programs[Program.KUBECTL], "--kubeconfig", plane.kubeconfig, "proxy", f"--port={port}"]
    # By default it refuses exec, which is measured as well.
    command.append("--reject-paths=^$")
    process = ChildProcess("kubectl proxy", command, directory / "kubectl-proxy.log")
    await process.start()
    stack.push_async_callback(process.stop)

    async def is_serving() -> bool:
        return f"127.0.0.1:{port}" in process.log.read_text()

    await wait_until(is_serving, what="kubectl proxy serves", processes=[process], timeout_seconds=20)
    kubeconfig = directory / "kubectl-proxy.kubeconfig"
    cluster = {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}
    document = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context]}
    kubeconfig.write_text(json.dumps(document | {"users": [{"name": "nobody", "user": {}}]}))
    return Route(name="kubectl proxy", arguments=_by_kubeconfig(kubeconfig, "proxy"), pids=(process.pid,))


async def run_load(rig: Rig, route: Route, *arguments: str, timeout_seconds: float = 120) -> dict[str, float]:
    """Let the load generator work on a route, and return what it saw.

    Raises:
        RuntimeError: It failed, or one of its operations did.
    """
    command = [str(rig.load), *route.arguments, *arguments]
    result = await run_command(command, timeout_seconds=timeout_seconds)
    if result.exit_code:
        raise RuntimeError(f"the load on {route.name} failed: {result.stderr}")
    seen: dict[str, float] = json.loads(result.stdout)
    if seen["errors"]:
        raise RuntimeError(f"{seen['errors']} operations on {route.name} failed: {result.stderr}")
    return seen


@asynccontextmanager
async def hold_watches(rig: Rig, route: Route, count: int) -> AsyncIterator[WatchHold]:
    """Open watches on a route and hold them; within the block their memory can be looked at, and an event sent."""
    process = await asyncio.create_subprocess_exec(
        *(str(rig.load), *route.arguments, "-case", "watch", "-count", str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_WATCH_SECONDS):
            opened = json.loads(await process.stdout.readline())
        yield WatchHold(process, opened["opened_seconds"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class WatchHold:
    """Open watches.

    Attributes:
        opened_seconds: How long it took to open them.
    """

    def __init__(self, process: asyncio.subprocess.Process, opened_seconds: float) -> None:
        self._process = process
        self.opened_seconds = opened_seconds

    async def send_event(self) -> dict[str, float]:
        """Let one event reach every watch, and return how long that took; the watches end.

        Raises:
            RuntimeError: Some watch did not get it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(_WATCH_SECONDS):
            self._process.stdin.write(b"\n")
            seen: dict[str, float] = json.loads(await self._process.stdout.readline())
            await self._process.wait()
        if seen["errors"]:
            raise RuntimeError(f"{seen['errors']} watches saw no event")
        return seen


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time, user and system, that processes have used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # proc(5): utime and stime, counted behind the command's name
    return total / _TICKS_PER_SECOND


def resident_bytes(pids: Sequence[int]) -> int:
    """Return the resident memory of processes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE_BYTES


def children(pid: int) -> tuple[int, ...]:
    """Return a process' children."""
    return tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def role_of(pid: int) -> str:
    """Return which half of a gateway a process is: "core" or "facade"."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode()


def core_of(pids: Sequence[int]) -> tuple[int, ...]:
    """Return the core among a gateway's processes."""
    return tuple(pid for pid in pids if role_of(pid) == "core")


def _by_kubeconfig(path: Path, context: str) -> tuple[str, ...]:
    return "-kubeconfig", str(path), "-context", context


def _by_grpc(gateway: LocalGateway, directory: Path) -> tuple[str, ...]:
    files = {"ca": gateway.directory / "serving-ca.crt", "cert": "grpc-client.crt", "key": "grpc-client.key"}
    named = [item for flag, name in files.items() for item in (f"-{flag}", str(directory / name))]
    return "-grpc", f"127.0.0.1:{gateway.grpc_port}", "-cluster", CLUSTER, *named
