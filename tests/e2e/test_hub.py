"""The hub with a gateway in it: still a good Kubernetes, with clusters as objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml
from tests.support.gateway import GROUP, SECRET_NAMESPACE

from cluster_gateway.control_planes import wait_until

if TYPE_CHECKING:
    from tests.support.gateway import Stage
    from tests.support.kubectl import Kubectl


async def test_namespaces_come_and_go(admin: Kubectl) -> None:
    """An aggregated API whose discovery misbehaves keeps every namespace of the hub from being deleted."""
    await admin.ok("create", "namespace", "passing")
    await admin.ok("create", "configmap", "-n", "passing", "content")
    await admin.ok("delete", "namespace", "passing", "--timeout=30s")
    assert (await admin("get", "namespace", "passing")).exit_code == 1


async def test_namespaces_of_a_cluster_come_and_go(clusters: dict[str, Kubectl]) -> None:
    kubectl = clusters["managed1"]
    await kubectl.ok("create", "namespace", "passing")
    await kubectl.ok("delete", "namespace", "passing", "--timeout=30s")


async def test_clusters_are_listed_as_a_table(admin: Kubectl) -> None:
    head, *rows = (await admin.ok("get", "clustergateways")).splitlines()
    assert head.split()[0] == "NAME"
    found = {row.split()[0]: row for row in rows}
    assert {"managed1", "managed2"} <= set(found)
    assert "X509Certificate" in found["managed1"]
    assert "ServiceAccountToken" in found["managed2"]
    wide = (await admin.ok("get", "clustergateways", "managed1", "-o", "wide")).splitlines()
    assert len(wide) == 2


async def test_a_cluster_is_an_object(admin: Kubectl, stage: Stage) -> None:
    cluster = await admin.get("clustergateway", "managed1")
    assert (cluster["apiVersion"], cluster["kind"]) == (f"{GROUP}/v1alpha1", "ClusterGateway")
    assert cluster["metadata"]["name"] == "managed1"
    endpoint = cluster["spec"]["access"]["endpoint"]
    assert (endpoint["type"], endpoint["const"]["address"]) == ("Const", stage.managed["managed1"].url)
    assert cluster["spec"]["access"]["credential"]["type"] == "X509Certificate"
    shown = yaml.safe_load(await admin.ok("get", "clustergateway", "managed1", "-o", "yaml"))
    assert shown["spec"] == cluster["spec"]


async def test_clusters_are_chosen_by_label_and_field(admin: Kubectl) -> None:
    selector = f"{GROUP}/cluster-credential-type=ServiceAccountToken"
    by_label = await admin.get("clustergateways", "-l", selector)
    assert "managed2" in {item["metadata"]["name"] for item in by_label["items"]}
    assert "managed1" not in {item["metadata"]["name"] for item in by_label["items"]}
    by_field = await admin.get("clustergateways", "--field-selector=metadata.name=managed1")
    assert [item["metadata"]["name"] for item in by_field["items"]] == ["managed1"]


async def test_an_unknown_cluster_is_not_found(admin: Kubectl) -> None:
    result = await admin("get", "clustergateway", "unknown1")
    assert result.exit_code == 1
    assert result.stderr == f'Error from server (NotFound): clustergateways.{GROUP} "unknown1" not found\n'


async def test_the_schema_is_published(admin: Kubectl) -> None:
    """The hub fetches the documents from the gateway, in its own time, as a user without a group."""

    async def is_published() -> bool:
        paths = json.loads(await admin.ok("get", "--raw", "/openapi/v3"))["paths"]
        return f"apis/{GROUP}/v1alpha1" in paths

    await wait_until(is_published, what="the hub has the schema", timeout_seconds=30)
    explained = await admin.ok("explain", "clustergateways.spec.access")
    assert "credential" in explained
    assert "endpoint" in explained


async def test_the_api_service_is_available(admin: Kubectl) -> None:
    service = await admin.get("apiservice", f"v1alpha1.{GROUP}")
    conditions = {item["type"]: item["status"] for item in service["status"]["conditions"]}
    assert conditions["Available"] == "True"


async def test_the_gateway_has_no_right_beyond_its_manifest(stage: Stage, admin: Kubectl) -> None:
    gateway = stage.kubectl_at(stage.hub.url, stage.hub.ca_path, _token(stage))
    for allowed in (("list", "secrets", "-n", SECRET_NAMESPACE), ("create", "tokenreviews")):
        assert (await gateway("auth", "can-i", *allowed)).stdout.strip() == "yes"
    for refused in (
        ("list", "secrets", "-A"),
        ("get", "secrets", "-n", "kube-system"),
        ("update", "secrets", "-n", SECRET_NAMESPACE),
        ("list", "pods", "-A"),
        ("impersonate", "users"),
        ("get", f"clustergateways.{GROUP}"),
    ):
        assert (await gateway("auth", "can-i", *refused)).stdout.strip() == "no", refused


def _token(stage: Stage) -> str:
    (user,) = json.loads(stage.gateway_kubeconfig.read_text())["users"]
    return str(user["user"]["token"])
