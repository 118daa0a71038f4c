from __future__ import annotations

import pytest

from cluster_gateway_core.errors import ClusterNotFoundError, ExpiredError, RegistryNotSyncedError
from cluster_gateway_core.model.cluster import Cluster
from cluster_gateway_core.registry.label_selector import parse_label_selector
from cluster_gateway_core.registry.store import ClusterRegistry, RegistryEvent


def make_cluster(name: str, version: str = "1", **labels: str) -> Cluster:
    return Cluster(name=name, resource_version=version, labels=labels)


@pytest.fixture
def registry() -> ClusterRegistry:
    made = ClusterRegistry()
    made.replace([make_cluster("b", tier="prod"), make_cluster("a", tier="dev")])
    return made


def told(event: RegistryEvent) -> str:
    return f"{event.type} {event.cluster.name}" if event.cluster else str(event.type)


async def test_nothing_can_be_said_before_the_first_list() -> None:
    registry = ClusterRegistry()
    assert not registry.synced
    with pytest.raises(RegistryNotSyncedError):
        registry.get("a")
    with pytest.raises(RegistryNotSyncedError):
        registry.list()
    with pytest.raises(RegistryNotSyncedError):
        await anext(registry.watch())
    with pytest.raises(RegistryNotSyncedError):
        await anext(registry.watch(resource_version="5"))


def test_gets_and_lists_sorted(registry: ClusterRegistry) -> None:
    assert registry.get("a").name == "a"
    with pytest.raises(ClusterNotFoundError, match="no such cluster z"):
        registry.get("z")
    assert [cluster.name for cluster in registry.list().clusters] == ["a", "b"]
    assert [c.name for c in registry.list(parse_label_selector("tier=prod")).clusters] == ["b"]
    registry.upsert(make_cluster("aa"))
    registry.delete("b")
    assert [cluster.name for cluster in registry.list().clusters] == ["a", "aa"]


def test_only_changes_count(registry: ClusterRegistry) -> None:
    before = registry.list().resource_version
    registry.replace([make_cluster("a", tier="dev"), make_cluster("b", tier="prod")])
    registry.upsert(make_cluster("a", tier="dev"))
    registry.delete("unknown")
    assert registry.list().resource_version == before
    registry.upsert(make_cluster("a", "2", tier="dev"))
    assert int(registry.list().resource_version) == int(before) + 1


def test_an_old_version_is_listed_as_it_was(registry: ClusterRegistry) -> None:
    before = registry.list()
    registry.upsert(make_cluster("c"))
    registry.delete("a")
    registry.upsert(make_cluster("b", "2"))
    registry.delete("c")
    assert registry.list(version=before.version).clusters == before.clusters
    assert [cluster.name for cluster in registry.list(version=before.version + 1).clusters] == ["a", "b", "c"]


async def test_a_watch_begins_with_all_clusters_and_a_bookmark(registry: ClusterRegistry) -> None:
    watch = registry.watch()
    assert [told(await anext(watch)) for _ in range(3)] == ["ADDED a", "ADDED b", "BOOKMARK"]
    registry.upsert(make_cluster("c"))
    registry.upsert(make_cluster("a", "2"))
    registry.delete("b")
    assert [told(await anext(watch)) for _ in range(3)] == ["ADDED c", "MODIFIED a", "DELETED b"]


async def test_a_watch_resumes_after_its_version(registry: ClusterRegistry) -> None:
    version = registry.list().resource_version
    registry.upsert(make_cluster("c"))
    registry.delete("c")
    watch = registry.watch(resource_version=version)
    first = await anext(watch)
    assert told(first) == "ADDED c"
    assert told(await anext(watch)) == "DELETED c"
    assert told(await anext(registry.watch(resource_version=first.resource_version))) == "DELETED c"


async def test_a_cluster_that_begins_or_ceases_to_match_is_added_or_deleted(
    registry: ClusterRegistry,
) -> None:
    watch = registry.watch(parse_label_selector("tier=prod"), registry.list().resource_version)
    registry.upsert(make_cluster("a", "2", tier="prod"))
    registry.upsert(make_cluster("x", "3", tier="dev"))
    registry.upsert(make_cluster("b", "4", tier="dev"))
    added, deleted = await anext(watch), await anext(watch)
    assert told(added) == "ADDED a"
    assert told(deleted) == "DELETED b"
    assert deleted.cluster is not None
    assert deleted.cluster.labels == {"tier": "prod"}


async def test_bookmarks_come_while_nothing_happens() -> None:
    registry = ClusterRegistry(bookmark_seconds=0.001)
    registry.replace([])
    watch = registry.watch(resource_version=registry.list().resource_version)
    assert told(await anext(watch)) == "BOOKMARK"
    assert told(await anext(watch)) == "BOOKMARK"


async def test_a_slow_watcher_expires_and_the_history_stays_bounded() -> None:
    registry = ClusterRegistry(history_changes=4)
    registry.replace([make_cluster("a", "0")])
    start = registry.list()
    watch = registry.watch(resource_version=start.resource_version)
    registry.upsert(make_cluster("a", "1"))
    assert told(await anext(watch)) == "MODIFIED a"
    for version in range(2, 100):
        registry.upsert(make_cluster("a", str(version)))
    assert len(registry._history) <= 8
    with pytest.raises(ExpiredError):
        await anext(watch)
    with pytest.raises(ExpiredError):
        await anext(registry.watch(resource_version=start.resource_version))
    with pytest.raises(ExpiredError):
        registry.list(version=start.version)


@pytest.mark.parametrize("token", ["0", "1", "-1", "x", "9" * 30, "٣"])
async def test_a_foreign_version_is_expired(registry: ClusterRegistry, token: str) -> None:
    with pytest.raises(ExpiredError):
        await anext(registry.watch(resource_version=token))


def test_another_replicas_version_is_expired_and_so_is_a_future_one(registry: ClusterRegistry) -> None:
    other = ClusterRegistry()
    other.replace([make_cluster("b"), make_cluster("a")])
    with pytest.raises(ExpiredError):
        registry.parse_version(other.list().resource_version)
    with pytest.raises(ExpiredError):
        registry.parse_version(registry.render_version(registry.list().version + 1))


def test_subscribers_are_told_each_change_and_cannot_break_each_other(
    registry: ClusterRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[tuple[str, bool, bool]] = []

    def fail(name: str, old: Cluster | None, new: Cluster | None) -> None:
        raise ValueError(name)

    registry.subscribe(fail)
    unsubscribe = registry.subscribe(lambda name, old, new: changes.append((name, old is None, new is None)))
    registry.upsert(make_cluster("c"))
    registry.upsert(make_cluster("c", "2"))
    registry.delete("c")
    unsubscribe()
    registry.upsert(make_cluster("d"))
    assert changes == [("c", True, False), ("c", False, False), ("c", False, True)]
    assert "a subscriber failed" in caplog.text


async def test_the_first_list_does_not_fill_the_history() -> None:
    registry = ClusterRegistry(history_changes=10)
    registry.replace([make_cluster(str(number)) for number in range(100)])
    assert registry._history == []
    assert len(registry.list().clusters) == 100
    assert registry.parse_version(registry.list().resource_version) == 100
