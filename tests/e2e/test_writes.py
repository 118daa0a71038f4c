"""Every kind of write does at a real cluster what it says, by both ways through the gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.differential import Ask, Way, open_ways
from tests.support.gateway import proxy_path
from tests.support.routes import way_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_CLUSTER = "managed1"
_DEFAULT = "/api/v1/namespaces/default"
_MAP = f"{_DEFAULT}/configmaps/written"


@pytest.fixture(params=["facade", "hub"])
async def way(request: pytest.FixtureRequest, stage: Stage, gateway: Gateway) -> AsyncIterator[Way]:
    port, tls, identity = way_in(stage, gateway, str(request.param))
    way = Way(name=str(request.param), port=port, tls=tls, identity=identity, prefix=proxy_path(_CLUSTER))
    async with open_ways(way):
        yield way


@pytest.fixture
async def cleared(clusters: dict[str, Kubectl]) -> AsyncIterator[Kubectl]:
    """Kubectl of the cluster, from which what the test made is deleted in the end."""
    kubectl = clusters[_CLUSTER]
    yield kubectl
    objects = ("configmap/written", "deployment/written", "pod/written")
    await kubectl.ok("delete", "--ignore-not-found", "--force", "--grace-period=0", *objects)


async def write(way: Way, method: str, target: str, body: Any, kind: str = "json", *, status: int = 200) -> Any:
    """Send an object or a patch, expect a status, and return what came."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = (f"Content-Type: application/{kind}",)
    response = await way.ask(Ask(method=method, target=target, headers=headers, body=data))
    assert response.status == status, response
    return response.json()


async def read(way: Way, target: str) -> Any:
    response = await way.ask(Ask(target=target))
    assert response.status == 200, response
    return response.json()


async def test_each_kind_of_patch_and_apply_changes_the_object(way: Way, cleared: Kubectl) -> None:
    """RT-32: create, merge, strategic merge, JSON patch, server-side apply with a conflict and by force."""
    meta = {"name": "written"}
    await write(way, "POST", f"{_DEFAULT}/configmaps", {"metadata": meta, "data": {"a": "1"}}, status=201)
    await write(way, "PATCH", _MAP, {"data": {"b": "2"}}, "merge-patch+json")
    await write(way, "PATCH", _MAP, {"data": {"c": "3"}}, "strategic-merge-patch+json")
    await write(way, "PATCH", _MAP, [{"op": "remove", "path": "/data/a"}], "json-patch+json")
    assert (await read(way, _MAP))["data"] == {"b": "2", "c": "3"}
    applied = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: written}\ndata: {b: '4'}\n"
    conflict = await write(way, "PATCH", f"{_MAP}?fieldManager=other", applied, "apply-patch+yaml", status=409)
    assert conflict["reason"] == "Conflict"
    await write(way, "PATCH", f"{_MAP}?fieldManager=other&force=true", applied, "apply-patch+yaml")
    assert (await read(way, _MAP))["data"] == {"b": "4", "c": "3"}


async def test_scale_changes_the_replicas(way: Way, cleared: Kubectl) -> None:
    """RT-32."""
    await cleared.ok("create", "deployment", "written", "--image=none.invalid/none", "--replicas=0")
    scale = "/apis/apps/v1/namespaces/default/deployments/written/scale"
    found = await read(way, scale)
    # Without a version: the Deployment's controller writes its status meanwhile.
    named = {key: found["metadata"][key] for key in ("name", "namespace")}
    await write(way, "PUT", scale, {**found, "metadata": named, "spec": {"replicas": 1}})
    await write(way, "PATCH", scale, {"spec": {"replicas": 2}}, "merge-patch+json")
    assert (await cleared.get("deployment", "written"))["spec"]["replicas"] == 2


async def test_token_request_gives_a_token_that_the_cluster_accepts(way: Way, cleared: Kubectl) -> None:
    """RT-32."""
    target = f"{_DEFAULT}/serviceaccounts/default/token"
    token = (await write(way, "POST", target, {"spec": {"expirationSeconds": 600}}, status=201))["status"]["token"]
    review = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}}
    answer = await write(way, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", review, status=201)
    assert answer["status"]["user"]["username"] == "system:serviceaccount:default:default"


async def test_pod_is_bound_and_evicted(way: Way, cleared: Kubectl) -> None:
    """RT-32."""
    spec = {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none.invalid/none"}]}
    await write(way, "POST", f"{_DEFAULT}/pods", {"metadata": {"name": "written"}, "spec": spec}, status=201)
    pod = f"{_DEFAULT}/pods/written"
    binding = {"metadata": {"name": "written"}, "target": {"kind": "Node", "name": "node1"}}
    await write(way, "POST", f"{pod}/binding", binding, status=201)
    assert (await read(way, pod))["spec"]["nodeName"] == "node1"
    options = {"metadata": {"name": "written"}, "deleteOptions": {"gracePeriodSeconds": 0}}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", **options}
    await write(way, "POST", f"{pod}/eviction", eviction, status=201)
    assert (await way.ask(Ask(target=pod))).status == 404
