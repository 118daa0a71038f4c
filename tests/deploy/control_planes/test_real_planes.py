"""Real control planes; builds their programs if they are not there, which takes minutes the first time."""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import stat
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cluster_gateway.control_planes import (
    API_SERVICE,
    DEFAULT_NAMESPACE,
    CertificateAuthority,
    ControlPlane,
    ControlPlaneError,
    CredentialType,
    Kubelet,
    NotReadyError,
    Program,
    Programs,
    find_programs,
    pick_free_ports,
    register_cluster,
    register_gateway,
    run_pod,
    start_control_planes,
    start_controller_manager,
    start_kubelet,
    start_kwok,
    wait_available,
    wait_until,
)

pytestmark = pytest.mark.timeout(3600)  # a first build is part of it

WAIT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Planes:
    hub: ControlPlane
    managed: ControlPlane
    kubelet: Kubelet
    directory: Path


@pytest.fixture(scope="module")
async def programs() -> Programs:
    return await find_programs(Program)


@pytest.fixture(scope="module")
async def planes(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> AsyncGenerator[Planes]:
    directory = tmp_path_factory.mktemp("planes")
    pids: set[int] = set()
    async with contextlib.AsyncExitStack() as stack:
        started = await stack.enter_async_context(
            start_control_planes(directory, ["hub", "managed1"], programs=programs)
        )
        hub, managed = started.values()
        kubelet = await stack.enter_async_context(start_kubelet(managed))
        await run_pod(managed, "pod1")
        pids = {hub.process.pid, hub.dependencies[0].pid, managed.process.pid, kubelet.process.pid}
        yield Planes(hub=hub, managed=managed, kubelet=kubelet, directory=directory)
    assert [pid for pid in pids if is_running(pid)] == []
    assert processes_mentioning(directory) == []


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def processes_mentioning(directory: Path) -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in command:
                found.append(command)
    return found


async def test_planes_are_ready_and_separate(planes: Planes) -> None:
    for plane, other in ((planes.hub, planes.managed), (planes.managed, planes.hub)):
        result = await plane.kubectl("get", "--raw", "/readyz")
        assert (result.exit_code, result.stdout) == (0, "ok")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=other.ssl_context())) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(plane.url)


async def test_exec_reports_the_exit_code(planes: Planes) -> None:
    result = await planes.managed.kubectl("exec", "pod1", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert result.exit_code == 7
    assert result.stdout == "out\n"
    assert "err\n" in result.stderr
    assert "command terminated with exit code 7" in result.stderr


async def test_exec_reads_stdin_to_its_end(planes: Planes) -> None:
    result = await planes.managed.kubectl("exec", "-i", "pod1", "--", "wc", "-c", stdin=b"x" * 100_000)
    assert result.stdout.strip() == "100000"


async def test_attach_answers_every_line(planes: Planes) -> None:
    result = await planes.managed.kubectl("attach", "-i", "pod1", stdin=b"one\ntwo\n")
    assert result.stdout == "attached\ngot:one\ngot:two\n"


async def test_logs_can_be_cut_and_followed_to_their_end(planes: Planes) -> None:
    log = planes.kubelet.container_log("pod1")
    log.write_text("one\ntwo\nthree\n")
    assert (await planes.managed.kubectl("logs", "pod1", "--tail=2")).stdout == "two\nthree\n"
    async with asyncio.TaskGroup() as group:
        following = group.create_task(planes.managed.kubectl("logs", "-f", "pod1"))
        with log.open("a") as file:
            file.write("four\n")
        log.with_name(f"{log.name}.done").touch()
    assert following.result().stdout == "one\ntwo\nthree\nfour\n"


async def test_no_path_leads_out_of_the_logs(planes: Planes) -> None:
    (planes.kubelet.logs.parent / "outside.log").write_text("secret")
    path = "/containerLogs/default/..%2F../outside"
    client = planes.managed.directory / "kubelet-client"
    assert "secret" not in (await ask_kubelet(planes, client, path))[1]
    status, text = await ask_kubelet(planes, client, "/containerLogs/..%2F/.%2F./outside")
    assert (status, "path escapes from parent" in text) == (404, True)


async def test_kubelet_serves_the_apiserver_alone(planes: Planes, tmp_path: Path) -> None:
    planes.managed.issue_client_certificate("jane", ["system:masters"]).write(tmp_path, "jane")
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await ask_kubelet(planes, tmp_path / "jane", "/containerLogs/default/pod1/main")


async def ask_kubelet(planes: Planes, pair: Path, path: str) -> tuple[int, str]:
    context = planes.managed.ssl_context()
    context.load_cert_chain(f"{pair}.crt", f"{pair}.key")
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)
        ) as session,
        session.get(f"https://127.0.0.1:{planes.kubelet.port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_an_issued_certificate_is_the_user_and_its_requests_are_audited(planes: Planes, tmp_path: Path) -> None:
    kubeconfig = planes.hub.write_kubeconfig(tmp_path / "jane", "jane", ["team"])
    result = await planes.hub.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig)
    user = json.loads(result.stdout)["status"]["userInfo"]
    assert (user["username"], user["groups"]) == ("jane", ["team", "system:authenticated"])

    async def is_audited() -> bool:
        events = [json.loads(line) for line in planes.hub.audit_log.read_text().splitlines()]
        return any(event["user"]["username"] == "jane" and event["level"] == "Metadata" for event in events)

    await wait_until(is_audited, what="jane is in the audit log", timeout_seconds=WAIT_SECONDS)


async def test_files_with_keys_are_private(planes: Planes) -> None:
    private = [*planes.directory.rglob("*.key"), *planes.directory.glob("*.kubeconfig")]
    assert len(private) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


async def test_a_directory_in_use_is_refused(planes: Planes, programs: Programs) -> None:
    with pytest.raises(ControlPlaneError, match="belongs to control planes that are running"):
        async with start_control_planes(planes.directory, ["hub"], programs=programs):
            pass


@pytest.mark.parametrize("credential", ["X509Certificate", "ServiceAccountToken"])
async def test_a_registered_cluster_is_a_secret_whose_credential_works(
    planes: Planes,
    credential: CredentialType,
    tmp_path: Path,
) -> None:
    await register_cluster(planes.hub, "c1", planes.managed, credential=credential)
    result = await planes.hub.kubectl("get", "secret", "c1", "-n", DEFAULT_NAMESPACE, "-o", "json")
    secret = json.loads(result.stdout)
    assert secret["metadata"]["labels"] == {
        "cluster.core.oam.dev/cluster-credential-type": credential,
        "cluster.core.oam.dev/cluster-endpoint-type": "Const",
    }
    keys = {"tls.crt", "tls.key"} if credential == "X509Certificate" else {"token"}
    assert set(secret["data"]) == {"endpoint", "ca.crt"} | keys
    files = {}
    for key, value in secret["data"].items():
        files[key] = tmp_path / key
        files[key].write_bytes(base64.b64decode(value))
    flags = [f"--server={files['endpoint'].read_text()}", f"--certificate-authority={files['ca.crt']}"]
    if credential == "X509Certificate":
        flags += [f"--client-certificate={files['tls.crt']}", f"--client-key={files['tls.key']}"]
    else:
        flags += [f"--token={files['token'].read_text()}"]
    answer = await planes.managed.kubectl("auth", "can-i", "*", "*", *flags, kubeconfig=Path(os.devnull))
    assert answer.stdout == "yes\n"


async def test_registering_the_gateway_again_replaces_its_port(planes: Planes) -> None:
    for port in (4443, 4444):
        await register_gateway(planes.hub, port, planes.hub.ca.certificate)
    result = await planes.hub.kubectl("get", "apiservice", API_SERVICE, "-o", "json")
    spec = json.loads(result.stdout)["spec"]
    assert (spec["group"], spec["version"]) == ("cluster.core.oam.dev", "v1alpha1")
    assert (spec["groupPriorityMinimum"], spec["versionPriority"]) == (2000, 10)
    assert spec["service"]["port"] == 4444
    result = await planes.hub.kubectl("get", "service", "-n", DEFAULT_NAMESPACE, "gateway-service", "-o", "json")
    service = json.loads(result.stdout)["spec"]
    assert (service["type"], service["externalName"]) == ("ExternalName", "localhost")
    assert [port["port"] for port in service["ports"]] == [4444]


@contextlib.asynccontextmanager
async def gateway(hub: ControlPlane, directory: Path) -> AsyncGenerator[tuple[int, CertificateAuthority]]:
    """A server that believes the aggregator, and says whom it was asked by; its port and authority."""
    authority = CertificateAuthority("gateway-ca")
    authority.issue_server("gateway", ["gateway-service.vela-system.svc"]).write(directory, "gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(hub.front_proxy_ca_path))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(directory / "gateway.crt", directory / "gateway.key")

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "user": request.headers["X-Remote-User"]})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        (port,) = pick_free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        yield port, authority
    finally:
        await runner.cleanup()


async def test_a_registered_gateway_becomes_available_and_is_told_the_user(planes: Planes, tmp_path: Path) -> None:
    path = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways"
    async with gateway(planes.hub, tmp_path) as (port, authority):
        await register_gateway(planes.hub, port, authority.certificate)
        await wait_available(planes.hub)
        result = await planes.hub.kubectl("get", "--raw", path)
    assert json.loads(result.stdout) == {"path": path, "user": "kubernetes-admin"}


async def test_a_gateway_that_does_not_answer_is_not_waited_for_for_ever(planes: Planes) -> None:
    (port,) = pick_free_ports(1)
    await register_gateway(planes.hub, port, planes.hub.ca.certificate)
    with pytest.raises(NotReadyError, match=r"waiting until APIService v1alpha1\.cluster\.core\.oam\.dev of hub"):
        await wait_available(planes.hub, timeout_seconds=0.5)


async def test_pods_on_fake_nodes_become_running_by_themselves(planes: Planes) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fake"},
        "spec": {"nodeName": "fake1", "containers": [{"name": "main", "image": "none.invalid/none"}]},
    }
    async with start_kwok(planes.hub):
        created = await planes.hub.kubectl("create", "-f", "-", stdin=json.dumps(pod).encode())
        assert created.exit_code == 0, created.stderr
        waited = await planes.hub.kubectl("wait", "--for=condition=Ready", "pod/fake", "--timeout=20s")
        assert waited.exit_code == 0, waited.stderr
        deleted = await planes.hub.kubectl("delete", "pod", "fake", "--timeout=20s")
        assert deleted.exit_code == 0, deleted.stderr


async def test_with_a_controller_manager_namespaces_finish_deleting(planes: Planes) -> None:
    # Not the hub: an APIService without a server behind it, as another test leaves there, blocks deletion.
    async with start_controller_manager(planes.managed):
        assert (await planes.managed.kubectl("create", "namespace", "gone")).exit_code == 0
        deleted = await planes.managed.kubectl("delete", "namespace", "gone", "--timeout=25s")
        assert deleted.exit_code == 0, deleted.stderr


async def test_a_plane_survives_an_outage(planes: Planes) -> None:
    await planes.managed.process.stop()
    assert (await planes.managed.kubectl("get", "--raw", "/readyz")).exit_code != 0
    await planes.managed.process.start()
    await planes.managed.wait_ready()
    assert (await planes.managed.kubectl("get", "pod", "pod1")).exit_code == 0
