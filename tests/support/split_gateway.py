"""A core and a facade as two processes over mutual TLS, as the overlay `split` runs them."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.gateway import SECRET_NAMESPACE
from tests.support.gateway_process import GatewayProcess, run_gateway

from cluster_gateway.control_planes import CertificateAuthority, KeyPair, pick_free_ports, wait_until
from cluster_gateway_client import CoreEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.answering_hub import HubStage
    from tests.support.gateway import Stage

FACADE_NAME = "cluster-gateway-facade"
_START_SECONDS = 30.0
_PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """A running `cluster-gateway core`.

    Attributes:
        process: The command.
        port: Port of mutual TLS.
        token_port: Port for bearer tokens.
        directory: Its files.
        authority: Who signs its certificate, and facades'.
    """

    process: GatewayProcess
    port: int
    token_port: int
    directory: Path
    authority: CertificateAuthority

    @property
    def ca_path(self) -> Path:
        """File of `authority`'s certificate."""
        return self.directory / "core-ca.crt"

    def endpoint(self, user: KeyPair, name: str) -> CoreEndpoint:
        """The way to it with a client certificate, which is kept in files of that name."""
        user.write(self.directory, name)
        return CoreEndpoint(
            target=f"dns:///127.0.0.1:{self.port}",
            ca_file=str(self.ca_path),
            certificate_file=str(self.directory / f"{name}.crt"),
            private_key_file=str(self.directory / f"{name}.key"),
        )

    def token_endpoint(self, token: str, name: str) -> CoreEndpoint:
        """The way to it with a bearer token."""
        path = self.directory / f"{name}.token"
        path.write_text(token)
        target = f"dns:///127.0.0.1:{self.token_port}"
        return CoreEndpoint(target=target, ca_file=str(self.ca_path), token_file=str(path))

    def plain_channel(self) -> grpc.aio.Channel:
        """A channel of plain gRPC to the token port, without any credential."""
        credentials = grpc.ssl_channel_credentials(root_certificates=self.ca_path.read_bytes())
        return grpc.aio.secure_channel(f"dns:///127.0.0.1:{self.token_port}", credentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facade:
    """A running `cluster-gateway facade`.

    Attributes:
        process: The command.
        port: Its HTTPS port.
        directory: Its files; its certificate towards cores is `client.crt` there.
    """

    process: GatewayProcess
    port: int
    directory: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def run_core(
    stage: Stage | HubStage,
    *flags: str,
    authority: CertificateAuthority | None = None,
    ports: tuple[int, int] | None = None,
) -> AsyncIterator[Core]:
    """Run a core for the duration of a block and wait until it serves.

    Args:
        stage: The hub.
        *flags: More flags.
        authority: Who signs its certificate, and its facades'; by default one of its own.
        ports: Its two ports; by default free ones.
    """
    port, token_port = ports or pick_free_ports(2)
    directory = stage.directory / f"core-{port}"
    directory.mkdir(exist_ok=True)
    authority = authority or CertificateAuthority("core-ca")
    (directory / "core-ca.crt").write_bytes(authority.certificate)
    authority.issue_server("core", ["127.0.0.1", "localhost"]).write(directory, "serving")
    arguments = [
        "core",
        "--bind-address=127.0.0.1",
        f"--grpc-port={port}",
        f"--grpc-token-port={token_port}",
        f"--tls-cert-file={directory / 'serving.crt'}",
        f"--tls-private-key-file={directory / 'serving.key'}",
        f"--facade-ca-file={directory / 'core-ca.crt'}",
        f"--facade-allowed-names={FACADE_NAME}",
        f"--kubeconfig={stage.gateway_kubeconfig}",
        f"--secret-namespace={SECRET_NAMESPACE}",
        *flags,
    ]
    async with run_gateway(arguments, directory=directory) as process:
        core = Core(process=process, port=port, token_port=token_port, directory=directory, authority=authority)
        await _wait_serving(core)
        yield core
        if process.process.returncode is None:
            assert await process.stop() == 0, process.log.read_text()


async def _wait_serving(core: Core) -> None:
    request = health_pb2.HealthCheckRequest()

    async def serves() -> bool:
        assert core.process.process.returncode is None, core.process.log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", core.token_port), timeout=1).close()
            async with core.plain_channel() as channel:
                try:
                    answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_PROBE_SECONDS)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        return False

    await wait_until(serves, what="the core serves", timeout_seconds=_START_SECONDS)


@contextlib.asynccontextmanager
async def run_facade(stage: Stage | HubStage, core: Core, *others: Core) -> AsyncIterator[Facade]:
    """Run a facade of cores, which share one authority, for the duration of a block."""
    (port,) = pick_free_ports(1)
    directory = stage.directory / f"facade-{port}"
    directory.mkdir()
    stage.write_serving_certificate(directory)
    core.authority.issue_client(FACADE_NAME).write(directory, "client")
    arguments = [
        "facade",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={directory / 'serving.crt'}",
        f"--tls-private-key-file={directory / 'serving.key'}",
        f"--core-target=ipv4:{','.join(f'127.0.0.1:{one.port}' for one in (core, *others))}",
        "--core-server-name=localhost",
        f"--core-ca-file={core.ca_path}",
        f"--core-client-cert-file={directory / 'client.crt'}",
        f"--core-client-key-file={directory / 'client.key'}",
    ]
    async with run_gateway(arguments, directory=directory) as process:
        await process.wait_ready(port)
        yield Facade(process=process, port=port, directory=directory)
        if process.process.returncode is None:
            assert await process.stop() == 0, process.log.read_text()
