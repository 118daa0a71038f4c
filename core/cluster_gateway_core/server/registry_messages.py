"""Clusters and registry events as messages; no credential has a field there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cluster_gateway_core.model.cluster import CredentialType, EndpointType
from cluster_gateway_core.registry.store import WatchEventType
from clustergateway.registry.v1 import cluster_pb2, registry_service_pb2

if TYPE_CHECKING:
    from cluster_gateway_core.model.cluster import Cluster, Endpoint
    from cluster_gateway_core.registry.store import RegistryEvent

_ENDPOINT_TYPES: Final = {
    EndpointType.CONST: cluster_pb2.ENDPOINT_TYPE_CONST,
    EndpointType.CLUSTER_PROXY: cluster_pb2.ENDPOINT_TYPE_CLUSTER_PROXY,
}
_CREDENTIAL_TYPES: Final[dict[str, cluster_pb2.CredentialType.ValueType]] = {
    CredentialType.SERVICE_ACCOUNT_TOKEN: cluster_pb2.CREDENTIAL_TYPE_SERVICE_ACCOUNT_TOKEN,
    CredentialType.X509_CERTIFICATE: cluster_pb2.CREDENTIAL_TYPE_X509_CERTIFICATE,
    CredentialType.DYNAMIC: cluster_pb2.CREDENTIAL_TYPE_DYNAMIC,
}
_EVENT_TYPES: Final = {
    WatchEventType.ADDED: registry_service_pb2.WATCH_EVENT_TYPE_ADDED,
    WatchEventType.MODIFIED: registry_service_pb2.WATCH_EVENT_TYPE_MODIFIED,
    WatchEventType.DELETED: registry_service_pb2.WATCH_EVENT_TYPE_DELETED,
    WatchEventType.BOOKMARK: registry_service_pb2.WATCH_EVENT_TYPE_BOOKMARK,
}


def render_cluster(cluster: Cluster) -> cluster_pb2.Cluster:
    """Turn a cluster into its public message."""
    message = cluster_pb2.Cluster(
        name=cluster.name,
        uid=cluster.uid,
        resource_version=cluster.resource_version,
        labels=cluster.labels,
        credential_type=_CREDENTIAL_TYPES.get(cluster.credential_type, cluster_pb2.CREDENTIAL_TYPE_UNSPECIFIED),
        health=cluster_pb2.Health(healthy=cluster.health.healthy, reason=cluster.health.reason),
        fault=cluster.fault,
    )
    if cluster.creation_timestamp is not None:
        message.creation_timestamp.FromDatetime(cluster.creation_timestamp)
    if cluster.endpoint is not None:
        message.endpoint.CopyFrom(_render_endpoint(cluster.endpoint))
    return message


def render_event(event: RegistryEvent) -> registry_service_pb2.WatchClustersResponse:
    """Turn a change into its message; a bookmark's cluster holds nothing but the version."""
    return registry_service_pb2.WatchClustersResponse(
        type=_EVENT_TYPES[event.type],
        cluster=(
            render_cluster(event.cluster)
            if event.cluster is not None
            else cluster_pb2.Cluster(resource_version=event.resource_version)
        ),
        resource_version=event.resource_version,
    )


def _render_endpoint(endpoint: Endpoint) -> cluster_pb2.Endpoint:
    return cluster_pb2.Endpoint(
        type=_ENDPOINT_TYPES[endpoint.type],
        address=endpoint.address,
        ca_bundle_pem=endpoint.ca_bundle_pem or b"",
        insecure=endpoint.insecure,
        proxy_url=_without_user_information(endpoint.proxy_url or ""),
    )


def _without_user_information(url: str) -> str:
    """Remove what may be a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url
