"""A gateway beside local control planes: the real command, with the rights that its manifests give it."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

from cluster_gateway.control_planes.aggregation import DEFAULT_NAMESPACE, DEFAULT_SERVICE
from cluster_gateway.control_planes.errors import NotReadyError
from cluster_gateway.control_planes.pki import CertificateAuthority
from cluster_gateway.control_planes.ports import pick_free_ports, require_free_port
from cluster_gateway.control_planes.processes import ChildProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from cluster_gateway.control_planes.plane import ControlPlane

GATEWAY_USER = "cluster-gateway"
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalGateway:
    """A gateway that serves on 127.0.0.1.

    Attributes:
        port: Its HTTPS port.
        grpc_port: Port of its core for gRPC clients with a certificate of the hub.
        ca: Signs its serving certificate.
        process: The command; its children end with it.
        directory: Folder of its certificate and log.
    """

    port: int
    grpc_port: int
    ca: CertificateAuthority = field(repr=False)
    process: ChildProcess
    directory: Path

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context for an HTTPS client without a credential."""
        return ssl.create_default_context(cadata=self.ca.certificate.decode())


async def grant_gateway_rights(hub: ControlPlane, user: str = GATEWAY_USER, namespace: str = DEFAULT_NAMESPACE) -> None:
    """Give a user of the hub what the gateway's service account is given by its manifests, and nothing else.

    Raises:
        NotReadyError: kubectl refused.
    """
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    applied = await hub.kubectl("apply", "-f", "-", stdin=json.dumps(render_rights(subject, namespace)).encode())
    if applied.exit_code:
        raise NotReadyError(f"granting the gateway its rights failed: {applied.stderr}")


def render_rights(subject: dict[str, str], namespace: str) -> dict[str, object]:
    """Render the rights as a List; they are those of deploy/manifests/base, which a test holds them to."""
    group = "rbac.authorization.k8s.io"

    def binding(kind: str, name: str, role_kind: str, role: str, scope: str | None) -> dict[str, object]:
        return {
            "apiVersion": f"{group}/v1",
            "kind": kind,
            "metadata": {"name": name} | ({"namespace": scope} if scope else {}),
            "roleRef": {"apiGroup": group, "kind": role_kind, "name": role},
            "subjects": [subject],
        }

    reader = "extension-apiserver-authentication-reader"
    secret_reader = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": {"name": "cluster-gateway-secret-reader", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}],
    }
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        binding("RoleBinding", f"{reader}:cluster-gateway", "Role", reader, "kube-system"),
        secret_reader,
        binding("RoleBinding", "cluster-gateway-secret-reader", "Role", "cluster-gateway-secret-reader", namespace),
        binding("ClusterRoleBinding", "cluster-gateway:auth-delegator", "ClusterRole", "system:auth-delegator", None),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


@contextlib.asynccontextmanager
async def start_gateway(
    hub: ControlPlane,
    directory: Path,
    *,
    port: int | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    arguments: Sequence[str] = (),
) -> AsyncGenerator[LocalGateway]:
    """Run `cluster-gateway apiserver` for a hub and wait until it is ready.

    Args:
        hub: The control plane whose clusters it serves; its user there has the gateway's own rights only.
        directory: An empty folder for its files.
        port: HTTPS port on 127.0.0.1; None chooses a free one.
        namespace: Namespace of the Secrets and of the Service.
        arguments: Further flags.

    Raises:
        PortInUseError: The port is taken.
        ProcessDiedError: The gateway ended at once; the message has its last log lines.
        NotReadyError: It did not become ready.
    """
    port = pick_free_ports(1)[0] if port is None else require_free_port(port)
    grpc_port = pick_free_ports(1)[0]
    await grant_gateway_rights(hub, namespace=namespace)
    ca = CertificateAuthority("cluster-gateway-serving-ca")
    names = ("localhost", "127.0.0.1", f"{DEFAULT_SERVICE}.{namespace}.svc")
    ca.issue_server("cluster-gateway", names).write(directory, "serving")
    (directory / "serving-ca.crt").write_bytes(ca.certificate)
    kubeconfig = hub.write_kubeconfig(directory / "hub.kubeconfig", GATEWAY_USER)
    command = (
        *(sys.executable, "-m", "cluster_gateway", "apiserver"),
        *("--bind-address=127.0.0.1", f"--secure-port={port}", f"--grpc-port={grpc_port}"),
        f"--secret-namespace={namespace}",
        *(f"--kubeconfig={kubeconfig}",),
        *(f"--tls-cert-file={directory / 'serving.crt'}", f"--tls-private-key-file={directory / 'serving.key'}"),
        *arguments,
    )
    process = ChildProcess("cluster-gateway", command, directory / "gateway.log")
    gateway = LocalGateway(port=port, grpc_port=grpc_port, ca=ca, process=process, directory=directory)
    await process.start()
    try:
        await wait_gateway_ready(gateway)
        yield gateway
    finally:
        await process.stop(timeout_seconds=_STOP_SECONDS)


async def wait_gateway_ready(gateway: LocalGateway) -> None:
    """Wait until /readyz passes. Raises as `start_gateway`."""
    connector = aiohttp.TCPConnector(ssl=gateway.ssl_context())
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def is_ready() -> bool:
            try:
                async with session.get(f"https://127.0.0.1:{gateway.port}/readyz") as response:
                    return response.status == HTTPStatus.OK
            except (aiohttp.ClientError, TimeoutError):
                return False

        await wait_until(
            is_ready, what="the gateway is ready", processes=[gateway.process], timeout_seconds=_START_SECONDS
        )
