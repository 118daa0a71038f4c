"""One hub, two clusters and one gateway for the whole session, all real; nothing of it outlives the session."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway import (
    ACCOUNT,
    NAMESPACE,
    SECRET_NAMESPACE,
    SERVICE,
    Gateway,
    Stage,
    processes_mentioning,
)
from tests.support.kubectl import Kubectl, write_kubeconfig
from tests.support.manifests import MANIFESTS
from tests.support.routes import Route, scripted_route

from cluster_gateway.control_planes import (
    REQUIRED_PROGRAMS,
    CertificateAuthority,
    Program,
    find_programs,
    register_cluster,
    register_gateway,
    run_pod,
    start_control_planes,
    start_controller_manager,
    start_kubelet,
    wait_available,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from pathlib import Path

    from cluster_gateway.control_planes import CredentialType

_LAST_LINES = 60
_LOGS = pytest.StashKey[list["Path"]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for log in item.config.stash.get(_LOGS, []):
            lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            report.sections.append((f"end of {log}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """The hub and its clusters, with a node and a pod each, and the gateway's rights; no gateway yet."""
    directory = tmp_path_factory.mktemp("e2e")
    programs = await find_programs(REQUIRED_PROGRAMS | {Program.KUBE_CONTROLLER_MANAGER})
    async with contextlib.AsyncExitStack() as stack:
        planes = await stack.enter_async_context(start_control_planes(directory / "planes", programs=programs))
        managed = {name: plane for name, plane in planes.items() if name != "hub"}
        kubelets = {name: await stack.enter_async_context(start_kubelet(plane)) for name, plane in managed.items()}
        for name, plane in managed.items():
            await run_pod(plane, "pod1", containers=("main", "side"), labels={"cluster": name})
        for plane in (planes["hub"], managed["managed1"]):
            await stack.enter_async_context(start_controller_manager(plane))
        stage = Stage(
            hub=planes["hub"],
            managed=managed,
            kubelets=kubelets,
            directory=directory,
            authority=CertificateAuthority("gateway-ca"),
        )
        stage.ca_path.write_bytes(stage.authority.certificate)
        await _give_rights(stage)
        yield stage

    async def is_over() -> bool:
        return processes_mentioning(str(directory)) == []

    await wait_until(is_over, what="no process of the session is left", timeout_seconds=10)


async def _give_rights(stage: Stage) -> None:
    """Apply the manifests' account and rights, and nothing more, and write the account's kubeconfig."""
    admin = stage.kubectl()
    for name in ("namespaces", "service-account", "rbac"):
        await admin.ok("apply", "-f", str(MANIFESTS / "base" / f"{name}.yaml"))
    token = (await admin.ok("create", "token", "-n", NAMESPACE, ACCOUNT, "--duration=2h")).strip()
    write_kubeconfig(stage.gateway_kubeconfig, stage.hub.url, stage.hub.ca_path, token)


@pytest.fixture(scope="session")
async def gateway(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """The gateway as the hub's APIService, with both clusters registered."""
    async with stage.run_gateway() as gateway:
        request.config.stash.setdefault(_LOGS, []).append(gateway.process.log)
        await register_gateway(
            stage.hub, gateway.port, stage.authority.certificate, namespace=NAMESPACE, service_name=SERVICE
        )
        credentials: dict[str, CredentialType] = {
            "managed1": "X509Certificate",
            "managed2": "ServiceAccountToken",
        }
        for name, credential in credentials.items():
            await register_cluster(
                stage.hub, name, stage.managed[name], namespace=SECRET_NAMESPACE, credential=credential
            )
        await wait_available(stage.hub)
        yield gateway
        assert await gateway.process.stop() == 0, gateway.process.log.read_text()
        assert list(gateway.temporary.iterdir()) == []
        log = gateway.process.log.read_text()
        assert [line for line in log.splitlines() if _level(line) not in {"info", "warning"}] == []


def _level(line: str) -> str:
    return str(json.loads(line)["level"])


@pytest.fixture(scope="session")
def admin(stage: Stage, gateway: Gateway) -> Kubectl:
    """The hub itself, through kubectl as its administrator."""
    return stage.kubectl()


@pytest.fixture(scope="session")
def clusters(stage: Stage, gateway: Gateway) -> dict[str, Kubectl]:
    """Each cluster, through kubectl by way of hub and gateway, as the hub's administrator."""
    return {name: stage.kubectl(name) for name in stage.managed}


@pytest.fixture(scope="session", params=["managed1", "managed2"])
def cluster_name(request: pytest.FixtureRequest) -> str:
    """Each cluster in turn: one is reached with a certificate, the other with a token."""
    return str(request.param)


@pytest.fixture(scope="session")
def kubectl(clusters: dict[str, Kubectl], cluster_name: str) -> Kubectl:
    """Each cluster in turn, through kubectl."""
    return clusters[cluster_name]


@pytest.fixture(params=["facade", "hub"])
async def route(request: pytest.FixtureRequest, stage: Stage, gateway: Gateway) -> AsyncIterator[Route]:
    """A scripted cluster of the test's own, by each of the two ways."""
    async with scripted_route(stage, gateway, str(request.param)) as route:
        yield route


@pytest.fixture
async def facade_route(stage: Stage, gateway: Gateway) -> AsyncIterator[Route]:
    """A scripted cluster of the test's own, straight at the facade: every byte is the client's."""
    async with scripted_route(stage, gateway, "facade") as route:
        yield route
