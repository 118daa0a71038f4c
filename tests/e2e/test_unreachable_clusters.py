"""Clusters that cannot be reached: each says what is wrong, soon, and harms no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.full_backlog import full_backlog
from tests.support.gateway import GROUP, RESOURCE_PATH, proxy_path

from cluster_gateway.control_planes import CertificateAuthority, pick_free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.gateway import Answer, Gateway, Stage
    from tests.support.kubectl import Kubectl

    from cluster_gateway.control_planes import ControlPlane

    Register = Callable[..., Awaitable[None]]

_NAMESPACE = "/api/v1/namespaces/default"
_SOON_SECONDS = 10.0
_LIMIT_SECONDS = 20.0
"""Above the gateway's 5 s for TCP and 10 s for TLS, and below anything a client would wait."""


def credential(plane: ControlPlane, **changed: bytes) -> dict[str, bytes]:
    """A registration of a cluster by certificate, with some keys replaced."""
    pair = plane.issue_client_certificate("cluster-gateway", ["system:masters"])
    data = {"endpoint": plane.url.encode(), "ca.crt": plane.ca.certificate}
    data |= {"tls.crt": pair.certificate, "tls.key": pair.key}
    return data | {key.replace("_", "."): value for key, value in changed.items()}


@pytest.fixture
async def register(stage: Stage, gateway: Gateway) -> AsyncIterator[Register]:
    """Registers clusters that are forgotten when the test ends."""
    names: list[str] = []

    async def register(name: str, data: dict[str, bytes], *, kind: str = "X509Certificate") -> None:
        names.append(name)
        await stage.register(name, data, credential=kind)
        await stage.wait_known(name)

    yield register
    await stage.unregister(*names)


async def failure(stage: Stage, name: str, seconds: float = _SOON_SECONDS) -> Any:
    """The Status of a request to a cluster, which must be a 503 about that cluster."""
    answer: Answer = await stage.ask_hub(proxy_path(name, _NAMESPACE), timeout_seconds=seconds)
    status = answer.status_object(503, "ServiceUnavailable")
    details = status["details"]
    assert (details["group"], details["kind"], details["name"]) == (GROUP, "clustergateways", name)
    assert name in status["message"]
    return status


async def test_an_unknown_cluster_is_unavailable_and_never_not_found(stage: Stage, gateway: Gateway) -> None:
    """A controller would take a 404 for the end of its object (design 7)."""
    status = await failure(stage, "unknown1")
    assert "no such cluster unknown1" in status["message"]
    for method in ("PUT", "DELETE", "PATCH"):
        answer = await stage.ask_hub(proxy_path("unknown1", f"{_NAMESPACE}"), method=method, body={})
        assert answer.status == 503, answer
    for arguments in (("get", "--raw", _NAMESPACE), ("get", "pods")):
        result = await stage.kubectl("unknown1")(*arguments, timeout_seconds=_SOON_SECONDS)
        assert result.exit_code == 1
        assert "(ServiceUnavailable)" in result.stderr
        # Before its first discovery kubectl hides what servers say behind words of its own.
        assert arguments[-1] == "pods" or "no such cluster unknown1" in result.stderr


async def test_the_object_of_an_unknown_cluster_is_not_found(stage: Stage, gateway: Gateway) -> None:
    answer = await stage.ask_hub(f"{RESOURCE_PATH}/unknown1")
    status = answer.status_object(404, "NotFound")
    assert status["message"] == f'clustergateways.{GROUP} "unknown1" not found'


async def test_a_cluster_nobody_listens_for_is_told_so_soon(stage: Stage, register: Register) -> None:
    (port,) = pick_free_ports(1)
    endpoint = f"https://127.0.0.1:{port}".encode()
    await register("dead1", credential(stage.managed["managed1"], endpoint=endpoint))
    status = await failure(stage, "dead1")
    assert f"dial tcp 127.0.0.1:{port}" in status["message"]
    assert "refused" in status["message"]


async def test_a_stopped_cluster_fails_soon_alone_and_recovers(
    stage: Stage, gateway: Gateway, clusters: dict[str, Kubectl]
) -> None:
    plane = stage.managed["managed2"]
    await clusters["managed2"].ok("get", "pods")  # so that there is a kept connection to go stale
    await plane.process.stop()
    try:
        for _ in range(3):
            status = await failure(stage, "managed2")
            assert f"dial tcp 127.0.0.1:{plane.port}" in status["message"]
        assert "pod1" in await clusters["managed1"].ok("get", "pods")
    finally:
        await plane.process.start()
        await plane.wait_ready()
    assert "pod1" in await clusters["managed2"].ok("get", "pods")


@contextlib.asynccontextmanager
async def mute_server() -> AsyncIterator[int]:
    """A port that accepts and never says a word."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def test_clusters_that_swallow_everything_are_given_up_and_harm_no_other(
    stage: Stage, register: Register, clusters: dict[str, Kubectl]
) -> None:
    plane = stage.managed["managed1"]
    with full_backlog() as swallowing:
        async with mute_server() as mute:
            for name, port in (("swallow1", swallowing), ("mute1", mute)):
                await register(name, credential(plane, endpoint=f"https://127.0.0.1:{port}".encode()))
            async with asyncio.TaskGroup() as group:
                swallowed = [group.create_task(failure(stage, "swallow1", _LIMIT_SECONDS)) for _ in range(20)]
                muted = [group.create_task(failure(stage, "mute1", _LIMIT_SECONDS)) for _ in range(20)]
                assert "pod1" in await clusters["managed1"].ok("get", "pods", timeout_seconds=_SOON_SECONDS)
                assert "pod1" in await clusters["managed2"].ok("get", "pods", timeout_seconds=_SOON_SECONDS)
    for task in swallowed:
        assert "dial tcp" in task.result()["message"]
    for task in muted:
        assert "TLS" in task.result()["message"]


async def test_a_cluster_with_another_authority_fails_in_tls(stage: Stage, register: Register) -> None:
    other = CertificateAuthority("somebody-else").certificate
    await register("wrong-ca", credential(stage.managed["managed1"], ca_crt=other))
    status = await failure(stage, "wrong-ca")
    assert "TLS" in status["message"]
    assert "certificate" in status["message"]


async def test_a_refused_credential_is_the_gateways_fault_and_not_the_callers(stage: Stage, register: Register) -> None:
    """A 401 would make kubectl ask its user for a password."""
    plane = stage.managed["managed1"]
    data = {"endpoint": plane.url.encode(), "ca.crt": plane.ca.certificate, "token": b"revoked-token-canary"}
    await register("revoked", data, kind="ServiceAccountToken")
    status = await failure(stage, "revoked")
    (cause,) = status["details"]["causes"]
    assert cause["reason"] == "CREDENTIAL_REJECTED"
    assert "credential" in status["message"]
    assert "Secret" in status["message"]
    assert "canary" not in json.dumps(status)


async def test_a_certificate_of_a_foreign_authority_is_refused_as_a_credential(
    stage: Stage, register: Register
) -> None:
    plane = stage.managed["managed1"]
    foreign = CertificateAuthority("somebody-else").issue_client("cluster-gateway", ["system:masters"])
    data = credential(plane, tls_crt=foreign.certificate, tls_key=foreign.key)
    await register("foreign", data)
    status = await failure(stage, "foreign")
    assert "certificate" in status["message"] or "credential" in status["message"]


@pytest.mark.parametrize(
    "broken",
    [
        {"endpoint": b"not an url"},
        {"endpoint": b"https://127.0.0.1:99999"},
        {"ca_crt": b"no certificate"},
        {"tls_crt": b"no certificate"},
        {"tls_key": b"no key"},
    ],
    ids=lambda broken: "-".join([*broken, next(iter(broken.values())).decode()[:12].replace(" ", "-")]),
)
async def test_broken_data_is_a_fault_of_that_cluster_alone(
    stage: Stage, register: Register, clusters: dict[str, Kubectl], broken: dict[str, bytes]
) -> None:
    await register("broken1", credential(stage.managed["managed1"], **broken))
    status = await failure(stage, "broken1")
    assert status["details"]["causes"][0]["reason"] == "CLUSTER_MISCONFIGURED", status
    listed = (await stage.ask_hub(RESOURCE_PATH)).json()
    assert {"managed1", "managed2"} <= {item["metadata"]["name"] for item in listed["items"]}
    assert "pod1" in await clusters["managed1"].ok("get", "pods")
