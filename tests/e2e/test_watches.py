"""Watches: events arrive as they happen, from the cluster that was asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.support.gateway import proxy_path

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_SECONDS = 30


async def test_kubectl_sees_each_change_of_an_object(kubectl: Kubectl) -> None:
    arguments = ("-w", "--output-watch-events", "--field-selector=metadata.name=watched", "--no-headers")
    async with kubectl.start("get", "configmap", *arguments) as watch:
        await kubectl.ok("create", "configmap", "watched", "--from-literal=a=1")
        assert (await watch.line()).split()[:3] == ["ADDED", "watched", "1"]
        await kubectl.ok("patch", "configmap", "watched", "-p", '{"data":{"b":"2"}}')
        assert (await watch.line()).split()[:3] == ["MODIFIED", "watched", "2"]
        await kubectl.ok("delete", "configmap", "watched")
        assert (await watch.line()).split()[:3] == ["DELETED", "watched", "2"]


async def test_wait_returns_when_the_condition_comes_true(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "configmap", "awaited", "--from-literal=state=no")
    try:
        async with kubectl.start(
            "wait", "configmap/awaited", "--for=jsonpath={.data.state}=yes", "--timeout=30s"
        ) as waiting:
            await kubectl.ok("patch", "configmap", "awaited", "-p", '{"data":{"state":"yes"}}')
            assert (await waiting.finish()).stdout == "configmap/awaited condition met\n"
    finally:
        await kubectl.ok("delete", "configmap", "awaited")


@pytest.mark.parametrize("parameters", ["timeoutSeconds=1", "timeoutSeconds=1&allowWatchBookmarks=true"])
async def test_a_watch_ends_complete_when_the_cluster_ends_it(
    stage: Stage, gateway: Gateway, cluster_name: str, parameters: str
) -> None:
    """A watch whose chunked body were cut would raise here."""
    path = proxy_path(cluster_name, f"/api/v1/namespaces/default/pods?watch=1&{parameters}")
    answer = await stage.ask_hub(path)
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert answer.status == 200
    assert [event["object"]["metadata"]["name"] for event in events if event["type"] == "ADDED"] == ["pod1"]


async def test_a_streamed_list_ends_with_its_bookmark(stage: Stage, gateway: Gateway, cluster_name: str) -> None:
    """client-go's informers list by watching (sendInitialEvents) since Kubernetes 1.35."""
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    url = stage.hub.url + proxy_path(cluster_name, f"/api/v1/namespaces/default/pods?{query}")
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    connector = aiohttp.TCPConnector(ssl=stage.hub.ssl_context())
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(url) as response,
    ):
        kinds: list[str] = []
        event: Any = None
        async for line in response.content:
            event = json.loads(line)
            kinds.append(event["type"])
            if event["type"] == "BOOKMARK":
                break
    assert kinds == ["ADDED", "BOOKMARK"]
    assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_many_watches_of_one_user_all_receive(clusters: dict[str, Kubectl], stage: Stage) -> None:
    """More watches than the 25 idle connections that the hub keeps to a gateway."""
    count = 40
    name, kubectl = "managed1", clusters["managed1"]
    path = "/api/v1/namespaces/default/configmaps?watch=1&labelSelector=many%3Dyes"
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    connector = aiohttp.TCPConnector(ssl=stage.hub.ssl_context(), limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        url = stage.hub.url + proxy_path(name, path)
        watches = [await session.get(url) for _ in range(count)]
        assert {watch.status for watch in watches} == {200}
        await kubectl.ok("create", "configmap", "many")
        await kubectl.ok("label", "configmap", "many", "many=yes")
        lines = [json.loads(await watch.content.readline()) for watch in watches]
        assert [line["object"]["metadata"]["name"] for line in lines] == ["many"] * count
        for watch in watches:
            watch.close()
    await kubectl.ok("delete", "configmap", "many")
