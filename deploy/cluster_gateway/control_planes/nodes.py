"""Nodes that answer exec, attach, port-forward and logs, and pods on them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from kubernetes_asyncio.client import (
    ApiException,
    CoreV1Api,
    V1Container,
    V1Node,
    V1ObjectMeta,
    V1Pod,
    V1PodSpec,
)

from cluster_gateway.control_planes.apiserver import KUBELET_CLIENT
from cluster_gateway.control_planes.errors import ControlPlaneError
from cluster_gateway.control_planes.ports import LOOPBACK, pick_free_ports
from cluster_gateway.control_planes.processes import ChildProcess, running, wait_until
from cluster_gateway.control_planes.programs import Program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    from cluster_gateway.control_planes.plane import ControlPlane

DEFAULT_NODE = "node1"

REQUEST_SECONDS = 15.0
"""Deadline of each request to an apiserver."""

_LISTEN_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """A node whose kubelet runs commands as local processes and serves logs from files.

    Attributes:
        node_name: Name of the Node.
        port: The kubelet's port on 127.0.0.1; only the apiserver's certificate opens it.
        logs: Folder of the container logs.
        process: The kubelet.
    """

    node_name: str
    port: int
    logs: Path
    process: ChildProcess

    def container_log(self, pod: str, container: str = "main", *, namespace: str = "default") -> Path:
        """Return the file that is served as a container's log, in a folder that exists.

        Append to it while somebody follows it. Creating `<file>.done` beside it ends the followers.
        """
        path = self.logs / namespace / pod / f"{container}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextlib.asynccontextmanager
async def start_kubelet(plane: ControlPlane, node_name: str = DEFAULT_NODE) -> AsyncGenerator[Kubelet]:
    """Run our small kubelet and register its Node, ready, for the duration of a block.

    The Node object stays when the block ends, as the node of a machine that was switched off does.

    Raises:
        ControlPlaneError: The kubelet died, did not listen, or was not among the plane's programs.
    """
    program = plane.programs.get(Program.KUBELET)
    if program is None:
        raise ControlPlaneError(f"{plane.name} was started without a kubelet: add it to `programs`")
    directory = plane.directory / f"kubelet-{node_name}"
    directory.mkdir(mode=0o700, exist_ok=True)
    (logs := directory / "logs").mkdir(exist_ok=True)
    plane.ca.issue_server(f"system:node:{node_name}", [LOOPBACK]).write(directory, "serving")
    (port,) = pick_free_ports(1)
    arguments: list[str | Path] = [program, f"-listen={LOOPBACK}:{port}", f"-logs={logs}"]
    arguments += [f"-cert={directory / 'serving.crt'}", f"-key={directory / 'serving.key'}"]
    arguments += [f"-client-ca={plane.ca_path}", f"-client-name={KUBELET_CLIENT}"]
    name = f"{plane.name}-kubelet-{node_name}"
    async with running(ChildProcess(name, arguments, directory / "kubelet.log")) as process:
        await wait_listening(process, port)
        await register_node(plane, node_name, port)
        yield Kubelet(node_name=node_name, port=port, logs=logs, process=process)


async def wait_listening(process: ChildProcess, port: int) -> None:
    """Wait until something accepts connections on a port of 127.0.0.1.

    Raises:
        ProcessDiedError: The process died.
        NotReadyError: Nothing listened after some seconds.
    """

    async def accepts() -> bool:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        writer.close()
        return True

    what = f"{process.name} listens on port {port}"
    await wait_until(accepts, what=what, processes=[process], timeout_seconds=_LISTEN_SECONDS)


async def register_node(
    plane: ControlPlane, name: str, kubelet_port: int, *, annotations: Mapping[str, str] | None = None
) -> None:
    """Create a Node, or take over the one of that name, and report it ready.

    Args:
        plane: Where.
        name: Name of the Node.
        kubelet_port: Port on 127.0.0.1 at which the apiserver finds its kubelet.
        annotations: For a new Node.
    """
    metadata = V1ObjectMeta(name=name, labels={"kubernetes.io/hostname": name}, annotations=dict(annotations or {}))
    status = {
        "addresses": [{"type": "InternalIP", "address": LOOPBACK}, {"type": "Hostname", "address": name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        "conditions": [_condition("Ready", reason="KubeletReady")],
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
    }
    async with plane.connect() as client:
        core = CoreV1Api(client)
        try:
            await core.create_node(V1Node(metadata=metadata), _request_timeout=REQUEST_SECONDS)
        except ApiException as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        await core.patch_node_status(name, {"status": status}, _request_timeout=REQUEST_SECONDS)


async def run_pod(
    plane: ControlPlane,
    name: str,
    *,
    containers: Sequence[str] = ("main",),
    namespace: str = "default",
    node_name: str = DEFAULT_NODE,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Create a Pod bound to a node of `start_kubelet` and report it running.

    No container runs: the kubelet answers for them. The Pod has no grace period, since nobody would
    confirm its end; deleting it takes effect at once.
    """
    spec = V1PodSpec(
        node_name=node_name,
        containers=[V1Container(name=container, image="none.invalid/none") for container in containers],
        automount_service_account_token=False,
        termination_grace_period_seconds=0,
    )
    metadata = V1ObjectMeta(name=name, labels=dict(labels or {}))
    async with plane.connect() as client:
        core = CoreV1Api(client)
        await core.create_namespaced_pod(
            namespace, V1Pod(metadata=metadata, spec=spec), _request_timeout=REQUEST_SECONDS
        )
        await core.patch_namespaced_pod_status(
            name, namespace, {"status": _running_status(containers)}, _request_timeout=REQUEST_SECONDS
        )


def _running_status(containers: Sequence[str]) -> dict[str, object]:
    now = _now()
    return {
        "phase": "Running",
        "startTime": now,
        "hostIP": LOOPBACK,
        "podIP": LOOPBACK,
        "podIPs": [{"ip": LOOPBACK}],
        "conditions": [_condition(kind) for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")],
        "containerStatuses": [
            {
                "name": container,
                "image": "none.invalid/none",
                "imageID": "none.invalid/none",
                "containerID": f"none://{container}",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in containers
        ],
    }


def _condition(kind: str, *, reason: str = "Assumed") -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": _now()}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
