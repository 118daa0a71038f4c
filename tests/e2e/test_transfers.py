"""Large bodies both ways, compared byte by byte."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import TYPE_CHECKING

from tests.support.gateway import proxy_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_MAPS = "/api/v1/namespaces/default/configmaps"
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"


def text(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(_ALPHABET, k=length))  # noqa: S311 - filler


async def test_a_large_object_is_created_and_read_back_equal(stage: Stage, kubectl: Kubectl, cluster_name: str) -> None:
    content = text(900 * 1024, 1)
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"a": content}}
    await kubectl.ok("create", "-f", "-", stdin=json.dumps(document).encode())
    try:
        read = (await stage.ask_hub(proxy_path(cluster_name, f"{_MAPS}/large"))).json()
        assert read["data"]["a"] == content
        await kubectl.ok("patch", "configmap", "large", "-p", '{"data":{"b":"c"}}')
        assert (await kubectl.get("configmap", "large"))["data"] == {"a": content, "b": "c"}
    finally:
        await kubectl.ok("delete", "configmap", "large")


async def test_a_chunked_upload_arrives_whole(stage: Stage, gateway: Gateway, cluster_name: str) -> None:
    content = text(700 * 1024, 2)
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "chunked"}, "data": {"a": content}}
    encoded = json.dumps(document).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(encoded), 100_000):
            yield encoded[start : start + 100_000]
            await asyncio.sleep(0)

    headers = {"Content-Type": "application/json"}
    target = proxy_path(cluster_name, _MAPS)
    created = await stage.ask_hub(target, method="POST", body=pieces(), headers=headers)
    assert created.status == 201, created.body[:500]
    try:
        read = (await stage.ask_hub(f"{target}/chunked")).json()
        assert read["data"]["a"] == content
    finally:
        await stage.ask_hub(f"{target}/chunked", method="DELETE")


async def test_a_body_that_is_too_large_is_refused_by_the_cluster(
    stage: Stage, gateway: Gateway, cluster_name: str
) -> None:
    """The cluster answers before it has read everything."""
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "huge"}, "data": {"a": "x" * 4_000_000}}
    answer = await stage.ask_hub(proxy_path(cluster_name, _MAPS), method="POST", body=document)
    assert answer.status_object(413, "RequestEntityTooLarge")


async def test_a_ten_megabyte_list_arrives_equal_each_time(stage: Stage, clusters: dict[str, Kubectl]) -> None:
    count, path = 11, "/api/v1/namespaces/bulk/configmaps"
    await clusters["managed1"].ok("create", "namespace", "bulk")
    try:
        for number in range(count):
            document = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"bulk{number:02}"},
                "data": {"a": text(1000 * 1000, number)},
            }
            created = await stage.ask_hub(proxy_path("managed1", path), method="POST", body=document)
            assert created.status == 201
        now = await stage.managed["managed1"].kubectl("get", "--raw", f"{path}?limit=1")
        version = json.loads(now.stdout)["metadata"]["resourceVersion"]
        # One moment for all: a list tells the cluster's latest version, which moves with anybody's write.
        path += f"?resourceVersion={version}&resourceVersionMatch=Exact"
        direct = await stage.managed["managed1"].kubectl("get", "--raw", path)
        expected = hashlib.sha256(direct.stdout.encode()).digest()
        assert len(direct.stdout) > 10_000_000
        answers = await asyncio.gather(*(stage.ask_hub(proxy_path("managed1", path)) for _ in range(4)))
        assert {hashlib.sha256(answer.body).digest() for answer in answers} == {expected}
        packed = await stage.ask_hub(proxy_path("managed1", path), headers={"Accept-Encoding": "gzip"})
        assert hashlib.sha256(packed.body).digest() == expected
    finally:
        await clusters["managed1"].ok("delete", "namespace", "bulk", "--timeout=30s")


async def test_two_clusters_never_mix_under_concurrent_requests(stage: Stage, gateway: Gateway) -> None:
    """200 requests at once, alternating; each answer must be of the cluster that was asked (threat table, a4)."""
    targets = [(name, number) for number in range(100) for name in stage.managed]
    for name in stage.managed:
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "whose"},
            "data": {"name": name * 2000},
        }
        answer = await stage.ask_hub(proxy_path(name, _MAPS), method="POST", body=document)
        assert answer.status == 201
    try:
        answers = await asyncio.gather(
            *(stage.ask_hub(proxy_path(name, f"{_MAPS}/whose?number={number}")) for name, number in targets)
        )
        for (name, _), answer in zip(targets, answers, strict=True):
            assert answer.status == 200, answer
            assert answer.json()["data"]["name"] == name * 2000
    finally:
        for name in stage.managed:
            await stage.ask_hub(proxy_path(name, f"{_MAPS}/whose"), method="DELETE")
