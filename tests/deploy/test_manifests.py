"""What the manifests grant and run: by reading them, on a real hub, and by starting their commands."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.support.gateway_process import open_session, run_gateway
from tests.support.manifests import (
    MANIFESTS,
    Document,
    command_line,
    find,
    parse,
    render,
    render_installation,
    replace_flag,
    select,
)

from cluster_gateway.control_planes import pick_free_ports
from cluster_gateway.flag_tables import APISERVER_FLAGS, CORE_FLAGS, FACADE_FLAGS
from cluster_gateway.flags import parse_flags

if TYPE_CHECKING:
    import aiohttp

    from cluster_gateway.control_planes import ControlPlane

_PUBLISHED = Path(__file__).parent / "data" / "published-deployment.yaml"
_NAMESPACE = "cluster-gateway-system"
_SECRET_NAMESPACE = "open-cluster-management-credentials"
_OVERLAYS = ("default", "split")
_NOTICE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_FLAGS = {"apiserver": APISERVER_FLAGS, "core": CORE_FLAGS, "facade": FACADE_FLAGS}


@pytest.fixture(scope="module", params=_OVERLAYS)
async def overlay(request: pytest.FixtureRequest) -> list[Document]:
    return parse(await render(MANIFESTS / "overlays" / request.param))


@pytest.fixture(scope="module")
async def split() -> list[Document]:
    return parse(await render(MANIFESTS / "overlays" / "split"))


def _grants(documents: list[Document]) -> set[tuple[str, ...]]:
    """Each binding as kind, namespace, role's kind, role, and the one subject."""
    grants: set[tuple[str, ...]] = set()
    for binding in select(documents, "RoleBinding") + select(documents, "ClusterRoleBinding"):
        role = binding["roleRef"]
        (subject,) = binding["subjects"]
        account = f"{subject['kind']} {subject['namespace']}/{subject['name']}"
        namespace = binding["metadata"].get("namespace", "")
        grants.add((binding["kind"], namespace, role["kind"], role["name"], account))
    return grants


def test_rights_are_exactly_these(overlay: list[Document]) -> None:
    account = f"ServiceAccount {_NAMESPACE}/cluster-gateway"
    assert _grants(overlay) == {
        ("RoleBinding", "kube-system", "Role", "extension-apiserver-authentication-reader", account),
        ("ClusterRoleBinding", "", "ClusterRole", "system:auth-delegator", account),
        ("RoleBinding", _SECRET_NAMESPACE, "Role", "cluster-gateway-secret-reader", account),
    }
    assert select(overlay, "ClusterRole") == []
    (role,) = select(overlay, "Role")
    assert role["metadata"]["namespace"] == _SECRET_NAMESPACE
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]


def test_no_wildcard_anywhere(overlay: list[Document]) -> None:
    for role in select(overlay, "Role") + select(overlay, "ClusterRole"):
        assert "*" not in str(role["rules"])


def test_facade_has_no_rights_and_no_token(split: list[Document]) -> None:
    facade = find(split, "Deployment", "cluster-gateway-facade")["spec"]["template"]["spec"]
    assert facade["serviceAccountName"] == "cluster-gateway-facade"
    assert facade["automountServiceAccountToken"] is False
    assert find(split, "ServiceAccount", "cluster-gateway-facade")["automountServiceAccountToken"] is False
    assert not any("cluster-gateway-facade" in grant[-1] for grant in _grants(split))
    mounted = {volume["secret"]["secretName"] for volume in facade["volumes"] if "secret" in volume}
    assert mounted == {"cluster-gateway-serving-cert", "cluster-gateway-facade-cert"}


def test_pods_are_confined_and_probed(overlay: list[Document]) -> None:
    for deployment in select(overlay, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert deployment["spec"]["replicas"] == 3
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= container.keys()
        assert pod["topologySpreadConstraints"]
        assert pod["affinity"]["podAntiAffinity"]
        assert all(mount.get("readOnly") or mount["name"] == "tmp" for mount in container["volumeMounts"])


def test_selectors_lead_to_pods(overlay: list[Document]) -> None:
    labels = [item["spec"]["template"]["metadata"]["labels"] for item in select(overlay, "Deployment")]
    selectors = [item["spec"]["selector"] for item in select(overlay, "Service")]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in select(overlay, "PodDisruptionBudget")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in select(overlay, "NetworkPolicy")]
    for selector in selectors:
        assert sum(selector.items() <= pod.items() for pod in labels) == 1, selector
    assert len(select(overlay, "PodDisruptionBudget")) == len(labels)


def test_command_lines_use_only_flags_there_are_and_end_within_the_pods_patience(
    overlay: list[Document],
) -> None:
    for deployment in select(overlay, "Deployment"):
        program, role, *arguments = command_line(deployment)
        assert program == "cluster-gateway"
        flags = parse_flags(_FLAGS[role], arguments)
        assert flags.positional == []
        grace = flags.seconds("shutdown-grace-duration") + 5
        delay = flags.seconds("shutdown-delay-duration")
        longest = delay + grace * (2 if role == "apiserver" else 1)
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= longest


def test_api_service_is_the_originals_but_verified(overlay: list[Document]) -> None:
    (service,) = select(overlay, "APIService")
    assert service["metadata"]["name"] == "v1alpha1.cluster.core.oam.dev"
    assert service["spec"]["groupPriorityMinimum"] == 2000
    assert service["spec"]["versionPriority"] == 10
    assert "insecureSkipTLSVerify" not in service["spec"]


def test_network_policy_lets_facades_reach_cores_and_nothing_else(split: list[Document]) -> None:
    core = find(split, "NetworkPolicy", "cluster-gateway-core")["spec"]
    (rule,) = core["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "facade"
    assert rule["ports"] == [{"port": 9444}]
    facade = find(split, "NetworkPolicy", "cluster-gateway-facade")["spec"]
    assert facade["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in facade["egress"] for port in rule["ports"]] == [9444, 53, 53]


@pytest.mark.parametrize("name", _OVERLAYS)
def test_overlays_only_combine(name: str) -> None:
    kustomization = yaml.safe_load((MANIFESTS / "overlays" / name / "kustomization.yaml").read_text())
    assert set(kustomization) <= {"apiVersion", "kind", "resources", "components"}
    assert [path.name for path in (MANIFESTS / "overlays" / name).iterdir()] == ["kustomization.yaml"]


@pytest.mark.parametrize("name", _OVERLAYS)
async def test_cert_manager_component_provides_the_serving_certificate(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "manifests" / "overlays" / "certified"
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    directory.mkdir()
    (directory / "kustomization.yaml").write_text(
        f"resources: [../{name}]\ncomponents: [../../components/cert-manager]\n"
    )
    documents = parse(await render(directory))
    (service,) = select(documents, "APIService")
    annotation = service["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert annotation == f"{_NAMESPACE}/cluster-gateway-serving-cert"
    certificate = find(documents, "Certificate", "cluster-gateway-serving-cert")
    reference = service["spec"]["service"]
    assert certificate["spec"]["dnsNames"] == [f"{reference['name']}.{reference['namespace']}.svc"]


async def test_certificates_fit_the_manifests(tmp_path: Path) -> None:
    documents = parse(await render_installation(tmp_path, "split"))
    (service,) = select(documents, "APIService")
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(base64.b64decode(service["spec"]["caBundle"]))
    made = {secret["metadata"]["name"] for secret in select(documents, "Secret")}
    for deployment in select(documents, "Deployment"):
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        assert {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} <= made
    certificates = tmp_path / "certificates"
    reference = service["spec"]["service"]
    _verify(
        bundle,
        certificates / "cluster-gateway",
        "sslserver",
        f"{reference['name']}.{reference['namespace']}.svc",
    )
    _, _, *arguments = command_line(find(documents, "Deployment", "cluster-gateway-facade"))
    server_name = parse_flags(FACADE_FLAGS, arguments).text("core-server-name")
    _verify(
        certificates / "cluster-gateway-facade/ca.crt",
        certificates / "cluster-gateway-core",
        "sslserver",
        server_name,
    )
    _, _, *arguments = command_line(find(documents, "Deployment", "cluster-gateway-core"))
    (facade_name,) = parse_flags(CORE_FLAGS, arguments).strings("facade-allowed-names")
    _verify(
        certificates / "cluster-gateway-core/ca.crt",
        certificates / "cluster-gateway-facade",
        "sslclient",
        facade_name,
    )
    for key in certificates.glob("*/tls.key"):
        assert key.stat().st_mode & 0o077 == 0


def _verify(authority: Path, pair: Path, purpose: str, name: str) -> None:
    options = ["-x509_strict", "-CAfile", str(authority), "-purpose", purpose, "-verify_hostname", name]
    subprocess.run(["openssl", "verify", *options, str(pair / "tls.crt")], check=True, timeout=60)


async def _apply_without_keeping(hub: ControlPlane, text: str) -> None:
    """Have the hub validate objects, of which only the Namespaces are kept."""
    documents = parse(text)
    namespaces = select(documents, "Namespace")
    if namespaces:
        result = await hub.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(namespaces).encode())
        assert result.exit_code == 0, result.stderr
    result = await hub.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text.encode())
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(documents)
    assert "Warning" not in result.stderr


@pytest.mark.parametrize("name", _OVERLAYS)
async def test_hub_accepts_the_manifests(tmp_path: Path, hub: ControlPlane, name: str) -> None:
    await _apply_without_keeping(hub, await render_installation(tmp_path, name))


async def test_hub_accepts_the_originals_published_objects(hub: ControlPlane) -> None:
    await _apply_without_keeping(hub, _PUBLISHED.read_text())


def _locally(arguments: list[str], hub: ControlPlane) -> list[str]:
    return [*arguments, "--bind-address=127.0.0.1", f"--kubeconfig={hub.kubeconfig}"]


async def test_command_line_of_the_default_overlay_serves(tmp_path: Path, hub: ControlPlane) -> None:
    documents = parse(await render_installation(tmp_path, "default"))
    _, *arguments = command_line(find(documents, "Deployment", "cluster-gateway"))
    (port,) = pick_free_ports(1)
    pair = tmp_path / "certificates" / "cluster-gateway"
    arguments = replace_flag(arguments, "tls-cert-file", pair / "tls.crt")
    arguments = replace_flag(arguments, "tls-private-key-file", pair / "tls.key")
    arguments = replace_flag(arguments, "secure-port", port)
    arguments = replace_flag(arguments, "shutdown-delay-duration", "0s")
    async with run_gateway(_locally(arguments, hub), directory=tmp_path) as gateway:
        await gateway.wait_ready(port)
        assert await gateway.stop() == 0


async def test_command_lines_of_the_split_overlay_serve_together(tmp_path: Path, hub: ControlPlane) -> None:
    documents = parse(await render_installation(tmp_path, "split"))
    port, grpc_port = pick_free_ports(2)
    _, *core = command_line(find(documents, "Deployment", "cluster-gateway-core"))
    _, *facade = command_line(find(documents, "Deployment", "cluster-gateway-facade"))
    core = _with_files(core, tmp_path, {"/etc/cluster-gateway/core": "cluster-gateway-core"})
    core = replace_flag(core, "grpc-port", grpc_port)
    mounts = {
        "/etc/cluster-gateway/serving": "cluster-gateway",
        "/etc/cluster-gateway/facade": "cluster-gateway-facade",
    }
    facade = _with_files(facade, tmp_path, mounts)
    facade = replace_flag(facade, "secure-port", port)
    facade = replace_flag(facade, "core-target", f"dns:///127.0.0.1:{grpc_port}")
    facade = replace_flag(facade, "shutdown-delay-duration", "0s")
    async with (
        run_gateway(_locally(core, hub), directory=tmp_path) as core_process,
        run_gateway([*facade, "--bind-address=127.0.0.1"], directory=tmp_path) as facade_process,
    ):
        await facade_process.wait_ready(port)
        assert await facade_process.stop() == 0
        assert await core_process.stop() == 0


def _with_files(arguments: list[str], directory: Path, mounts: dict[str, str]) -> list[str]:
    for mount, folder in mounts.items():
        arguments = [argument.replace(mount, str(directory / "certificates" / folder)) for argument in arguments]
    return arguments


async def test_published_command_line_serves_with_a_certificate_of_its_own(tmp_path: Path, hub: ControlPlane) -> None:
    _, *arguments = command_line(find(parse(_PUBLISHED.read_text()), "Deployment", "gateway-deployment"))
    (port,) = pick_free_ports(1)
    arguments = replace_flag(arguments, "secure-port", port)
    async with run_gateway(["apiserver", *_locally(arguments, hub)], directory=tmp_path) as gateway:
        await gateway.wait_ready(port)
        assert await gateway.stop() == 0
    assert (tmp_path / "apiserver.local.config" / "certificates" / "apiserver.crt").exists()
    assert "feature gates without effect in this version: APIPriorityAndFairness" in gateway.log.read_text()


async def test_published_rights_are_enough_to_be_ready_and_what_is_missing_is_said(
    tmp_path: Path, hub: ControlPlane
) -> None:
    """The original's manifests bind nothing that lets the gateway ask the hub for reviews."""
    documents = parse(_PUBLISHED.read_text())
    rights = [document for document in documents if document["apiVersion"].startswith("rbac")]
    result = await hub.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights).encode())
    assert result.exit_code == 0, result.stderr
    account = hub.write_kubeconfig(
        tmp_path / "account.kubeconfig", "system:serviceaccount:default:default", ["system:serviceaccounts"]
    )
    _, *arguments = command_line(find(documents, "Deployment", "gateway-deployment"))
    (port,) = pick_free_ports(1)
    arguments = [*replace_flag(arguments, "secure-port", port), "--bind-address=127.0.0.1"]
    async with run_gateway(["apiserver", *arguments, f"--kubeconfig={account}"], directory=tmp_path) as gateway:
        await gateway.wait_ready(port)
        async with open_session(port) as session:
            async with session.get("/apis/cluster.core.oam.dev/v1alpha1/clustergateways") as response:
                refusal = (response.status, await response.text())
            readiness = await _readiness_that_says("system:auth-delegator", session)
        assert await gateway.stop() == 0
    assert refusal[0] == HTTPStatus.SERVICE_UNAVAILABLE, refusal
    assert readiness == HTTPStatus.OK
    for said in (refusal[1], gateway.log.read_text()):
        assert "system:auth-delegator" in said


async def _readiness_that_says(text: str, session: aiohttp.ClientSession) -> int:
    """Ask until the facade has heard from the core what is missing; returns the status."""
    async with asyncio.timeout(_NOTICE_SECONDS):
        while True:
            async with session.get("/readyz?verbose") as response:
                if text in await response.text():
                    return response.status
            await asyncio.sleep(_POLL_SECONDS)
