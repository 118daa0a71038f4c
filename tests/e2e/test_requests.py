"""What kubectl does every day, through hub, facade and core, at each cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.support.gateway import proxy_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl


def config_map(name: str, *, labels: dict[str, str] | None = None, **data: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels or {}},
        "data": data,
    }


@pytest.fixture
async def settings(kubectl: Kubectl) -> AsyncIterator[str]:
    """Name of a ConfigMap with `colour: red`."""
    await kubectl.apply(config_map("settings", colour="red"))
    yield "settings"
    await kubectl.ok("delete", "configmap", "settings", "--ignore-not-found")


async def test_an_object_is_that_of_the_cluster(kubectl: Kubectl, cluster_name: str, stage: Stage) -> None:
    through = await kubectl.get("pod", "pod1")
    direct = json.loads((await stage.managed[cluster_name].kubectl("get", "pod", "pod1", "-o", "json")).stdout)
    assert through == direct
    assert through["metadata"]["labels"] == {"cluster": cluster_name}


async def test_a_list_is_a_table_of_the_cluster(kubectl: Kubectl) -> None:
    head, row = (await kubectl.ok("get", "pods")).splitlines()
    assert head.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["pod1", "2/2", "Running", "0"]
    wide = (await kubectl.ok("get", "pods", "-A", "-o", "wide")).splitlines()[0].split()
    assert {"NAMESPACE", "NODE", "IP"} <= set(wide)


async def test_yaml_and_describe_show_the_object(kubectl: Kubectl) -> None:
    shown = yaml.safe_load(await kubectl.ok("get", "pod", "pod1", "-o", "yaml"))
    assert [container["name"] for container in shown["spec"]["containers"]] == ["main", "side"]
    described = await kubectl.ok("describe", "pod", "pod1")
    rows = dict(line.split(":", 1) for line in described.splitlines() if ":" in line and line[0] != " ")
    assert (rows["Name"].strip(), rows["Status"].strip()) == ("pod1", "Running")


async def test_what_a_cluster_answers_404_for_is_its_own_404(kubectl: Kubectl) -> None:
    result = await kubectl("get", "pod", "none")
    assert (result.exit_code, result.stderr) == (1, 'Error from server (NotFound): pods "none" not found\n')


async def test_apply_changes_what_it_created(kubectl: Kubectl, settings: str) -> None:
    await kubectl.apply(config_map(settings, colour="blue"))
    assert (await kubectl.get("configmap", settings))["data"] == {"colour": "blue"}


async def test_server_side_apply_refuses_a_conflict_until_forced(kubectl: Kubectl, settings: str) -> None:
    document = json.dumps(config_map(settings, colour="green")).encode()
    command = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    refused = await kubectl(*command, stdin=document)
    assert refused.exit_code == 1
    assert "conflict" in refused.stderr
    assert ".data.colour" in refused.stderr
    await kubectl.ok(*command, "--force-conflicts", stdin=document)
    assert (await kubectl.get("configmap", settings))["data"] == {"colour": "green"}


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("strategic", '{"data": {"colour": "blue"}}'),
        ("merge", '{"data": {"colour": "blue"}}'),
        ("json", '[{"op": "replace", "path": "/data/colour", "value": "blue"}]'),
    ],
)
async def test_each_kind_of_patch_is_understood(kubectl: Kubectl, settings: str, kind: str, patch: str) -> None:
    await kubectl.ok("patch", "configmap", settings, f"--type={kind}", f"--patch={patch}")
    assert (await kubectl.get("configmap", settings))["data"] == {"colour": "blue"}


async def test_delete_waits_until_the_object_is_gone(kubectl: Kubectl, settings: str) -> None:
    assert await kubectl.ok("delete", "configmap", settings) == 'configmap "settings" deleted from default namespace\n'
    assert (await kubectl("get", "configmap", settings)).exit_code == 1


async def test_a_dry_run_at_the_server_creates_nothing(kubectl: Kubectl) -> None:
    printed = await kubectl.ok("create", "configmap", "dry", "--from-literal=a=b", "--dry-run=server")
    assert printed == "configmap/dry created (server dry run)\n"
    assert (await kubectl("get", "configmap", "dry")).exit_code == 1


async def test_selectors_with_odd_characters_arrive_as_written(kubectl: Kubectl) -> None:
    labels = {"example.com/tier_1.x": "a-b_c.D", "plain": ""}
    await kubectl.apply(config_map("odd", labels=labels), config_map("even", labels={"plain": "x"}))
    try:
        for selector in (
            "example.com/tier_1.x=a-b_c.D,plain=",
            "example.com/tier_1.x in (a-b_c.D, other),plain notin (x)",
            "plain,plain!=x",
        ):
            names = [item["metadata"]["name"] for item in (await kubectl.get("configmap", "-l", selector))["items"]]
            assert names == ["odd"], selector
        fields = "metadata.name=even,metadata.namespace!=kube-system"
        found = (await kubectl.get("configmap", "-A", "--field-selector", fields))["items"]
        assert [item["metadata"]["name"] for item in found] == ["even"]
    finally:
        await kubectl.ok("delete", "configmap", "odd", "even")


async def test_a_long_list_comes_in_pages_that_fit_together(kubectl: Kubectl) -> None:
    names = [f"page-{number}" for number in range(7)]
    await kubectl.apply(*(config_map(name, labels={"paged": "yes"}) for name in names))
    try:
        listed = await kubectl.ok("get", "configmap", "-l", "paged=yes", "--chunk-size=3", "-o", "name")
        assert listed.split() == [f"configmap/{name}" for name in names]
    finally:
        await kubectl.ok("delete", "configmap", "-l", "paged=yes")


async def test_the_cluster_says_what_the_gateway_may(kubectl: Kubectl) -> None:
    assert await kubectl.ok("auth", "can-i", "delete", "nodes") == "yes\n"
    assert "*.*" in await kubectl.ok("auth", "can-i", "--list")


async def test_the_gateway_acts_with_its_own_credential(kubectl: Kubectl, cluster_name: str) -> None:
    user = json.loads(await kubectl.ok("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    own = {"managed1": "cluster-gateway", "managed2": "system:serviceaccount:kube-system:cluster-gateway"}
    assert user["username"] == own[cluster_name]


async def test_discovery_and_explain_are_those_of_the_cluster(kubectl: Kubectl) -> None:
    resources = await kubectl.ok("api-resources", "-o", "name")
    assert {"pods", "deployments.apps", "leases.coordination.k8s.io"} <= set(resources.split())
    assert "clustergateways" not in resources
    assert "containers" in await kubectl.ok("explain", "pod.spec")


async def test_version_and_health_are_those_of_the_cluster(kubectl: Kubectl, cluster_name: str, stage: Stage) -> None:
    direct = await stage.managed[cluster_name].kubectl("get", "--raw", "/version")
    assert await kubectl.ok("get", "--raw", "/version") == direct.stdout
    assert await kubectl.ok("get", "--raw", "/readyz") == "ok"


async def test_protobuf_travels_unchanged(stage: Stage, gateway: Gateway, cluster_name: str) -> None:
    protobuf = "application/vnd.kubernetes.protobuf"
    path = proxy_path(cluster_name, "/api/v1/namespaces/default/pods/pod1")
    got = await stage.ask_hub(path, headers={"Accept": protobuf})
    assert (got.status, got.headers["content-type"], got.body[:4]) == (200, protobuf, b"k8s\0")
    assert b"pod1" in got.body
    put = await stage.ask_hub(path, method="PUT", body=got.body, headers={"Accept": protobuf, "Content-Type": protobuf})
    assert (put.status, put.body[:4]) == (200, b"k8s\0")


async def test_a_scale_and_a_status_subresource_are_reached(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "deployment", "web", "--image=none.invalid/none", "--replicas=0")
    try:
        await kubectl.ok("scale", "deployment", "web", "--replicas=2")
        assert (await kubectl.get("deployment", "web"))["spec"]["replicas"] == 2
        assert (await kubectl.get("deployment", "web", "--subresource=scale"))["spec"]["replicas"] == 2
    finally:
        await kubectl.ok("delete", "deployment", "web")
