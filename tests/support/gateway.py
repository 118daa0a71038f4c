"""A hub with clusters behind a gateway, all of it real, as the end-to-end tests use it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from tests.support.gateway_process import PYTHON, GatewayProcess, run_gateway
from tests.support.kubectl import Kubectl, write_kubeconfig

from cluster_gateway.control_planes import (
    CertificateAuthority,
    ControlPlane,
    KeyPair,
    Kubelet,
    Program,
    pick_free_ports,
    wait_until,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

GROUP = "cluster.core.oam.dev"
RESOURCE_PATH = f"/apis/{GROUP}/v1alpha1/clustergateways"

# Those of deploy/manifests/base, which are applied to the hub.
NAMESPACE = "cluster-gateway-system"
SERVICE = "cluster-gateway"
ACCOUNT = "cluster-gateway"
SECRET_NAMESPACE = "open-cluster-management-credentials"

_REQUEST_SECONDS = 60.0
_WAIT_SECONDS = 30.0


def proxy_path(cluster: str, path: str = "") -> str:
    """Path of a cluster's own path at the hub and at the gateway."""
    return f"{RESOURCE_PATH}/{cluster}/proxy{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an HTTPS request got.

    Attributes:
        status: HTTP status code.
        headers: Names in lower case.
        body: The whole body.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def status_object(self, code: int, reason: str) -> Any:
        """The `metav1.Status` that it must be, with that code and reason."""
        status = self.json()
        assert (self.status, status["kind"], status["apiVersion"]) == (code, "Status", "v1"), self
        assert (status["status"], status["reason"], status["code"]) == ("Failure", reason, code), status
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running `cluster-gateway apiserver`.

    Attributes:
        process: The command.
        port: Its HTTPS port on 127.0.0.1.
        ca_path: Who signs its certificate.
        temporary: Its TMPDIR, where nothing may be left when it ends.
    """

    process: GatewayProcess
    port: int
    ca_path: Path
    temporary: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The hub, the clusters, and what is needed to speak to them as anybody.

    Attributes:
        hub: The hub.
        managed: The clusters by name; each is registered under it.
        kubelets: Their nodes.
        directory: Where files are put.
        authority: Who signs the certificates of gateways and of their parts.
    """

    hub: ControlPlane
    managed: dict[str, ControlPlane]
    kubelets: dict[str, Kubelet]
    directory: Path
    authority: CertificateAuthority

    @property
    def ca_path(self) -> Path:
        """File of `authority`'s certificate."""
        return self.directory / "gateway-ca.crt"

    @property
    def gateway_kubeconfig(self) -> Path:
        """The gateway's own way to the hub."""
        return self.directory / "gateway.kubeconfig"

    def kubectl(self, cluster: str | None = None, *, user: KeyPair | str | None = None) -> Kubectl:
        """Make a kubectl that goes through the hub.

        Args:
            cluster: Which cluster; None for the hub itself.
            user: A client certificate or token of the hub's; by default an administrator's.
        """
        server = self.hub.url + (proxy_path(cluster) if cluster else "")
        return self.kubectl_at(server, self.hub.ca_path, user)

    def kubectl_at(self, server: str, ca_path: Path, user: KeyPair | str | None = None) -> Kubectl:
        """Make a kubectl for any server."""
        if user is None:
            user = self.hub.issue_client_certificate("kubernetes-admin", ["system:masters"])
        folder = self.directory / "kubeconfigs"
        folder.mkdir(exist_ok=True)
        path = folder / f"{len(list(folder.glob('*.kubeconfig')))}.kubeconfig"
        return Kubectl(
            program=self.hub.programs[Program.KUBECTL],
            kubeconfig=write_kubeconfig(path, server, ca_path, user),
            cache=self.directory / "kubectl-cache",
        )

    @contextlib.asynccontextmanager
    async def run_gateway(self, *flags: str, port: int | None = None) -> AsyncIterator[Gateway]:
        """Run a gateway for the duration of a block and wait until it is ready.

        Args:
            *flags: More flags.
            port: Its port; by default a free one.
        """
        port = port or pick_free_ports(1)[0]
        folder = self.directory / f"gateway-{port}"
        temporary = folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self.write_serving_certificate(folder)
        arguments = [
            "apiserver",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--kubeconfig={self.gateway_kubeconfig}",
            f"--secret-namespace={SECRET_NAMESPACE}",
            f"--tls-cert-file={folder / 'serving.crt'}",
            f"--tls-private-key-file={folder / 'serving.key'}",
            *flags,
        ]
        command = ("env", f"TMPDIR={temporary}", *PYTHON)
        async with run_gateway(arguments, directory=folder, command=command) as process:
            await process.wait_ready(port)
            yield Gateway(process=process, port=port, ca_path=self.ca_path, temporary=temporary)

    def write_serving_certificate(self, folder: Path) -> None:
        """Write `serving.crt` and `serving.key`, for the Service's name and for loopback."""
        names = [f"{SERVICE}.{NAMESPACE}.svc", "127.0.0.1", "localhost"]
        self.authority.issue_server("gateway", names).write(folder, "serving")

    async def register(self, name: str, data: dict[str, bytes], *, credential: str) -> None:
        """Put a Secret that registers a cluster, whatever it holds; an older one is replaced."""
        labels = {f"{GROUP}/cluster-credential-type": credential, f"{GROUP}/cluster-endpoint-type": "Const"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": SECRET_NAMESPACE, "labels": labels},
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
        path = f"/api/v1/namespaces/{SECRET_NAMESPACE}/secrets"
        answer = await self.ask_hub(f"{path}/{name}", method="PUT", body=secret)
        if answer.status == 404:
            answer = await self.ask_hub(path, method="POST", body=secret)
        assert answer.status in {200, 201}, answer

    async def unregister(self, *names: str) -> None:
        """Delete Secrets of clusters."""
        for name in names:
            path = f"/api/v1/namespaces/{SECRET_NAMESPACE}/secrets/{name}"
            answer = await self.ask_hub(path, method="DELETE")
            assert answer.status in {200, 404}, answer

    async def wait_known(self, name: str) -> None:
        """Wait until the gateway knows a cluster."""

        async def known() -> bool:
            return (await self.ask_hub(f"{RESOURCE_PATH}/{name}")).status == 200

        await wait_until(known, what=f"{name} is known", timeout_seconds=_WAIT_SECONDS)

    async def grant(self, role: str, rules: Sequence[dict[str, Any]], *users: str) -> None:
        """Let users of the hub do something there, in the whole cluster."""
        api = "rbac.authorization.k8s.io"
        subjects = [{"apiGroup": api, "kind": "User", "name": user} for user in users]
        await self.kubectl().apply(
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": role},
                "rules": list(rules),
            },
            {
                "apiVersion": f"{api}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": role},
                "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": role},
                "subjects": subjects,
            },
        )

    def ssl_context(self, ca_path: Path, user: KeyPair | None = None) -> ssl.SSLContext:
        """A context for HTTPS with or without a client certificate."""
        context = ssl.create_default_context(cafile=str(ca_path))
        if user is not None:
            path = self.directory / "client.pem"
            write_private(path, user.certificate + user.key)
            context.load_cert_chain(path)
            path.unlink()
        return context

    async def ask_hub(
        self, target: str, *, user: KeyPair | None = None, method: str = "GET", **keywords: Any
    ) -> Answer:
        """Send one request to the hub, by default as an administrator."""
        context = self.hub.ssl_context() if user is None else self.ssl_context(self.hub.ca_path, user)
        return await ask(self.hub.url + target, context, method=method, **keywords)

    async def ask_gateway(
        self, gateway: Gateway, target: str, *, user: KeyPair | None = None, **keywords: Any
    ) -> Answer:
        """Send one request straight to the gateway, with a client certificate or none."""
        return await ask(gateway.url + target, self.ssl_context(gateway.ca_path, user), **keywords)


async def ask(
    url: str,
    context: ssl.SSLContext,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: Any = None,
    timeout_seconds: float = _REQUEST_SECONDS,
) -> Answer:
    """Send one request on a connection of its own.

    Args:
        url: Where.
        context: TLS.
        method: HTTP method.
        headers: More headers.
        body: Bytes or an iterator of them as they are, anything else as JSON.
        timeout_seconds: When to give up.
    """
    sent = dict(headers or {})
    data = body
    if isinstance(body, (dict, list)):
        # A file, since aiohttp warns of more than a megabyte of bytes.
        data = io.BytesIO(json.dumps(body).encode())
        sent.setdefault("Content-Type", "application/json")
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.request(method, url, headers=sent, data=data, allow_redirects=False) as response,
    ):
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status, headers=found, body=await response.read())


def processes_mentioning(text: str) -> list[str]:
    """Command lines of processes in which a text occurs."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in command:
                found.append(command)
    return found


def children_of(pid: int) -> dict[str, int]:
    """The gateway's two halves by role: "core" and "facade"."""
    found: dict[str, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                words = entry.with_name("cmdline").read_bytes().split(b"\0")
                found[words[-2].decode()] = int(entry.parent.name)
    return found
