"""`python -m cluster_gateway.demo`: a hub, two managed clusters and the gateway on this host, until Ctrl-C.

Everything is real: kube-apiservers, etcd, the hub's aggregation layer, a node with a running pod in each managed
cluster. Nothing is kept between runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.control_planes import (
    REQUIRED_PROGRAMS,
    ControlPlane,
    ControlPlaneError,
    Program,
    Programs,
    find_programs,
    register_cluster,
    register_gateway,
    report_to_stderr,
    run_pod,
    start_control_planes,
    start_kubelet,
    wait_available,
    write_private,
)
from cluster_gateway.control_planes.foreground import run_in_foreground, wait_for_first_death
from cluster_gateway.control_planes.gateway import start_gateway

if TYPE_CHECKING:
    from collections.abc import Sequence

_HUB = "hub"
_MANAGED = ("managed1", "managed2")
_PATH = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways/{name}/proxy/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the command line may say.

    Attributes:
        directory: Folder for everything; made anew by each run.
        gateway_port: The gateway's HTTPS port; None chooses a free one.
        base_port: First port of the control planes; None chooses free ones.
    """

    directory: Path
    gateway_port: int | None
    base_port: int | None


def parse_arguments(arguments: Sequence[str] | None = None) -> DemoSettings:
    """Parse the command line; by default that of this process."""
    parser = argparse.ArgumentParser(prog="python -m cluster_gateway.demo", description=sys.modules[__name__].__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".run"), help="where everything is kept (%(default)s)")
    parser.add_argument("--port", type=int, help="the gateway's HTTPS port; a free one is chosen by default")
    parser.add_argument("--base-port", type=int, help="first port of the control planes; free ones by default")
    parsed = parser.parse_args(arguments)
    return DemoSettings(directory=parsed.directory.resolve(), gateway_port=parsed.port, base_port=parsed.base_port)


async def run_demo(settings: DemoSettings) -> None:
    """Start everything, say how to use it, and serve until cancelled.

    Raises:
        ControlPlaneError: Something could not be built or started, or died.
    """
    programs = await find_programs(REQUIRED_PROGRAMS)
    _make_empty(settings.directory)
    async with contextlib.AsyncExitStack() as stack:
        report_to_stderr("starting a hub and two managed clusters")
        planes = await stack.enter_async_context(
            start_control_planes(
                settings.directory / "planes", (_HUB, *_MANAGED), programs=programs, base_port=settings.base_port
            )
        )
        hub = planes[_HUB]
        processes = [process for plane in planes.values() for process in (plane.process, *plane.dependencies)]
        for name in _MANAGED:
            kubelet = await stack.enter_async_context(start_kubelet(planes[name]))
            processes.append(kubelet.process)
            await run_pod(planes[name], "demo")
        report_to_stderr("starting the gateway and registering both clusters")
        gateway_directory = settings.directory / "gateway"
        gateway_directory.mkdir()
        gateway = await stack.enter_async_context(start_gateway(hub, gateway_directory, port=settings.gateway_port))
        processes.append(gateway.process)
        await register_gateway(hub, gateway.port, gateway.ca.certificate)
        for name in _MANAGED:
            await register_cluster(hub, name, planes[name])
        report_to_stderr("waiting until the hub finds the gateway available, which takes it 10 to 30 seconds")
        await wait_available(hub)
        kubeconfig = settings.directory / "kubeconfig"
        write_private(kubeconfig, render_contexts(hub))
        # For gRPC clients: where the core is, and an administrator of the hub.
        (settings.directory / "grpc-address").write_text(f"127.0.0.1:{gateway.grpc_port}\n")
        hub.issue_client_certificate("demo", ["system:masters"]).write(settings.directory, "grpc-client")
        sys.stdout.write(render_welcome(kubeconfig, programs))
        sys.stdout.flush()
        await wait_for_first_death(processes)


def render_contexts(hub: ControlPlane) -> bytes:
    """Render a kubeconfig whose contexts are the hub and, through the hub's gateway, the managed clusters."""
    config = json.loads(hub.kubeconfig.read_bytes())
    cluster = config["clusters"][0]["cluster"]
    user = config["users"][0]["name"]
    config["clusters"] = [{"name": _HUB, "cluster": cluster}]
    config["contexts"] = [{"name": _HUB, "context": {"cluster": _HUB, "user": user}}]
    for name in _MANAGED:
        server = cluster["server"] + _PATH.format(name=name)
        config["clusters"].append({"name": name, "cluster": cluster | {"server": server}})
        config["contexts"].append({"name": name, "context": {"cluster": name, "user": user}})
    config["current-context"] = _HUB
    return json.dumps(config, indent=1).encode() + b"\n"


def render_welcome(kubeconfig: Path, programs: Programs) -> str:
    """Say what can be done now; names the kubectl that was built where the host has none of its own."""
    kubectl = "kubectl" if shutil.which("kubectl") else str(programs[Program.KUBECTL])
    return f"""
The gateway is serving. Contexts: hub, and through the gateway managed1 and managed2. Try:

  export KUBECONFIG={kubeconfig}
  {kubectl} --context hub get clustergateways
  {kubectl} --context managed1 get pods --all-namespaces
  {kubectl} --context managed2 exec demo -- uname -a

Ctrl-C stops everything.
"""


def _make_empty(directory: Path) -> None:
    """Remove what an earlier run left; only a folder that a run has made is removed."""
    marker = directory / "made-by-cluster-gateway"
    if directory.exists() and any(directory.iterdir()):
        if not marker.exists():
            raise ControlPlaneError(f"{directory} is not empty; give an empty folder with --directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    marker.touch()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 after Ctrl-C or SIGTERM, 1 after an error, which is told in a sentence."""
    return run_in_foreground(run_demo(parse_arguments(arguments)), "demo")


if __name__ == "__main__":
    sys.exit(main())
