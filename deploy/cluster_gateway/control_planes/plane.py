"""Real control planes on loopback: an apiserver each, on one etcd, with authorities of their own.

Nothing is kept between two starts in the same directory: keys, certificates and data are made afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration

from cluster_gateway.control_planes.apiserver import apiserver_flags, write_apiserver_files
from cluster_gateway.control_planes.binaries import find_programs
from cluster_gateway.control_planes.errors import ControlPlaneError
from cluster_gateway.control_planes.etcd import Etcd
from cluster_gateway.control_planes.kubeconfig import render_kubeconfig
from cluster_gateway.control_planes.locks import lock_or_fail
from cluster_gateway.control_planes.pki import CertificateAuthority, KeyPair, write_private
from cluster_gateway.control_planes.ports import LOOPBACK, pick_free_ports, require_free_port
from cluster_gateway.control_planes.processes import (
    ChildProcess,
    CommandResult,
    run_command,
    stop_all,
    wait_until,
)
from cluster_gateway.control_planes.programs import CORE_PROGRAMS, REQUIRED_PROGRAMS, Program, Programs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

DEFAULT_NAMES = ("hub", "managed1", "managed2")

START_SECONDS = 120.0
"""How long all planes together may take to become ready: 7 s on two idle cores, much longer on busy ones."""

_PROBE_SECONDS = 5.0
_KUBECTL_SECONDS = 30.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LOCK = ".control-planes.lock"
_RESERVED_NAMES = frozenset({"etcd"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """A kube-apiserver, and everything one needs to speak to it or in its name.

    Attributes:
        name: Name of the cluster.
        port: Its port on 127.0.0.1.
        directory: Folder of its files.
        programs: The programs it was started with.
        ca: The authority that signs its serving certificate and its users' client certificates.
        process: The kube-apiserver; `stop` and `start` it to see what an outage does.
        dependencies: Processes it cannot run without, that is etcd.
    """

    name: str
    port: int
    directory: Path
    programs: Programs
    ca: CertificateAuthority = field(repr=False)
    process: ChildProcess
    dependencies: tuple[ChildProcess, ...] = field(repr=False)

    @property
    def url(self) -> str:
        """Address of the apiserver; its certificate is for 127.0.0.1 and localhost."""
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def ca_path(self) -> Path:
        """File of the authority's certificate (PEM)."""
        return self.directory / "ca.crt"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator (group system:masters)."""
        return self.directory.with_name(f"{self.name}.kubeconfig")

    @property
    def front_proxy_ca_path(self) -> Path:
        """File of the authority that signs front-proxy certificates (PEM)."""
        return self.directory / "front-proxy-ca.crt"

    @property
    def front_proxy_client_certificate(self) -> Path:
        """Certificate with which the aggregator asserts users to extension servers (PEM)."""
        return self.directory / "front-proxy-client.crt"

    @property
    def front_proxy_client_key(self) -> Path:
        """Key of `front_proxy_client_certificate`."""
        return self.directory / "front-proxy-client.key"

    @property
    def service_account_key(self) -> Path:
        """Key that signs service account tokens (P-256, PEM)."""
        return self.directory / "sa.key"

    @property
    def service_account_public_key(self) -> Path:
        """Public half of `service_account_key`."""
        return self.directory / "sa.pub"

    @property
    def audit_log(self) -> Path:
        """One JSON event a line, level Metadata; absent until the first request."""
        return self.directory / "audit.log"

    def issue_client_certificate(self, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """Issue a certificate that authenticates as a user with groups."""
        return self.ca.issue_client(user, groups)

    def write_kubeconfig(self, path: Path, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig (mode 0600) for a user with a fresh client certificate.

        Returns:
            The same path.
        """
        pair = self.issue_client_certificate(user, groups)
        write_private(path, render_kubeconfig(self.name, self.url, self.ca.certificate, pair))
        return path

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context for an HTTPS client that is an administrator."""
        context = ssl.create_default_context(cafile=str(self.ca_path))
        context.load_cert_chain(self.directory / "admin.crt", self.directory / "admin.key")
        return context

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[ApiClient]:
        """Open a Kubernetes client that is an administrator; it is closed with the block."""
        configuration = Configuration(host=self.url, ssl_ca_cert=str(self.ca_path))
        configuration.cert_file = str(self.directory / "admin.crt")
        configuration.key_file = str(self.directory / "admin.key")
        client = ApiClient(configuration)
        try:
            yield client
        finally:
            await client.close()

    async def kubectl(
        self,
        *arguments: str,
        stdin: bytes = b"",
        kubeconfig: Path | None = None,
        timeout_seconds: float = _KUBECTL_SECONDS,
    ) -> CommandResult:
        """Run kubectl to its end.

        Args:
            *arguments: What follows the word `kubectl`.
            stdin: What it reads.
            kubeconfig: Whom it is run as; by default an administrator of this plane.
            timeout_seconds: When to kill it.

        Raises:
            CommandTimeoutError: It was still running at the deadline.
        """
        program = self.programs[Program.KUBECTL]
        environment = {"KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        environment["KUBECACHEDIR"] = str(self.directory / "kubectl-cache")
        return await run_command(
            [program, *arguments], timeout_seconds=timeout_seconds, stdin=stdin, environment=environment
        )

    async def wait_ready(self, *, timeout_seconds: float = START_SECONDS) -> None:
        """Wait until the apiserver says that it is ready and its default namespace exists.

        Raises:
            ProcessDiedError: It, or etcd, died.
            NotReadyError: It was not ready in time.
        """
        connector = aiohttp.TCPConnector(ssl=self.ssl_context(), force_close=True)
        timeout = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        async with aiohttp.ClientSession(self.url, connector=connector, timeout=timeout) as session:

            async def is_ready() -> bool:
                # The namespace is made by a controller of the apiserver for which /readyz does not wait.
                for path in ("/readyz", "/api/v1/namespaces/default"):
                    try:
                        async with session.get(path) as response:
                            if response.status != HTTPStatus.OK:
                                return False
                    except (aiohttp.ClientError, TimeoutError):
                        return False
                return True

            await wait_until(
                is_ready,
                what=f"{self.name} is ready",
                processes=(self.process, *self.dependencies),
                timeout_seconds=timeout_seconds,
            )


@contextlib.asynccontextmanager
async def start_control_planes(
    directory: Path,
    names: Sequence[str] = DEFAULT_NAMES,
    *,
    programs: Programs | None = None,
    base_port: int | None = None,
) -> AsyncGenerator[dict[str, ControlPlane]]:
    """Run control planes for the duration of a block, all of them ready.

    Writes `<name>.kubeconfig` (an administrator), `<name>/` and `etcd.log` into the directory, which
    is created readable by its owner only; what an earlier run left there is replaced. On cancellation, and
    when one of them does not start, all are stopped before the error is raised.

    Args:
        directory: Where everything is kept.
        names: Names of the planes, lower-case DNS labels.
        programs: kube-apiserver, etcd and kubectl, and whatever else is to be started later; by default
            they are found or built, together with the kubelet.
        base_port: etcd takes this port and the next, the planes those from `base_port + 10`; by default
            free ports are chosen.

    Yields:
        The planes by name.

    Raises:
        ControlPlaneError: They cannot be built or started; the message says why.
    """
    _check_names(names)
    found = await find_programs(REQUIRED_PROGRAMS) if programs is None else programs
    missing = sorted(CORE_PROGRAMS - found.keys())
    if missing:
        raise ControlPlaneError(f"control planes need {', '.join(missing)} too: add them to `programs`")
    directory = _make_directory(directory, names)
    in_use = ControlPlaneError(f"{directory} belongs to control planes that are running: choose another")
    with lock_or_fail(directory / _LOCK, in_use):
        etcd, planes = _prepare(directory, names, found, _choose_ports(len(names), base_port))
        async with _run(etcd, planes):
            yield {plane.name: plane for plane in planes}


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or name in _RESERVED_NAMES:
            raise ControlPlaneError(f"{name!r} cannot be the name of a control plane: use letters and digits")
    if len(set(names)) != len(names) or not names:
        raise ControlPlaneError("control planes need names, each a different one")


def _make_directory(directory: Path, names: Sequence[str]) -> Path:
    """Create the directory, and refuse one that holds somebody else's files, such as a home."""
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    present = [name for name in ("etcd", *names) if (directory / name).exists()]
    if present and not (directory / _LOCK).exists():
        message = f"{directory} holds {', '.join(present)} of another origin: choose an empty directory"
        raise ControlPlaneError(message)
    return directory


def _choose_ports(count: int, base_port: int | None) -> tuple[int, ...]:
    if base_port is None:
        return pick_free_ports(count + 2)
    return tuple(
        require_free_port(port) for port in (base_port, base_port + 1, *range(base_port + 10, base_port + 10 + count))
    )


def _prepare(
    directory: Path, names: Sequence[str], programs: Programs, ports: Sequence[int]
) -> tuple[Etcd, list[ControlPlane]]:
    client_port, peer_port, *plane_ports = ports
    for leftover in ("etcd", *names):
        shutil.rmtree(directory / leftover, ignore_errors=True)
    (directory / "etcd.log").unlink(missing_ok=True)
    etcd = Etcd.prepare(directory / "etcd", programs[Program.ETCD], port=client_port, peer_port=peer_port)
    planes = [
        _prepare_plane(directory / name, programs, port, etcd) for name, port in zip(names, plane_ports, strict=True)
    ]
    return etcd, planes


def _prepare_plane(directory: Path, programs: Programs, port: int, etcd: Etcd) -> ControlPlane:
    name = directory.name
    directory.mkdir(mode=0o700)
    authority = CertificateAuthority(f"{name}-ca")
    write_apiserver_files(directory, authority)
    arguments: list[str | Path] = [programs[Program.KUBE_APISERVER], *apiserver_flags(directory, port, etcd)]
    plane = ControlPlane(
        name=name,
        port=port,
        directory=directory,
        programs=programs,
        ca=authority,
        process=ChildProcess(f"{name}-apiserver", arguments, directory / "apiserver.log"),
        dependencies=(etcd.process,),
    )
    plane.write_kubeconfig(plane.kubeconfig, "kubernetes-admin", ["system:masters"])
    return plane


@contextlib.asynccontextmanager
async def _run(etcd: Etcd, planes: Sequence[ControlPlane]) -> AsyncGenerator[None]:
    apiservers = [plane.process for plane in planes]
    try:
        for process in (etcd.process, *apiservers):
            await process.start()
        await _wait_all_ready(planes)
        yield
    finally:
        # An apiserver that loses its etcd first hangs in its own shutdown.
        try:
            await stop_all(apiservers)
        finally:
            await etcd.process.stop()


async def _wait_all_ready(planes: Sequence[ControlPlane]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for plane in planes:
                group.create_task(plane.wait_ready(), name=f"wait for {plane.name}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the first says it all: the others died of the same
