"""The clusters that are registered now, and what changed lately.

One synchronous state machine: its only feeder calls `replace`, `upsert` and `delete` from the event loop.
Versions count changes; as tokens they carry a number drawn at start, so that a version of another core, or
of this core before a restart, reads as expired rather than as some other moment of this one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from bisect import bisect_left, insort
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from cluster_gateway_core.errors import ClusterNotFoundError, ExpiredError, RegistryNotSyncedError
from cluster_gateway_core.registry.label_selector import EVERYTHING, LabelSelector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from cluster_gateway_core.model.cluster import Cluster

    ChangeCallback: TypeAlias = Callable[[str, Cluster | None, Cluster | None], None]

_LOGGER = logging.getLogger(__name__)
_HISTORY_CHANGES: Final = 8192
_BOOKMARK_SECONDS: Final = 60.0
"""kube-apiserver's interval between bookmarks (pkg/storage/cacher, bookmarkFrequency)."""
_VERSION_BITS: Final = 32
_EPOCH_BITS: Final = 30


class WatchEventType(StrEnum):
    """Kubernetes' words for what happened."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEvent:
    """One change as a watcher sees it.

    Attributes:
        type: What happened, as far as the watcher's selector goes.
        cluster: The cluster after the change, or as it last was; None for a bookmark.
        resource_version: Token of the version that includes the change.
    """

    type: WatchEventType
    cluster: Cluster | None
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterList:
    """Clusters at one version.

    Attributes:
        clusters: Sorted by name.
        version: The registry's version.
        resource_version: The same as a token.
    """

    clusters: tuple[Cluster, ...]
    version: int
    resource_version: str


@dataclass(frozen=True, slots=True)
class _Change:
    name: str
    old: Cluster | None
    new: Cluster | None


class ClusterRegistry:
    """The live set of clusters."""

    def __init__(
        self,
        *,
        history_changes: int = _HISTORY_CHANGES,
        bookmark_seconds: float = _BOOKMARK_SECONDS,
        epoch: int | None = None,
    ) -> None:
        self._clusters: dict[str, Cluster] = {}
        self._names: list[str] = []
        self._version = 0
        # Change number n, counted from 1, is self._history[n - 1 - self._floor].
        self._history: list[_Change] = []
        self._floor = 0
        self._history_changes = history_changes
        self._bookmark_seconds = bookmark_seconds
        self._epoch = secrets.randbelow(2**_EPOCH_BITS - 1) + 1 if epoch is None else epoch
        self._synced = False
        self._changed = asyncio.Event()
        self._callbacks: list[ChangeCallback] = []

    @property
    def synced(self) -> bool:
        """Whether the first list has arrived."""
        return self._synced

    def peek(self, name: str) -> Cluster | None:
        """The cluster of that name, if any is known by now."""
        return self._clusters.get(name)

    def get(self, name: str) -> Cluster:
        """The cluster of that name, faulty or not.

        Raises:
            RegistryNotSyncedError: The first list has not arrived.
            ClusterNotFoundError: There is none.
        """
        cluster = self._clusters.get(name)
        if cluster is not None:
            return cluster
        self._require_synced(name)
        raise ClusterNotFoundError(name)

    def list(self, selector: LabelSelector = EVERYTHING, *, version: int | None = None) -> ClusterList:
        """All clusters that a selector selects.

        Args:
            selector: Which.
            version: The moment; None is now. An older one is put together from the history.

        Raises:
            RegistryNotSyncedError: The first list has not arrived.
            ExpiredError: That moment is no longer known.
        """
        self._require_synced()
        if version is None or version == self._version:
            found = [self._clusters[name] for name in self._names]
        else:
            then = self._clusters_at(version)
            found = [then[name] for name in sorted(then)]
        moment = self._version if version is None else version
        return ClusterList(
            clusters=tuple(cluster for cluster in found if selector.matches(cluster.labels)),
            version=moment,
            resource_version=self.render_version(moment),
        )

    async def watch(
        self, selector: LabelSelector = EVERYTHING, resource_version: str = ""
    ) -> AsyncIterator[RegistryEvent]:
        """Yield changes until the caller stops.

        Args:
            selector: Which clusters; one that begins or ceases to match is ADDED or DELETED.
            resource_version: Token after which to begin. Empty sends every cluster as ADDED first, then a
                BOOKMARK.

        Yields:
            Events in order, and a BOOKMARK whenever nothing happened for a minute.

        Raises:
            RegistryNotSyncedError: The first list has not arrived.
            ExpiredError: The version is not of this registry, or too much changed since, also while a slow
                caller was busy: nothing is queued for it but the bounded history.
        """
        if resource_version:
            version = self.parse_version(resource_version)
        else:
            initial = self.list(selector)
            version = initial.version
            for cluster in initial.clusters:
                yield RegistryEvent(
                    type=WatchEventType.ADDED, cluster=cluster, resource_version=initial.resource_version
                )
            yield self._bookmark(version)
        while True:
            changed = self._changed
            while version < self._version:
                change = self._change_after(version)
                version += 1
                event = self._render_change(change, selector, version)
                if event is not None:
                    yield event
            try:
                async with asyncio.timeout(self._bookmark_seconds):
                    await changed.wait()
            except TimeoutError:
                yield self._bookmark(version)

    def subscribe(self, callback: ChangeCallback) -> Callable[[], None]:
        """Have each change told at once, synchronously.

        Args:
            callback: Gets the name, the cluster before (None when new) and after (None when gone).

        Returns:
            Ends the subscription.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def replace(self, clusters: Iterable[Cluster]) -> None:
        """Register exactly these; unchanged ones make no change."""
        wanted = {cluster.name: cluster for cluster in clusters}
        for name in [name for name in self._names if name not in wanted]:
            self._set(name, None)
        for name, cluster in wanted.items():
            self._set(name, cluster)
        if not self._synced:
            # Nobody can have watched yet, so the first list need not fill the history.
            self._history.clear()
            self._floor = self._version
            self._synced = True

    def upsert(self, cluster: Cluster) -> None:
        """Register one, or register it anew."""
        self._set(cluster.name, cluster)

    def delete(self, name: str) -> None:
        """Remove one; an unknown name is nothing new."""
        self._set(name, None)

    def render_version(self, version: int) -> str:
        """Token of a version: a decimal number, since some Kubernetes clients parse it as one."""
        return str(self._epoch << _VERSION_BITS | version)

    def parse_version(self, token: str) -> int:
        """Read a token of `render_version`.

        Raises:
            RegistryNotSyncedError: The first list has not arrived.
            ExpiredError: It is not of this registry, or no longer kept.
        """
        self._require_synced()
        number = int(token) if token.isascii() and token.isdigit() and len(token) < 20 else 0  # noqa: PLR2004
        epoch, version = number >> _VERSION_BITS, number & ((1 << _VERSION_BITS) - 1)
        if epoch != self._epoch or not self._floor <= version <= self._version:
            raise _expired()
        return version

    def _set(self, name: str, new: Cluster | None) -> None:
        old = self._clusters.get(name)
        if old == new:
            return
        if new is None:
            del self._clusters[name]
            del self._names[bisect_left(self._names, name)]
        else:
            self._clusters[name] = new
            if old is None:
                insort(self._names, name)
        self._record(_Change(name, old, new))

    def _record(self, change: _Change) -> None:
        self._version += 1
        self._history.append(change)
        # Trimmed by halves, so that the cost of a change stays constant.
        if len(self._history) > 2 * self._history_changes:
            del self._history[: -self._history_changes]
            self._floor = self._version - self._history_changes
        self._changed.set()
        self._changed = asyncio.Event()
        for callback in tuple(self._callbacks):
            try:
                callback(change.name, change.old, change.new)
            except Exception:
                _LOGGER.exception("a subscriber failed on the change of cluster %s", change.name)

    def _change_after(self, version: int) -> _Change:
        """The change that follows a version; the history may have been trimmed since the last look."""
        if version < self._floor:
            raise _expired()
        return self._history[version - self._floor]

    def _clusters_at(self, version: int) -> dict[str, Cluster]:
        """Undo the changes since a version."""
        if not self._floor <= version <= self._version:
            raise _expired()
        clusters = dict(self._clusters)
        for change in reversed(self._history[version - self._floor :]):
            if change.old is None:
                del clusters[change.name]
            else:
                clusters[change.name] = change.old
        return clusters

    def _render_change(self, change: _Change, selector: LabelSelector, version: int) -> RegistryEvent | None:
        before = change.old if change.old is not None and selector.matches(change.old.labels) else None
        after = change.new if change.new is not None and selector.matches(change.new.labels) else None
        if after is not None:
            kind = WatchEventType.ADDED if before is None else WatchEventType.MODIFIED
        elif before is not None:
            kind = WatchEventType.DELETED
        else:
            return None
        return RegistryEvent(type=kind, cluster=after or before, resource_version=self.render_version(version))

    def _bookmark(self, version: int) -> RegistryEvent:
        return RegistryEvent(type=WatchEventType.BOOKMARK, cluster=None, resource_version=self.render_version(version))

    def _require_synced(self, name: str = "") -> None:
        if not self._synced:
            raise RegistryNotSyncedError(name)


def _expired() -> ExpiredError:
    return ExpiredError(
        "the resource version is too old, or of another replica of the gateway",
        hint="List again and watch from the new version.",
    )
