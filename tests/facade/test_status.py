"""Failures as `metav1.Status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade import status
from clustergateway.access.v1.access_service_pb2 import NonResourceAttributes, ResourceAttributes
from clustergateway.errors.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from cluster_gateway_facade.exchange import Answer

REASONS = {
    "INVALID_REQUEST": (400, "BadRequest"),
    "UNAUTHENTICATED": (401, "Unauthorized"),
    "ACCESS_DENIED": (403, "Forbidden"),
    "CLUSTER_NOT_FOUND": (503, "ServiceUnavailable"),
    "CLUSTER_MISCONFIGURED": (503, "ServiceUnavailable"),
    "REGISTRY_NOT_SYNCED": (503, "ServiceUnavailable"),
    "CLUSTER_UNREACHABLE": (503, "ServiceUnavailable"),
    "TLS_FAILED": (503, "ServiceUnavailable"),
    "CREDENTIAL_REJECTED": (503, "ServiceUnavailable"),
    "INVALID_RESPONSE": (502, "InternalError"),
    "RESPONSE_TRUNCATED": (502, "InternalError"),
    "TIMEOUT": (504, "Timeout"),
    "OVERLOADED": (429, "TooManyRequests"),
    "SHUTTING_DOWN": (503, "ServiceUnavailable"),
    "HUB_UNAVAILABLE": (503, "ServiceUnavailable"),
    "CORE_UNAVAILABLE": (503, "ServiceUnavailable"),
    "CONFLICT": (409, "Conflict"),
    "EXPIRED": (410, "Expired"),
    "INTERNAL": (500, "InternalError"),
}


def read(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.body)
    assert document["kind"] == "Status"
    assert document["apiVersion"] == "v1"
    assert document["metadata"] == {}
    assert document["status"] == "Failure"
    assert document["code"] == answer.status
    assert answer.content_type == "application/json"
    return document


def test_every_reason_of_the_contract_has_a_row() -> None:
    declared = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum
    assert set(status.STATUS_BY_REASON) == declared - {"UNSPECIFIED"} | {"CORE_UNAVAILABLE"}


@pytest.mark.parametrize(("reason", "expected"), REASONS.items(), ids=str)
def test_reason_decides_code_and_status_reason(reason: str, expected: tuple[int, str]) -> None:
    answer = status.answer_for(CoreError(reason, "it broke", cluster_name="c1"))
    assert (answer.status, read(answer)["reason"]) == expected


def test_reason_of_a_newer_core_is_an_internal_error() -> None:
    answer = status.answer_for(CoreError("SOLAR_FLARE", "it broke"))
    assert (answer.status, read(answer)["reason"]) == (500, "InternalError")


def test_message_says_which_cluster_why_where_and_what_to_do() -> None:
    error = CoreError(
        "CLUSTER_UNREACHABLE",
        "dial tcp 10.0.0.1:6443: connect: connection refused.",
        hop="NETWORK",
        cluster_name="c1",
        hint="Check that the API server runs.",
        retry_after_seconds=1.2,
    )
    answer = status.answer_for(error)
    document = read(answer)
    assert document["message"] == (
        "cluster c1: dial tcp 10.0.0.1:6443: connect: connection refused"
        " (failed at the network between the gateway and the cluster). Check that the API server runs."
    )
    assert document["details"] == {
        "name": "c1",
        "group": "cluster.core.oam.dev",
        "kind": "clustergateways",
        "causes": [
            {
                "reason": "CLUSTER_UNREACHABLE",
                "message": "Check that the API server runs.",
                "field": "hop:NETWORK",
            }
        ],
        "retryAfterSeconds": 2,
    }
    assert "Retry-After" not in dict(answer.headers)  # client-go would ask ten more times before it tells anybody


def test_overload_is_to_be_tried_again() -> None:
    answer = status.answer_for(CoreError("OVERLOADED", "too many requests", retry_after_seconds=1.2))
    assert answer.status == 429
    assert ("Retry-After", "2") in answer.headers


def test_missing_cluster_on_a_proxied_path_never_looks_like_a_missing_object() -> None:
    error = CoreError("CLUSTER_NOT_FOUND", "no such cluster c1", cluster_name="c1", retry_after_seconds=5)
    answer = status.answer_for(error)
    document = read(answer)
    assert answer.status == 503
    assert "no such cluster c1" in document["message"]
    assert document["details"]["kind"] == "clustergateways"
    assert document["details"]["name"] == "c1"


def test_missing_cluster_does_not_make_client_go_retry_for_nothing() -> None:
    error = CoreError("CLUSTER_NOT_FOUND", "no such cluster c1", cluster_name="c1", retry_after_seconds=5)
    answer = status.answer_for(error)
    assert "Retry-After" not in dict(answer.headers)
    assert read(answer)["details"]["retryAfterSeconds"] == 5


def test_missing_cluster_object_is_a_plain_not_found() -> None:
    error = CoreError("CLUSTER_NOT_FOUND", "no such cluster x", cluster_name="x")
    answer = status.answer_for_object(error)
    document = read(answer)
    assert (answer.status, document["reason"]) == (404, "NotFound")
    assert document["message"] == 'clustergateways.cluster.core.oam.dev "x" not found'
    assert document["details"] == {"name": "x", "group": "cluster.core.oam.dev", "kind": "clustergateways"}


@pytest.mark.parametrize(
    ("attributes", "message", "details"),
    [
        (
            ResourceAttributes(
                verb="get",
                group="cluster.core.oam.dev",
                resource="clustergateways",
                subresource="proxy",
                name="c1",
            ),
            (
                'clustergateways.cluster.core.oam.dev "c1" is forbidden: User "ann" cannot get resource'
                ' "clustergateways/proxy" in API group "cluster.core.oam.dev" at the cluster scope: no rule'
            ),
            {"name": "c1", "group": "cluster.core.oam.dev", "kind": "clustergateways"},
        ),
        (
            NonResourceAttributes(verb="get", path="/metrics"),
            'forbidden: User "ann" cannot get path "/metrics": no rule',
            None,
        ),
    ],
)
def test_denial_has_the_words_of_kube_apiserver(
    attributes: ResourceAttributes | NonResourceAttributes, message: str, details: dict[str, str] | None
) -> None:
    document = read(status.forbidden("ann", attributes, "no rule"))
    assert (document["code"], document["reason"]) == (403, "Forbidden")
    assert document["message"] == message
    assert document.get("details") == details


def test_every_reason_is_documented_with_its_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("`"): (int(row[1]), row[2]) for row in rows}
    assert documented == {key: (int(code), reason) for key, (code, reason) in status.STATUS_BY_REASON.items()}


@pytest.mark.parametrize("reason", sorted(status.STATUS_BY_REASON))
def test_a_delay_is_a_header_only_where_asking_again_soon_helps(reason: str) -> None:
    answer = status.answer_for(CoreError(reason, "m", cluster_name="c", retry_after_seconds=1))
    is_of_one_cluster = reason in {"CLUSTER_NOT_FOUND", "CLUSTER_UNREACHABLE"}
    assert ("Retry-After" in dict(answer.headers)) is not is_of_one_cluster
    assert read(answer)["details"]["retryAfterSeconds"] == 1
