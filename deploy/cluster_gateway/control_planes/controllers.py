"""Programs that work on a running control plane: the controller-manager, and kwok with its fake nodes."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes_asyncio.client import ApiException, CoreV1Api

from cluster_gateway.control_planes.errors import ControlPlaneError
from cluster_gateway.control_planes.nodes import REQUEST_SECONDS, register_node, wait_listening
from cluster_gateway.control_planes.ports import LOOPBACK, pick_free_ports
from cluster_gateway.control_planes.processes import ChildProcess, running, wait_until
from cluster_gateway.control_planes.programs import Program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cluster_gateway.control_planes.plane import ControlPlane

_FAKE_ANNOTATION = "kwok.x-k8s.io/node"
_KWOK_CONFIG = Path(__file__).with_name("kwok.yaml")
_READY_SECONDS = 60.0


def _require(plane: ControlPlane, program: Program) -> Path:
    path = plane.programs.get(program)
    if path is None:
        raise ControlPlaneError(f"{plane.name} was started without {program}: add it to `programs`")
    return path


@contextlib.asynccontextmanager
async def start_controller_manager(plane: ControlPlane) -> AsyncGenerator[ChildProcess]:
    """Run kube-controller-manager for the duration of a block.

    With it namespaces finish deleting, garbage is collected, and service accounts appear. It leaves nodes
    alone: ours send no heartbeats, so it would evict their pods.

    Raises:
        ControlPlaneError: It died, did not begin to work, or was not among the plane's programs.
    """
    arguments: list[str | Path] = [
        _require(plane, Program.KUBE_CONTROLLER_MANAGER),
        f"--kubeconfig={plane.kubeconfig}",
        f"--bind-address={LOOPBACK}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--root-ca-file={plane.ca_path}",
        f"--service-account-private-key-file={plane.service_account_key}",
        "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller",
    ]
    log = plane.directory / "controller-manager.log"
    async with running(ChildProcess(f"{plane.name}-controller-manager", arguments, log)) as process:
        async with plane.connect() as client:
            core = CoreV1Api(client)

            async def works() -> bool:
                try:
                    await core.read_namespaced_service_account("default", "default", _request_timeout=REQUEST_SECONDS)
                except ApiException as error:
                    if error.status != HTTPStatus.NOT_FOUND:
                        raise
                    return False
                return True

            await wait_until(
                works,
                what=f"{process.name} makes service accounts",
                processes=[process],
                timeout_seconds=_READY_SECONDS,
            )
        yield process


@contextlib.asynccontextmanager
async def start_kwok(plane: ControlPlane, node_names: Sequence[str] = ("fake1",)) -> AsyncGenerator[ChildProcess]:
    """Run kwok, with fake nodes on which pods become running by themselves, for the duration of a block.

    Nodes of `start_kubelet` are left alone. Fake nodes serve no exec, attach or logs.

    Args:
        plane: Where.
        node_names: The nodes to register.

    Raises:
        ControlPlaneError: It died, did not listen, or was not among the plane's programs.
    """
    (port,) = pick_free_ports(1)
    directory = plane.directory / "kwok"
    directory.mkdir(mode=0o700, exist_ok=True)
    plane.ca.issue_server("kwok", [LOOPBACK]).write(directory, "serving")
    arguments: list[str | Path] = [
        _require(plane, Program.KWOK),
        f"--kubeconfig={plane.kubeconfig}",
        f"--config={_KWOK_CONFIG}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={_FAKE_ANNOTATION}=fake",
        f"--node-ip={LOOPBACK}",
        f"--node-port={port}",
        f"--server-address={LOOPBACK}:{port}",
        f"--tls-cert-file={directory / 'serving.crt'}",
        f"--tls-private-key-file={directory / 'serving.key'}",
    ]
    async with running(ChildProcess(f"{plane.name}-kwok", arguments, directory / "kwok.log")) as process:
        await wait_listening(process, port)
        for name in node_names:
            await register_node(plane, name, port, annotations={_FAKE_ANNOTATION: "fake"})
        yield process
