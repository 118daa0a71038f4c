"""Registered clusters as a facade's handlers read them, without a core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from cluster_gateway_client.errors import CoreError
from clustergateway.registry.v1.cluster_pb2 import (
    CREDENTIAL_TYPE_X509_CERTIFICATE,
    ENDPOINT_TYPE_CONST,
    Cluster,
    Endpoint,
    Health,
)
from clustergateway.registry.v1.registry_service_pb2 import ListClustersResponse

if TYPE_CHECKING:
    from clustergateway.access.v1.user_info_pb2 import UserInfo


def make_cluster(name: str, **fields: Any) -> Cluster:
    """Build a usable cluster; any field can be given instead."""
    usual: dict[str, Any] = {
        "uid": f"uid-{name}",
        "resource_version": "7",
        "creation_timestamp": Timestamp(seconds=1735689600),
        "labels": {"region": "eu"},
        "endpoint": Endpoint(type=ENDPOINT_TYPE_CONST, address=f"https://{name}.example:6443", ca_bundle_pem=b"---"),
        "credential_type": CREDENTIAL_TYPE_X509_CERTIFICATE,
        "health": Health(healthy=True),
    }
    return Cluster(name=name, **usual | fields)


class FakeClusterReader:
    """Serves clusters from memory, sorted by name, paged by the last name of a page.

    Attributes:
        calls: What was asked, in order.
        failure: Raised by every call when set.
    """

    def __init__(self, *clusters: Cluster) -> None:
        self.clusters = {cluster.name: cluster for cluster in clusters}
        self.calls: list[tuple[Any, ...]] = []
        self.failure: CoreError | None = None

    async def get(self, name: str, user: UserInfo) -> Cluster:
        """Return one cluster."""
        self.calls.append(("get", name, user.username))
        if self.failure:
            raise self.failure
        if name not in self.clusters:
            raise CoreError("CLUSTER_NOT_FOUND", f"no such cluster {name}", cluster_name=name)
        return self.clusters[name]

    async def list(
        self, *, label_selector: str, page_size: int, page_token: str, user: UserInfo
    ) -> ListClustersResponse:
        """Return one page; the label selector is only recorded."""
        self.calls.append(("list", label_selector, page_size, page_token, user.username))
        if self.failure:
            raise self.failure
        names = [name for name in sorted(self.clusters) if name > page_token]
        page = names[:page_size] if page_size else names
        return ListClustersResponse(
            clusters=[self.clusters[name] for name in page],
            resource_version="42",
            next_page_token=page[-1] if len(page) < len(names) else "",
            remaining_items=len(names) - len(page),
        )
