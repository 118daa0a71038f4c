"""The ways to all clusters, made when first used and replaced when a registration changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.settings import UpstreamSettings


class ClusterSource(Protocol):
    """Where registered clusters are read."""

    def get(self, name: str) -> Cluster:
        """Return a cluster, or raise ClusterNotFoundError or RegistryNotSyncedError."""
        ...


class UpstreamDirectory:
    """Finds the way to a cluster by its name."""

    def __init__(self, clusters: ClusterSource, settings: UpstreamSettings) -> None:
        self._clusters = clusters
        self._context = UpstreamContext(settings)
        self._upstreams: dict[str, Upstream] = {}

    def resolve(self, name: str) -> Upstream:
        """Return the way to a cluster as it is registered now.

        Raises:
            ClusterNotFoundError: It is not registered.
            RegistryNotSyncedError: The registry does not know yet.
            ClusterMisconfiguredError: Its registration cannot be used.
        """
        cluster = self._clusters.get(name)
        upstream = self._upstreams.get(name)
        if upstream is not None:
            if upstream.cluster is cluster:
                return upstream
            if self._keep(upstream, cluster):
                return upstream
            del self._upstreams[name]
            upstream.retire(cut=False)
        upstream = self._upstreams[name] = Upstream(cluster, self._context)
        return upstream

    def registration_changed(self, name: str, old: Cluster | None, new: Cluster | None) -> None:
        """Drop what belongs to an old registration; exchanges with a cluster that is gone are cut."""
        del old  # what counts is what the connections were opened for
        upstream = self._upstreams.get(name)
        if upstream is None or (new is not None and self._keep(upstream, new)):
            return
        del self._upstreams[name]
        upstream.retire(cut=new is None)

    @staticmethod
    def _keep(upstream: Upstream, cluster: Cluster) -> bool:
        """Go on with the same connections where only labels or health have changed."""
        same_way = _way(upstream.cluster) == _way(cluster)
        if same_way:
            upstream.cluster = cluster
        return same_way

    def expire(self) -> None:
        """Close the connections that have been unused too long."""
        for upstream in self._upstreams.values():
            upstream.expire()

    def close(self) -> None:
        """Cut everything, at the end of the process."""
        for upstream in self._upstreams.values():
            upstream.retire(cut=True)
        self._upstreams.clear()


def _way(cluster: Cluster) -> tuple[object, ...]:
    return cluster.endpoint, cluster.credential, cluster.fault
