"""A registered cluster as the ClusterGateway object, table row or metadata that callers see.

The message of the core holds no credential, and what is written here is chosen field by field, so none
can be served by accident.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cluster_gateway_facade.handlers.discovery import GROUP_VERSION
from clustergateway.registry.v1.cluster_pb2 import (
    CREDENTIAL_TYPE_DYNAMIC,
    CREDENTIAL_TYPE_SERVICE_ACCOUNT_TOKEN,
    CREDENTIAL_TYPE_X509_CERTIFICATE,
    ENDPOINT_TYPE_CLUSTER_PROXY,
    ENDPOINT_TYPE_CONST,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clustergateway.registry.v1.cluster_pb2 import Cluster, Endpoint
    from clustergateway.registry.v1.registry_service_pb2 import ListClustersResponse

_META_GROUP: Final = "meta.k8s.io"
# The original writes these label values verbatim; a value that no gateway knows has no name here.
_ENDPOINT_TYPES: Final[dict[int, str]] = {
    ENDPOINT_TYPE_CONST: "Const",
    ENDPOINT_TYPE_CLUSTER_PROXY: "ClusterProxy",
}
_CREDENTIAL_TYPES: Final[dict[int, str]] = {
    CREDENTIAL_TYPE_SERVICE_ACCOUNT_TOKEN: "ServiceAccountToken",
    CREDENTIAL_TYPE_X509_CERTIFICATE: "X509Certificate",
    CREDENTIAL_TYPE_DYNAMIC: "Dynamic",
}
# Names, formats and words of oam-dev/cluster-gateway: scripts cut these columns.
_COLUMNS: Final = (
    ("Name", "name", "the name of the cluster"),
    ("Provider", "", "the cluster provider type"),
    ("Credential-Type", "", "the credential type"),
    ("Endpoint-Type", "", "the endpoint type"),
    ("Healthy", "", "the healthiness of the gateway"),
)
_COLUMN_DEFINITIONS: Final = [
    {"name": name, "type": "string", "format": format_, "description": description, "priority": 0}
    for name, format_, description in _COLUMNS
]


def cluster_object(cluster: Cluster) -> dict[str, Any]:
    """Render a whole object with its kind."""
    return {"kind": "ClusterGateway", "apiVersion": GROUP_VERSION, **_content(cluster)}


def cluster_list(clusters: Sequence[Cluster], metadata: dict[str, Any]) -> dict[str, Any]:
    """Render a list; its items carry no kind of their own, as in every typed Kubernetes list."""
    items = [_content(cluster) for cluster in clusters]
    return {"kind": "ClusterGatewayList", "apiVersion": GROUP_VERSION, "metadata": metadata, "items": items}


def partial_object(cluster: Cluster, version: str) -> dict[str, Any]:
    """Render the metadata alone, as PartialObjectMetadata of a version of meta.k8s.io."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"{_META_GROUP}/{version}",
        "metadata": _object_metadata(cluster),
    }


def partial_object_list(clusters: Sequence[Cluster], metadata: dict[str, Any], version: str) -> dict[str, Any]:
    """Render a list of metadata alone."""
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"{_META_GROUP}/{version}",
        "metadata": metadata,
        "items": [partial_object(cluster, version) for cluster in clusters],
    }


def table(clusters: Sequence[Cluster], metadata: dict[str, Any], version: str, include_object: str) -> dict[str, Any]:
    """Render the table that kubectl prints.

    Args:
        clusters: One row each.
        metadata: List metadata.
        version: Version of meta.k8s.io.
        include_object: "None", "Metadata" (also when empty) or "Object": what a row holds beside its cells.
    """
    return {
        "kind": "Table",
        "apiVersion": f"{_META_GROUP}/{version}",
        "metadata": metadata,
        "columnDefinitions": _COLUMN_DEFINITIONS,
        "rows": [
            {"cells": _cells(cluster), "object": _row_object(cluster, version, include_object)} for cluster in clusters
        ],
    }


def list_metadata(listed: ListClustersResponse) -> dict[str, Any]:
    """Render the metadata of one page."""
    metadata: dict[str, Any] = {"resourceVersion": listed.resource_version}
    if listed.next_page_token:
        metadata["continue"] = listed.next_page_token
        metadata["remainingItemCount"] = listed.remaining_items
    return metadata


def _content(cluster: Cluster) -> dict[str, Any]:
    healthy, reason = _health(cluster)
    # The original always serves an empty provider.
    return {
        "metadata": _object_metadata(cluster),
        "spec": {"provider": "", "access": _access(cluster)},
        "status": {"healthy": healthy} | ({"healthyReason": reason} if reason else {}),
    }


def _object_metadata(cluster: Cluster) -> dict[str, Any]:
    known = {
        "name": cluster.name,
        "uid": cluster.uid,
        "resourceVersion": cluster.resource_version,
        "creationTimestamp": (
            cluster.creation_timestamp.ToJsonString() if cluster.HasField("creation_timestamp") else ""
        ),
        "labels": dict(sorted(cluster.labels.items())),
    }
    return {key: value for key, value in known.items() if value}


def _access(cluster: Cluster) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"type": _endpoint_type(cluster)}
    if cluster.endpoint.address:
        endpoint["const"] = _const(cluster.endpoint)
    credential_type = _CREDENTIAL_TYPES.get(cluster.credential_type)
    return {"endpoint": endpoint} | ({"credential": {"type": credential_type}} if credential_type else {})


def _const(endpoint: Endpoint) -> dict[str, Any]:
    const: dict[str, Any] = {"address": _without_user(endpoint.address)}
    if endpoint.insecure:
        const["insecure"] = True
    elif endpoint.ca_bundle_pem:
        const["caBundle"] = base64.b64encode(endpoint.ca_bundle_pem).decode()
    if endpoint.proxy_url:
        const["proxy-url"] = _without_user(endpoint.proxy_url)
    return const


def _without_user(url: str) -> str:
    """Drop user and password from a URL; one that cannot be parsed is not shown at all."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _health(cluster: Cluster) -> tuple[bool, str]:
    """Say whether the cluster is healthy and why not; one that cannot be used never is."""
    if cluster.fault:
        return False, cluster.fault
    return cluster.health.healthy, cluster.health.reason


def _endpoint_type(cluster: Cluster) -> str:
    return _ENDPOINT_TYPES.get(cluster.endpoint.type, "")


def _cells(cluster: Cluster) -> list[str]:
    healthy, _ = _health(cluster)
    credential_type = _CREDENTIAL_TYPES.get(cluster.credential_type, "<none>")
    return [cluster.name, "", credential_type, _endpoint_type(cluster), "true" if healthy else "false"]


def _row_object(cluster: Cluster, version: str, include_object: str) -> dict[str, Any] | None:
    match include_object:
        case "None":
            return None
        case "Object":
            return cluster_object(cluster)
        case _:
            return partial_object(cluster, version)
