from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.fake_hub import Answer, FakeHub, make_list, make_status
from tests.support.hub_secrets import make_secret

from cluster_gateway_core.errors import AccessDeniedError, ClusterNotFoundError, ConflictError
from cluster_gateway_core.hub.cluster_secrets import ClusterSecrets
from cluster_gateway_core.hub.health_store import HealthStore
from cluster_gateway_core.model.cluster import Health
from cluster_gateway_core.registry.store import ClusterRegistry
from cluster_gateway_core.settings import HubSettings

if TYPE_CHECKING:
    from cluster_gateway_core.hub.client import HubClient

SETTINGS = HubSettings(copy_health=True)


async def test_a_changed_secret_takes_effect(hub: FakeHub, client: HubClient) -> None:
    registry = ClusterRegistry()
    changes: asyncio.Queue[str] = asyncio.Queue()
    registry.subscribe(lambda name, _, new: changes.put_nowait(f"{name} {new and new.resource_version}"))
    hub.script("LIST", Answer(body=make_list(make_secret("c1"), make_secret("c2"), {"metadata": None})))
    hub.script(
        "WATCH",
        Answer(
            events=(
                {"type": "MODIFIED", "object": make_secret("c1", resource_version="101")},
                {"type": "ADDED", "object": {"metadata": {"resourceVersion": "102"}}},
                {"type": "DELETED", "object": make_secret("c2", resource_version="103")},
            )
        ),
    )
    secrets = ClusterSecrets(client, SETTINGS, registry)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(secrets.run())
        async with asyncio.timeout(10):
            seen = [await changes.get() for _ in range(4)]
        task.cancel()
    assert seen == ["c1 7", "c2 7", "c1 101", "c2 None"]
    assert [cluster.name for cluster in registry.list().clusters] == ["c1"]
    assert hub.received[0].path == "/api/v1/namespaces/vela-system/secrets"
    assert hub.received[0].query["labelSelector"] == "cluster.core.oam.dev/cluster-credential-type"
    assert secrets.condition().ready


def test_an_unchanged_secret_is_not_decoded_again() -> None:
    registry = ClusterRegistry()
    secrets = ClusterSecrets(client=None, settings=SETTINGS, registry=registry)  # type: ignore[arg-type]
    secrets.replace([make_secret("c1")])
    first = registry.get("c1")
    secrets.replace([make_secret("c1")])
    assert registry.get("c1") is first
    secrets.replace([make_secret("c1", resource_version="8")])
    assert registry.get("c1") is not first


async def test_health_is_a_merge_patch_of_two_annotations(hub: FakeHub, client: HubClient) -> None:
    annotations = {
        "status.cluster.core.oam.dev/healthy": "true",
        "status.cluster.core.oam.dev/healthy-reason": "fine",
    }
    hub.script("PATCH", *[Answer(body=make_secret("c1", annotations=annotations))] * 2)
    store = HealthStore(client, SETTINGS)
    health = Health(healthy=True, reason="fine")
    cluster = await store.update("c1", health, resource_version="7", validate_only=True)
    await store.update("c1", health)
    assert cluster.health == health
    first, second = hub.received
    assert first.body == {"metadata": {"annotations": annotations, "resourceVersion": "7"}}
    assert first.query == {"dryRun": "All"}
    assert second.body == {"metadata": {"annotations": annotations}}
    assert second.query == {}
    assert first.path == "/api/v1/namespaces/vela-system/secrets/c1"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, ClusterNotFoundError), (409, ConflictError), (403, AccessDeniedError)],
)
async def test_a_refused_health_update_names_the_cluster(
    hub: FakeHub, client: HubClient, status: int, expected: type[Exception]
) -> None:
    hub.script("PATCH", Answer(status=status, body=make_status(status)))
    with pytest.raises(expected) as caught:
        await HealthStore(client, SETTINGS).update("c1", Health())
    assert getattr(caught.value, "cluster_name", "") == "c1"
