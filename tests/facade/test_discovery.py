"""Discovery documents."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from cluster_gateway_facade.exchange import Answer, ApiRequest
from cluster_gateway_facade.handlers.discovery import discovery_documents

GROUP = "cluster.core.oam.dev"
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
VERSION = {"groupVersion": f"{GROUP}/v1alpha1", "version": "v1alpha1"}
PROXY_VERBS = ["create", "delete", "get", "patch", "update"]

LEGACY: dict[str, dict[str, Any]] = {
    "/api": {"kind": "APIVersions", "versions": [], "serverAddressByClientCIDRs": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": GROUP, "versions": [VERSION], "preferredVersion": VERSION}],
    },
    f"/apis/{GROUP}": {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [VERSION],
        "preferredVersion": VERSION,
    },
    f"/apis/{GROUP}/v1alpha1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/v1alpha1",
        "resources": [
            {
                "name": "clustergateways",
                "singularName": "clustergateway",
                "namespaced": False,
                "kind": "ClusterGateway",
                "verbs": ["get", "list"],
            },
            {
                "name": "clustergateways/proxy",
                "singularName": "",
                "namespaced": False,
                "kind": "ClusterGatewayProxyOptions",
                "verbs": PROXY_VERBS,
            },
        ],
    },
}


def kind(name: str) -> dict[str, str]:
    return {"group": GROUP, "version": "v1alpha1", "kind": name}


AGGREGATED_GROUP = {
    "metadata": {"name": GROUP},
    "versions": [
        {
            "version": "v1alpha1",
            "resources": [
                {
                    "resource": "clustergateways",
                    "responseKind": kind("ClusterGateway"),
                    "scope": "Cluster",
                    "singularResource": "clustergateway",
                    "verbs": ["get", "list"],
                    "subresources": [
                        {
                            "subresource": "proxy",
                            "responseKind": kind("ClusterGatewayProxyOptions"),
                            "verbs": PROXY_VERBS,
                        }
                    ],
                }
            ],
            "freshness": "Current",
        }
    ],
}


async def ask(path: str, **headers: str) -> Answer:
    request = ApiRequest(
        method="GET", path=path, headers={key.replace("_", "-"): value for key, value in headers.items()}
    )
    return await discovery_documents()[path].answer(request)


@pytest.mark.parametrize("path", LEGACY)
async def test_legacy_document(path: str) -> None:
    answer = await ask(path)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body) == LEGACY[path]


@pytest.mark.parametrize("path", LEGACY)
async def test_legacy_document_in_yaml(path: str) -> None:
    answer = await ask(path, Accept="application/yaml")
    assert answer.content_type == "application/yaml"
    assert yaml.safe_load(answer.body) == LEGACY[path]
    assert b"&id" not in answer.body


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (f"{V2},{V2BETA1},application/json", V2),
        (f"{V2BETA1},application/json", V2BETA1),
        (f"application/json,{V2}", V2),
        (f"application/vnd.kubernetes.protobuf;as=APIGroupDiscoveryList,{V2}", V2),
        (f"{V2};profile=nopeer", V2),
    ],
)
@pytest.mark.parametrize(("path", "items"), [("/apis", [AGGREGATED_GROUP]), ("/api", [])])
async def test_aggregated_document_says_its_form_in_the_content_type(
    accept: str, content_type: str, path: str, items: list[object]
) -> None:
    answer = await ask(path, Accept=accept)
    assert answer.content_type == content_type
    version = content_type.split("v=")[1].split(";", maxsplit=1)[0]
    assert json.loads(answer.body) == {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


async def test_group_document_has_no_aggregated_form() -> None:
    answer = await ask(f"/apis/{GROUP}", Accept=f"{V2},application/json")
    assert json.loads(answer.body)["kind"] == "APIGroup"
    assert answer.content_type == "application/json"


async def test_form_that_is_not_served_is_not_acceptable() -> None:
    answer = await ask("/apis", Accept="application/vnd.kubernetes.protobuf")
    assert answer.status == 406
    assert json.loads(answer.body)["reason"] == "NotAcceptable"


@pytest.mark.parametrize("accept", [V2, V2BETA1, "application/json"])
async def test_known_etag_is_not_sent_again(accept: str) -> None:
    first = await ask("/apis", Accept=accept)
    headers = dict(first.headers)
    again = await ask("/apis", Accept=accept, If_None_Match=headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert dict(again.headers)["ETag"] == headers["ETag"]
    assert headers["Vary"] == "Accept"


async def test_forms_have_different_etags() -> None:
    answers = [await ask("/apis", Accept=accept) for accept in (V2, V2BETA1, "application/json")]
    assert len({dict(answer.headers)["ETag"] for answer in answers}) == 3
