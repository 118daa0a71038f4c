"""ClusterGateway objects in every form."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml
from tests.support.cluster_reader import FakeClusterReader, make_cluster

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade.exchange import Answer, ApiRequest
from cluster_gateway_facade.handlers.objects import ClusterObjects
from clustergateway.access.v1.user_info_pb2 import UserInfo
from clustergateway.registry.v1.cluster_pb2 import (
    CREDENTIAL_TYPE_DYNAMIC,
    CREDENTIAL_TYPE_SERVICE_ACCOUNT_TOKEN,
    ENDPOINT_TYPE_CLUSTER_PROXY,
    ENDPOINT_TYPE_CONST,
    Endpoint,
    Health,
)

COLLECTION = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways"
METADATA = {
    "name": "a",
    "uid": "uid-a",
    "resourceVersion": "7",
    "creationTimestamp": "2025-01-01T00:00:00Z",
    "labels": {"region": "eu"},
}
CONTENT: dict[str, Any] = {
    "metadata": METADATA,
    "spec": {
        "provider": "",
        "access": {
            "endpoint": {
                "type": "Const",
                "const": {
                    "address": "https://a.example:6443",
                    "caBundle": base64.b64encode(b"---").decode(),
                },
            },
            "credential": {"type": "X509Certificate"},
        },
    },
    "status": {"healthy": True},
}
WHOLE = {"kind": "ClusterGateway", "apiVersion": "cluster.core.oam.dev/v1alpha1", **CONTENT}
COLUMNS = [
    ("Name", "string", "name", "the name of the cluster"),
    ("Provider", "string", "", "the cluster provider type"),
    ("Credential-Type", "string", "", "the credential type"),
    ("Endpoint-Type", "string", "", "the endpoint type"),
    ("Healthy", "string", "", "the healthiness of the gateway"),
]


@pytest.fixture
def reader() -> FakeClusterReader:
    return FakeClusterReader(make_cluster("a"), make_cluster("b"), make_cluster("c"))


def request(*query: tuple[str, str], accept: str = "application/json", agent: str = "") -> ApiRequest:
    headers = {"Accept": accept, "User-Agent": agent}
    return ApiRequest(method="GET", path=COLLECTION, query=query, headers=headers, user=UserInfo(username="ann"))


def read(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.body)
    return document


async def get(reader: FakeClusterReader, asked: ApiRequest, name: str = "a") -> Answer:
    return await ClusterObjects(reader=reader).get(asked, name)


async def list_(reader: FakeClusterReader, asked: ApiRequest) -> Answer:
    return await ClusterObjects(reader=reader).list(asked)


async def test_get_answers_the_whole_object(reader: FakeClusterReader) -> None:
    answer = await get(reader, request())
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert read(answer) == WHOLE
    assert reader.calls == [("get", "a", "ann")]


async def test_object_in_yaml_reads_back_the_same(reader: FakeClusterReader) -> None:
    answer = await get(reader, request(accept="application/yaml"))
    assert answer.content_type == "application/yaml"
    assert yaml.safe_load(answer.body) == WHOLE


@pytest.mark.parametrize(
    ("query", "agent", "pretty"),
    [
        ([], "", False),
        ([], "curl/8", True),
        ([("pretty", "true")], "", True),
        ([("pretty", "false")], "curl/8", False),
    ],
)
async def test_json_is_indented_for_people(
    reader: FakeClusterReader, query: list[tuple[str, str]], agent: str, *, pretty: bool
) -> None:
    answer = await get(reader, request(*query, agent=agent))
    assert (b"\n  " in answer.body) is pretty
    assert read(answer) == WHOLE


async def test_list_items_carry_no_kind(reader: FakeClusterReader) -> None:
    document = read(await list_(reader, request()))
    assert (document["kind"], document["apiVersion"]) == (
        "ClusterGatewayList",
        "cluster.core.oam.dev/v1alpha1",
    )
    assert document["metadata"] == {"resourceVersion": "42"}
    assert document["items"][0] == CONTENT
    assert [item["metadata"]["name"] for item in document["items"]] == ["a", "b", "c"]


async def test_empty_list_has_items() -> None:
    assert read(await list_(FakeClusterReader(), request()))["items"] == []


async def test_list_goes_on_where_the_last_page_ended(reader: FakeClusterReader) -> None:
    first = read(await list_(reader, request(("limit", "2"))))
    assert first["metadata"] == {"resourceVersion": "42", "continue": "b", "remainingItemCount": 1}
    second = read(await list_(reader, request(("limit", "2"), ("continue", "b"))))
    assert second["metadata"] == {"resourceVersion": "42"}
    assert [item["metadata"]["name"] for item in second["items"]] == ["c"]


async def test_label_selector_goes_to_the_core(reader: FakeClusterReader) -> None:
    await list_(reader, request(("labelSelector", "region in (eu)"), ("limit", "99999999999")))
    assert reader.calls == [("list", "region in (eu)", 2**31 - 1, "", "ann")]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=b", ["b"]),
        ("metadata.name==b", ["b"]),
        ("metadata.name!=b", ["a", "c"]),
        ("metadata.name!=a,metadata.name!=b", ["c"]),
        ("metadata.namespace=", ["a", "b", "c"]),
        ("metadata.namespace=x", []),
        ("", ["a"]),
    ],
)
async def test_field_selector(reader: FakeClusterReader, selector: str, names: list[str]) -> None:
    document = read(await list_(reader, request(("fieldSelector", selector), ("limit", "1"))))
    assert [item["metadata"]["name"] for item in document["items"]] == names


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (("fieldSelector", "spec.provider=x"), "field label not supported: spec.provider"),
        (("fieldSelector", "name"), "invalid selector: 'name'; can't understand 'name'"),
        (("limit", "many"), 'invalid limit "many": not a whole number'),
        (("includeObject", "All"), 'unrecognized includeObject value: "All"'),
    ],
)
async def test_unreadable_parameter_is_a_bad_request(
    reader: FakeClusterReader, query: tuple[str, str], message: str
) -> None:
    answer = await list_(reader, request(query))
    assert (answer.status, read(answer)["message"]) == (400, message)
    assert reader.calls == []


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("named", [True, False])
async def test_table(reader: FakeClusterReader, version: str, *, named: bool) -> None:
    asked = request(accept=f"application/json;as=Table;v={version};g=meta.k8s.io")
    document = read(await (get if named else list_)(reader, asked))
    assert (document["kind"], document["apiVersion"]) == ("Table", f"meta.k8s.io/{version}")
    assert document["metadata"] == {"resourceVersion": "7" if named else "42"}
    columns = [
        (column["name"], column["type"], column["format"], column["description"])
        for column in document["columnDefinitions"]
    ]
    assert columns == COLUMNS
    assert document["rows"][0] == {
        "cells": ["a", "", "X509Certificate", "Const", "true"],
        "object": {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": METADATA,
        },
    }
    assert len(document["rows"]) == (1 if named else 3)


@pytest.mark.parametrize(
    ("include", "kind"),
    [("None", None), ("Metadata", "PartialObjectMetadata"), ("Object", "ClusterGateway")],
)
async def test_table_rows_hold_what_was_asked_for(reader: FakeClusterReader, include: str, kind: str | None) -> None:
    asked = request(("includeObject", include), accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    row = read(await get(reader, asked))["rows"][0]
    assert (row["object"] and row["object"]["kind"]) == kind


async def test_metadata_alone(reader: FakeClusterReader) -> None:
    accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    one = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": METADATA}
    assert read(await get(reader, request(accept=accept))) == one
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    listed = read(await list_(reader, request(accept=accept)))
    assert listed["kind"] == "PartialObjectMetadataList"
    assert listed["items"][0] == one


@pytest.mark.parametrize(
    "accept",
    ["application/vnd.kubernetes.protobuf", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"],
)
async def test_form_that_is_not_served_is_not_acceptable(reader: FakeClusterReader, accept: str) -> None:
    answer = await list_(reader, request(accept=accept))
    assert (answer.status, read(answer)["reason"]) == (406, "NotAcceptable")


async def test_cluster_with_a_fault_is_served_with_the_reason() -> None:
    broken = make_cluster("x", fault="the Secret has no endpoint", endpoint=None, credential_type=0)
    reader = FakeClusterReader(broken)
    document = read(await get(reader, request(), "x"))
    assert document["spec"] == {"provider": "", "access": {"endpoint": {"type": ""}}}
    assert document["status"] == {"healthy": False, "healthyReason": "the Secret has no endpoint"}
    table = read(await list_(reader, request(accept="application/json;as=Table;v=v1;g=meta.k8s.io")))
    assert table["rows"][0]["cells"] == ["x", "", "<none>", "", "false"]


async def test_tunnelled_cluster_has_no_address() -> None:
    tunnelled = make_cluster(
        "x",
        endpoint=Endpoint(type=ENDPOINT_TYPE_CLUSTER_PROXY),
        credential_type=CREDENTIAL_TYPE_DYNAMIC,
        health=Health(reason="ConnectionTimeout"),
    )
    document = read(await get(FakeClusterReader(tunnelled), request(), "x"))
    assert document["spec"]["access"] == {
        "endpoint": {"type": "ClusterProxy"},
        "credential": {"type": "Dynamic"},
    }
    assert document["status"] == {"healthy": False, "healthyReason": "ConnectionTimeout"}


async def test_insecure_cluster_says_so_and_shows_no_bundle() -> None:
    endpoint = Endpoint(type=ENDPOINT_TYPE_CONST, address="https://h", insecure=True, ca_bundle_pem=b"-")
    document = read(await get(FakeClusterReader(make_cluster("x", endpoint=endpoint)), request(), "x"))
    assert document["spec"]["access"]["endpoint"]["const"] == {"address": "https://h", "insecure": True}


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/yaml",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io, application/json",
    ],
)
async def test_no_secret_is_ever_rendered(accept: str) -> None:
    endpoint = Endpoint(
        type=ENDPOINT_TYPE_CONST,
        address="https://user:canary-1@h:6443/base",
        proxy_url="http://user:canary-2@proxy:3128",
    )
    cluster = make_cluster("x", endpoint=endpoint, credential_type=CREDENTIAL_TYPE_SERVICE_ACCOUNT_TOKEN)
    reader = FakeClusterReader(cluster)
    asked = request(("includeObject", "Object"), accept=accept)
    bodies = (await get(reader, asked, "x")).body + (await list_(reader, asked)).body
    assert b"canary" not in bodies
    const = read(await get(reader, request(), "x"))["spec"]["access"]["endpoint"]["const"]
    assert const == {"address": "https://h:6443/base", "proxy-url": "http://proxy:3128"}


async def test_address_that_cannot_be_parsed_is_not_shown() -> None:
    endpoint = Endpoint(type=ENDPOINT_TYPE_CONST, address="https://[canary")
    answer = await get(FakeClusterReader(make_cluster("x", endpoint=endpoint)), request(), "x")
    assert b"canary" not in answer.body


async def test_failure_of_the_core_is_a_status(reader: FakeClusterReader) -> None:
    answer = await get(reader, request(), "missing")
    assert (answer.status, read(answer)["reason"]) == (404, "NotFound")
    reader.failure = CoreError("ACCESS_DENIED", "ann may not", hop="HUB")
    assert (await get(reader, request())).status == 403
    assert (await list_(reader, request())).status == 403
