"""OpenAPI documents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cluster_gateway_facade.exchange import Answer, ApiRequest
from cluster_gateway_facade.handlers.openapi import openapi_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "com.github.oam-dev.cluster-gateway.pkg.apis.cluster.v1alpha1"
GROUP_PATH = "/openapi/v3/apis/cluster.core.oam.dev/v1alpha1"
COLLECTION = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways"
REQUIRED = {
    "ClusterGateway": None,
    "ClusterGatewayList": ["items"],
    "ClusterGatewaySpec": ["provider", "access"],
    "ClusterAccess": ["endpoint"],
    "ClusterEndpoint": ["type"],
    "ClusterEndpointConst": ["address"],
    "ClusterAccessCredential": ["type"],
    "ClusterGatewayStatus": ["healthy"],
    "ClusterGatewayProxyOptions": ["path", "impersonate"],
}


async def ask(path: str, *query: tuple[str, str], **headers: str) -> Answer:
    request = ApiRequest(
        method="GET",
        path=path,
        query=query,
        headers={key.replace("_", "-"): value for key, value in headers.items()},
    )
    return await openapi_documents()[path].answer(request)


async def read(path: str) -> dict[str, Any]:
    answer = await ask(path)
    assert (answer.status, answer.content_type) == (200, "application/json")
    document: dict[str, Any] = json.loads(answer.body)
    return document


async def read_definitions(path: str) -> dict[str, Any]:
    document = await read(path)
    definitions: dict[str, Any] = document.get("definitions") or document["components"]["schemas"]
    return definitions


def values_of(key: str, node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key and isinstance(value, str):
                yield value
            yield from values_of(key, value)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(key, value)


@pytest.mark.parametrize("path", ["/openapi/v2", GROUP_PATH])
async def test_definitions_have_the_names_and_required_fields_of_the_original(path: str) -> None:
    definitions = await read_definitions(path)
    assert {name: definitions[f"{PACKAGE}.{name}"].get("required") for name in REQUIRED} == REQUIRED


@pytest.mark.parametrize("path", ["/openapi/v2", GROUP_PATH])
async def test_every_reference_leads_to_a_definition(path: str) -> None:
    document = await read(path)
    prefix = "#/definitions/" if path == "/openapi/v2" else "#/components/schemas/"
    defined = {prefix + name for name in await read_definitions(path)}
    assert set(values_of("$ref", document)) <= defined


@pytest.mark.parametrize("path", ["/openapi/v2", GROUP_PATH])
async def test_served_kinds_name_themselves(path: str) -> None:
    definitions = await read_definitions(path)
    for kind in ("ClusterGateway", "ClusterGatewayList", "ClusterGatewayProxyOptions"):
        assert definitions[f"{PACKAGE}.{kind}"]["x-kubernetes-group-version-kind"] == [
            {"group": "cluster.core.oam.dev", "version": "v1alpha1", "kind": kind}
        ]


@pytest.mark.parametrize("path", ["/openapi/v2", GROUP_PATH])
async def test_no_schema_promises_a_credential(path: str) -> None:
    definitions = await read_definitions(path)
    assert list(definitions[f"{PACKAGE}.ClusterAccessCredential"]["properties"]) == ["type"]


@pytest.mark.parametrize("path", ["/openapi/v2", GROUP_PATH])
async def test_paths_describe_reads_and_the_proxy(path: str) -> None:
    document = await read(path)
    paths = document["paths"]
    assert set(paths) == {
        COLLECTION,
        f"{COLLECTION}/{{name}}",
        f"{COLLECTION}/{{name}}/proxy",
        f"{COLLECTION}/{{name}}/proxy/{{path}}",
    }
    assert paths[COLLECTION]["get"]["x-kubernetes-action"] == "list"
    assert paths[f"{COLLECTION}/{{name}}"]["get"]["x-kubernetes-action"] == "get"
    proxy = paths[f"{COLLECTION}/{{name}}/proxy/{{path}}"]
    assert set(proxy) == {"get", "put", "post", "delete", "options", "head", "patch", "parameters"}
    assert set(values_of("x-kubernetes-action", proxy)) == {"connect"}
    identifiers = list(values_of("operationId", document))
    assert len(identifiers) == len(set(identifiers)) == 16


async def test_root_names_the_group_version_by_its_hash() -> None:
    root = await read("/openapi/v3")
    url = root["paths"]["apis/cluster.core.oam.dev/v1alpha1"]["serverRelativeURL"]
    path, _, query = url.partition("?hash=")
    etag = dict((await ask(GROUP_PATH)).headers)["ETag"]
    assert (path, f'"{query}"') == (GROUP_PATH, etag)


async def test_document_asked_for_by_its_hash_may_be_kept_for_ever() -> None:
    etag = dict((await ask(GROUP_PATH)).headers)["ETag"]
    headers = dict((await ask(GROUP_PATH, ("hash", etag.strip('"')))).headers)
    assert headers["Cache-Control"] == "public, immutable"
    assert headers["Expires"].endswith("GMT")


async def test_stale_hash_is_answered_with_the_current_document_to_be_kept_by_nobody() -> None:
    answer = await ask(GROUP_PATH, ("hash", "OLD"))
    assert (answer.status, answer.body) == (200, (await ask(GROUP_PATH)).body)
    assert dict(answer.headers)["Cache-Control"] == "no-cache, private"
    assert "Expires" not in dict(answer.headers)


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3", GROUP_PATH])
async def test_known_etag_is_not_sent_again(path: str) -> None:
    etag = dict((await ask(path)).headers)["ETag"]
    answer = await ask(path, If_None_Match=f'"other", W/{etag}')
    assert (answer.status, answer.body) == (304, b"")


@pytest.mark.parametrize(
    ("accept", "code"),
    [
        ("application/json", 200),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 406),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf,*/*", 200),
    ],
)
async def test_only_json_is_served(accept: str, code: int) -> None:
    assert (await ask("/openapi/v2", Accept=accept)).status == code
