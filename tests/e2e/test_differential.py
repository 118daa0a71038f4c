"""Hundreds of requests, each straight at a real cluster and by both ways through the gateway: equal answers."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Final

import pytest
from tests.support.differential import Ask, Way, compare, open_ways
from tests.support.gateway import proxy_path
from tests.support.routes import way_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_CLUSTER: Final = "managed1"
_CORE: Final = "/api/v1"
_DEFAULT: Final = "/api/v1/namespaces/default"
_JSON: Final = "Content-Type: application/json"

HEADERS_OF_THE_HUB: Final = frozenset(
    {"x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid", "cache-control"}
)

_OBJECTS: Final = (
    f"{_CORE}/namespaces/default",
    f"{_CORE}/nodes/node1",
    f"{_DEFAULT}/pods/pod1",
    f"{_DEFAULT}/configmaps/differential",
    f"{_DEFAULT}/services/kubernetes",
    f"{_DEFAULT}/serviceaccounts/default",
    "/apis/apps/v1/namespaces/default/deployments/differential",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
    "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps",
    "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt",
)
_LISTS: Final = (
    f"{_CORE}/namespaces",
    f"{_CORE}/nodes",
    f"{_CORE}/pods",
    f"{_DEFAULT}/pods",
    f"{_DEFAULT}/configmaps",
    f"{_DEFAULT}/secrets",
    f"{_CORE}/serviceaccounts",
    "/apis/apps/v1/deployments",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/apiregistration.k8s.io/v1/apiservices",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
    "/apis/storage.k8s.io/v1/storageclasses",
)
_ACCEPTS: Final = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v9;g=meta.k8s.io",
    "text/plain",
    "*/*",
)
_RAW: Final = (
    "/", "/api", "/apis", "/api/", "/apis/", "/api/v1", "/api/v1/", "/apis/apps", "/apis/apps/", "/apis/apps/v1",
    "/apis/none.example", "/apis/apps/v9", "/version", "/version/", "/healthz", "/healthz/ping", "/livez",
    "/readyz/etcd", "/livez/none", "/healthz?verbose", "/openapi/v3", "/openapi/v3/version",
    "/.well-known/openid-configuration", "/openid/v1/jwks", "/none", "/none/", "/apis/apps/v1/none", "/api/v1/none/x",
    "/logs", "/debug/pprof", "/api/v1/namespaces/none", f"{_DEFAULT}/pods/none", f"{_DEFAULT}/pods/", "/ui",
    "/robots.txt",
)  # fmt: skip
_QUERIES: Final = (
    f"{_CORE}/namespaces?limit=1",
    f"{_CORE}/namespaces?limit=2&resourceVersion=0",
    f"{_CORE}/namespaces?resourceVersion=0",
    f"{_CORE}/namespaces?resourceVersion=1&resourceVersionMatch=Exact",
    f"{_CORE}/namespaces?resourceVersion=no-number",
    f"{_CORE}/namespaces?continue=no-token",
    f"{_CORE}/namespaces?limit=no-number",
    f"{_CORE}/namespaces?pretty=true",
    f"{_CORE}/namespaces?pretty",
    f"{_CORE}/namespaces?labelSelector=kubernetes.io%2Fmetadata.name%3Ddefault",
    f"{_CORE}/namespaces?labelSelector=kubernetes.io/metadata.name+in+(default,kube-system)",
    f"{_CORE}/namespaces?labelSelector=a%3Db%2Cc%21%3Dd%2C%21e",
    f"{_CORE}/namespaces?labelSelector=%3D%3D",
    f"{_CORE}/namespaces?labelSelector=a&labelSelector=kubernetes.io%2Fmetadata.name",
    f"{_CORE}/namespaces?fieldSelector=metadata.name%3Ddefault",
    f"{_CORE}/namespaces?fieldSelector=metadata.name!=default,status.phase=Active",
    f"{_CORE}/namespaces?fieldSelector=none%3Dx",
    f"{_CORE}/namespaces?limit=1&limit=2",
    f"{_CORE}/namespaces?none=%e2%82%ac&none=",
    f"{_CORE}/namespaces?timeoutSeconds=no-number",
    f"{_CORE}/namespaces?timeout=1x",
    f"{_CORE}/pods?fieldSelector=spec.nodeName%3Dnode1&limit=500",
    f"{_CORE}/namespaces/de%66ault",
    f"{_DEFAULT}/configmaps/different%69al",
    f"{_DEFAULT}/configmaps/a%20b",
    f"{_DEFAULT}/configmaps/%E2%82%AC",
    f"{_DEFAULT}/configmaps/%C3%28",
    f"{_DEFAULT}/configmaps/differential?pretty=1&none=%2F%2f",
    f"{_DEFAULT}/pods/pod1/status",
    f"{_DEFAULT}/pods/pod1/log",
    f"{_DEFAULT}/pods/pod1/log?container=main&tailLines=1",
    f"{_DEFAULT}/pods/pod1/log?container=none",
    f"{_DEFAULT}/pods/pod1/none",
    f"{_DEFAULT}/pods/pod1/exec",
    f"{_DEFAULT}/pods/pod1/exec?command=true&container=main",
    f"{_DEFAULT}/pods/pod1/attach?container=main",
    f"{_DEFAULT}/pods/pod1/portforward?ports=1",
    f"{_DEFAULT}/pods/none/exec?command=true",
    f"{_DEFAULT}/services/none/proxy/",
    "/apis/apps/v1/namespaces/default/deployments/differential/scale",
    "/apis/apps/v1/namespaces/default/deployments/differential/status",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector=kubernetes.io%2Fbootstrapping%3Drbac-defaults&limit=5",
)
_WATCHES: Final = (
    f"{_DEFAULT}/configmaps?watch=1&fieldSelector=metadata.name%3Ddifferential&timeoutSeconds=1",
    f"{_DEFAULT}/configmaps?watch=true&fieldSelector=metadata.name%3Ddifferential&timeoutSeconds=1&resourceVersion=0",
    f"{_DEFAULT}/configmaps?watch=0&fieldSelector=metadata.name%3Ddifferential",
    f"{_DEFAULT}/configmaps/differential?watch=1&timeoutSeconds=1",
    "/api/v1/watch/namespaces/default/configmaps/differential?timeoutSeconds=1",
    f"{_DEFAULT}/configmaps?watch=1&resourceVersion=no-number",
    f"{_DEFAULT}/configmaps?watch=1&sendInitialEvents=true&timeoutSeconds=1",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dcluster-admin",
)
_WATCH_ACCEPTS: Final = (
    "application/json",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/json;as=Table;v=v1;g=meta.k8s.io;includeObject=Metadata",
    "application/cbor-seq",
)


def config_map(name: str = "made", **more: object) -> bytes:
    meta = {"name": name}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "b"}, **more}).encode()


def reads() -> list[Ask]:
    """Requests whose answers a quiet cluster repeats byte for byte."""
    combined = [
        Ask(target=target, headers=(f"Accept: {accept}",))
        for target, accept in itertools.product((*_OBJECTS, *_LISTS), _ACCEPTS)
    ]
    # Without a word on encodings the hub asks for gzip by itself, and unpacks it.
    schemas = [
        Ask(target=target, headers=("Accept-Encoding: identity",))
        for target in ("/openapi/v2", "/openapi/v3/apis/apps/v1", "/openapi/v3/api/v1")
    ]
    packed = [
        Ask(target=target, headers=("Accept-Encoding: gzip",))
        for target in (*_LISTS, "/openapi/v2", "/openapi/v3", "/version")
    ]
    watched = [
        Ask(target=target, headers=(f"Accept: {accept}",))
        for target, accept in itertools.product(_WATCHES, _WATCH_ACCEPTS)
    ]
    heads = [Ask(method="HEAD", target=target) for target in (*_OBJECTS, "/version", "/healthz", "/none")]
    options = [Ask(method="OPTIONS", target=target) for target in ("/", "/api/v1", f"{_DEFAULT}/pods")]
    plain = [Ask(target=target) for target in (*_RAW, *_QUERIES)]
    # These tell counters, or the version that the cluster has reached.
    telling = ("/metrics", "/metrics/slis", f"{_CORE}/namespaces?resourceVersion=99999999999")
    moving = [Ask(target=target, compare_body=False) for target in telling]
    cached = [
        Ask(target=target, headers=('If-None-Match: "x"', "Accept-Encoding: gzip"))
        for target in ("/openapi/v2", "/openapi/v3")
    ]
    return [*watched, *combined, *schemas, *packed, *heads, *options, *plain, *moving, *cached]


def dry_runs() -> list[Ask]:
    """Writes that change nothing, and writes that are refused."""
    maps, one = f"{_DEFAULT}/configmaps", f"{_DEFAULT}/configmaps/differential"
    deployment = "/apis/apps/v1/namespaces/default/deployments/differential"
    dry = "dryRun=All"
    merge, strategic, json_patch = (
        f"Content-Type: application/{kind}-patch+json" for kind in ("merge", "strategic-merge", "json")
    )
    apply_yaml = "Content-Type: application/apply-patch+yaml"
    patch, ops = b'{"data":{"c":"d"}}', b'[{"op":"add","path":"/data/c","value":"d"}]'
    applied = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: differential}\ndata: {c: d}\n"
    scale = {"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 3}}
    scale["metadata"] = {"name": "differential", "namespace": "default"}
    eviction = (
        b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"pod1"},"deleteOptions":{"dryRun":["All"]}}'
    )
    spec = {"nonResourceAttributes": {"path": "/x", "verb": "get"}}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    review = json.dumps({**kind, "spec": spec}).encode()

    def write(method: str, target: str, body: bytes = b"", *headers: str) -> Ask:
        return Ask(method=method, target=target, headers=headers, body=body, writes=True)

    large = {"name": "a", "image": "none.invalid/none", "env": [{"name": "A", "value": "x" * 2_900_000}]}
    large_pod = {"metadata": {"name": "large"}, "spec": {"containers": [large]}}
    return [
        write("POST", f"{_DEFAULT}/pods?{dry}", json.dumps(large_pod).encode(), _JSON, "Accept-Encoding: identity"),
        write("POST", f"{maps}?{dry}", config_map(), _JSON),
        write("POST", f"{maps}?{dry}&fieldManager=x&fieldValidation=Strict", config_map(), _JSON),
        write("POST", f"{maps}?{dry}&fieldValidation=Strict", config_map(none=1), _JSON),
        write("POST", f"{maps}?{dry}&fieldValidation=Warn", config_map(none=1), _JSON),
        write("POST", f"{maps}?{dry}&fieldValidation=Wrong", config_map(), _JSON),
        write("POST", f"{maps}?{dry}", config_map(), "Content-Type: application/yaml"),
        write("POST", f"{maps}?{dry}", config_map(), "Content-Type: application/vnd.kubernetes.protobuf"),
        write("POST", f"{maps}?{dry}", config_map(), "Content-Type: text/plain"),
        write("POST", f"{maps}?{dry}", config_map()),
        write("POST", f"{maps}?{dry}", b"{", _JSON),
        write("POST", f"{maps}?{dry}", b"", _JSON),
        write("POST", f"{maps}?{dry}", config_map("Bad_Name"), _JSON),
        write("POST", f"{maps}?{dry}", config_map("differential"), _JSON),
        write("POST", f"{maps}?dryRun=Some", config_map(), _JSON),
        write("POST", f"{maps}?{dry}&{dry}", config_map(), _JSON),
        write("POST", "/api/v1/namespaces/none/configmaps?dryRun=All", config_map(), _JSON),
        write("PUT", f"{one}?{dry}", config_map("differential"), _JSON),
        write("PUT", f"{one}?{dry}", config_map("other"), _JSON),
        write("PUT", f"{maps}/none?{dry}", config_map("none"), _JSON),
        write("PATCH", f"{one}?{dry}", patch, merge),
        write("PATCH", f"{one}?{dry}", patch, strategic),
        write("PATCH", f"{one}?{dry}", ops, json_patch),
        write("PATCH", f"{one}?{dry}", b'[{"op":"test","path":"/data/a","value":"x"}]', json_patch),
        write("PATCH", f"{one}?{dry}&fieldManager=x", applied, apply_yaml),
        write("PATCH", f"{one}?{dry}&fieldManager=x&force=true", applied.replace(b"c: d", b"a: d"), apply_yaml),
        write("PATCH", f"{one}?{dry}&fieldManager=x", applied.replace(b"c: d", b"a: d"), apply_yaml),
        write("PATCH", f"{one}?{dry}", applied, apply_yaml),
        write("PATCH", f"{one}?{dry}", patch, _JSON),
        write("PATCH", f"{maps}/none?{dry}", patch, merge),
        write("DELETE", f"{one}?{dry}"),
        write("DELETE", one, b'{"apiVersion":"v1","kind":"DeleteOptions","dryRun":["All"]}', _JSON),
        write(
            "DELETE", f"{one}?{dry}", b'{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"x"}}', _JSON
        ),
        write("DELETE", f"{maps}/none?{dry}"),
        write("DELETE", f"{maps}?{dry}&labelSelector=none%3Dnone"),
        write("PUT", f"{deployment}/scale?{dry}", json.dumps(scale).encode(), _JSON),
        write("PATCH", f"{deployment}/scale?{dry}", b'{"spec":{"replicas":2}}', merge),
        write("PATCH", f"{deployment}/status?{dry}", b'{"status":{"replicas":0}}', merge),
        write("POST", f"{_DEFAULT}/pods/pod1/eviction?{dry}", eviction, _JSON),
        write("POST", f"{_DEFAULT}/serviceaccounts/default/token", b'{"spec":{"audiences":["x"]}}', _JSON),
        write("POST", f"{_DEFAULT}/pods/pod1/binding?{dry}", b'{"target":{"name":"node1"}}', _JSON),
        write("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, _JSON),
        write(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, _JSON, "Accept: application/yaml"
        ),
        write("POST", f"{one}?{dry}", config_map(), _JSON),
        write("PUT", f"{maps}?{dry}", config_map(), _JSON),
        write("POST", "/version", b"{}", _JSON),
        write("POST", "/none", b"{}", _JSON),
    ]


@pytest.fixture
async def ways(stage: Stage, gateway: Gateway, clusters: dict[str, Kubectl]) -> AsyncIterator[list[Way]]:
    """Straight, with the identity that the gateway has there; at the facade; through the hub."""
    plane = stage.managed[_CLUSTER]
    pair = plane.issue_client_certificate("cluster-gateway", ["system:masters"])
    found = [Way(name="direct", port=plane.port, tls=stage.ssl_context(plane.ca_path, pair))]
    for name in ("facade", "hub"):
        port, tls, identity = way_in(stage, gateway, name)
        found.append(Way(name=name, port=port, tls=tls, identity=identity, prefix=proxy_path(_CLUSTER)))
    kubectl = clusters[_CLUSTER]
    await kubectl.ok("create", "configmap", "differential", "--from-literal=a=b")
    await kubectl.ok("create", "deployment", "differential", "--image=none.invalid/none", "--replicas=0")
    try:
        async with open_ways(*found):
            yield found
    finally:
        await kubectl.ok("delete", "deployment/differential", "configmap/differential")


@pytest.mark.parametrize("asks", [reads(), dry_runs()], ids=["reads", "dry-runs"])
async def test_answers_are_those_of_the_cluster(
    ways: list[Way], asks: list[Ask], record_property: pytest.RecordProperty
) -> None:
    """RT-32, RT-33 (a create of nearly 3 MiB): status, headers save the stated few, and body are equal by every way."""
    direct, *others = ways
    differences = await compare(asks, direct, others, of_the_way={"hub": HEADERS_OF_THE_HUB})
    print(f"{len(asks)} requests compared by {len(others)} ways")  # noqa: T201 - the count is part of the result
    assert not differences, "\n".join(str(difference) for difference in differences)
