"""A hub that allows everybody everything, and `cluster-gateway apiserver` run against it as real processes.

For what needs the gateway whole but no Kubernetes: how much memory and how many descriptors it uses.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web
from tests.support.gateway_process import run_gateway
from tests.support.hub_secrets import make_secret
from tests.support.running_facade import HubIdentities, make_hub_identities, write_pair

from cluster_gateway.control_planes import pick_free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.gateway_process import GatewayProcess
    from tests.support.hub_certificates import Identity


class AllowingHub:
    """A hub with trust anchors and Secrets that never change, over plain HTTP on loopback."""

    def __init__(self, identities: HubIdentities, secrets: Sequence[dict[str, Any]]) -> None:
        self._configuration = {
            "metadata": {"name": "extension-apiserver-authentication", "resourceVersion": "1"},
            "data": {
                "client-ca-file": identities.client_ca.certificate_pem.decode(),
                "requestheader-client-ca-file": identities.front_proxy_ca.certificate_pem.decode(),
                "requestheader-allowed-names": json.dumps(["front-proxy-client"]),
                "requestheader-username-headers": json.dumps(["X-Remote-User"]),
                "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
                "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
            },
        }
        self._secrets = list(secrets)
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def write_kubeconfig(self, folder: Path) -> Path:
        path = folder / "hub.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "current-context": "hub",
                    "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "gateway"}}],
                    "clusters": [{"name": "hub", "cluster": {"server": self.url}}],
                    "users": [{"name": "gateway", "user": {"token": "made-up"}}],
                }
            )
        )
        return path

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.json_response({"status": {"allowed": True}}, status=201)
        if request.query.get("watch"):
            response = web.StreamResponse()
            await response.prepare(request)
            await self._closing.wait()
            return response
        items = self._secrets if request.path.endswith("/secrets") else [self._configuration]
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})


def register(name: str, endpoint: str, authority: Identity) -> dict[str, Any]:
    """Make the Secret of a cluster with a token."""
    data = {"endpoint": endpoint.encode(), "token": b"made-up", "ca.crt": authority.certificate_pem}
    return make_secret(name, data=data)


@asynccontextmanager
async def gateway_before(
    hub: AllowingHub,
    identities: HubIdentities,
    folder: Path,
    *flags: str,
    command: Sequence[str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[GatewayProcess, int]]:
    """Run `cluster-gateway apiserver` against the hub; yields the process and its port once it is ready."""
    (port,) = pick_free_ports(1)
    certificate, key = write_pair(identities.serving, folder, "gateway-serving")
    arguments = [
        "apiserver",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--kubeconfig={hub.write_kubeconfig(folder)}",
        "--shutdown-grace-duration=2s",
        *flags,
    ]
    options: dict[str, Any] = {} if command is None else {"command": command}
    async with run_gateway(arguments, directory=folder, variables=variables, **options) as process:
        await process.wait_ready(port)
        yield process, port


__all__ = ["AllowingHub", "gateway_before", "make_hub_identities", "register"]
