"""Registrations that change while the gateway runs: no restart, no delay that a person would notice."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from tests.support.gateway import RESOURCE_PATH, SECRET_NAMESPACE, proxy_path

from cluster_gateway.control_planes import issue_admin_token, pick_free_ports, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

    from cluster_gateway.control_planes import ControlPlane

_NAMESPACE = "/api/v1/namespaces/default"
_SOON_SECONDS = 2.0
"""How soon a change takes effect: it is one watch event, told by the hub within milliseconds."""


async def registration(plane: ControlPlane) -> dict[str, bytes]:
    token = (await issue_admin_token(plane)).encode()
    return {"endpoint": plane.url.encode(), "ca.crt": plane.ca.certificate, "token": token}


@pytest.fixture
async def moving(stage: Stage, gateway: Gateway) -> AsyncIterator[str]:
    """A cluster by token that is really managed1, and may be changed."""
    await stage.register("moving", await registration(stage.managed["managed1"]), credential="ServiceAccountToken")
    await stage.wait_known("moving")
    yield "moving"
    await stage.unregister("moving")


async def wait_status(stage: Stage, name: str, code: int) -> None:
    async def answers() -> bool:
        return (await stage.ask_hub(proxy_path(name, _NAMESPACE))).status == code

    await wait_until(answers, what=f"{name} answers {code}", timeout_seconds=_SOON_SECONDS)


async def wait_label(stage: Stage, name: str, label: str) -> None:
    """Wait until pod1 of a cluster has a label of the real cluster."""
    target = proxy_path(name, f"{_NAMESPACE}/pods/pod1")

    async def is_there() -> bool:
        answer = await stage.ask_hub(target)
        return answer.status == 200 and answer.json()["metadata"]["labels"]["cluster"] == label

    await wait_until(is_there, what=f"{name} is {label}", timeout_seconds=_SOON_SECONDS)


async def test_a_rotated_token_takes_effect_at_once(stage: Stage, moving: str) -> None:
    plane = stage.managed["managed1"]
    data = await registration(plane)
    await wait_status(stage, moving, 200)
    await stage.register(moving, data | {"token": b"expired"}, credential="ServiceAccountToken")
    await wait_status(stage, moving, 503)
    await stage.register(moving, data, credential="ServiceAccountToken")
    await wait_status(stage, moving, 200)


async def test_a_cluster_may_change_the_kind_of_its_credential(stage: Stage, moving: str) -> None:
    plane = stage.managed["managed1"]
    pair = plane.issue_client_certificate("by-certificate", ["system:masters"])
    data = {"endpoint": plane.url.encode(), "ca.crt": plane.ca.certificate}
    data |= {"tls.crt": pair.certificate, "tls.key": pair.key}
    await stage.register(moving, data, credential="X509Certificate")
    kubectl = stage.kubectl(moving)

    async def is_other_user() -> bool:
        printed = await kubectl.ok("auth", "whoami", "-o", "json")
        return bool(json.loads(printed)["status"]["userInfo"]["username"] == "by-certificate")

    await wait_until(is_other_user, what="the other credential is used", timeout_seconds=_SOON_SECONDS)


async def test_a_changed_endpoint_moves_the_cluster(stage: Stage, moving: str) -> None:
    await wait_label(stage, moving, "managed1")
    await stage.register(moving, await registration(stage.managed["managed2"]), credential="ServiceAccountToken")
    await wait_label(stage, moving, "managed2")


async def test_a_repaired_registration_works_again(stage: Stage, moving: str) -> None:
    data = await registration(stage.managed["managed1"])
    (port,) = pick_free_ports(1)
    broken = data | {"endpoint": f"https://127.0.0.1:{port}".encode()}
    await stage.register(moving, broken, credential="ServiceAccountToken")
    await wait_status(stage, moving, 503)
    await stage.register(moving, data, credential="ServiceAccountToken")
    await wait_status(stage, moving, 200)


async def test_a_removed_cluster_is_gone_at_once_and_its_watch_is_cut(stage: Stage, moving: str) -> None:
    url = stage.hub.url + proxy_path(moving, f"{_NAMESPACE}/pods?watch=1")
    connector = aiohttp.TCPConnector(ssl=stage.hub.ssl_context())
    timeout = aiohttp.ClientTimeout(total=_SOON_SECONDS + 10)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(url) as watch,
    ):
        assert b"pod1" in await watch.content.readline()
        await stage.unregister(moving)
        # Nothing says that the answer is complete: it is not.
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(_SOON_SECONDS):
                await watch.content.read()
    await wait_status(stage, moving, 503)
    answer = await stage.ask_hub(f"{RESOURCE_PATH}/{moving}")
    assert answer.status_object(404, "NotFound")


async def test_a_cluster_removed_and_registered_again_works(stage: Stage, moving: str) -> None:
    await stage.unregister(moving)
    await wait_status(stage, moving, 503)
    await stage.register(moving, await registration(stage.managed["managed2"]), credential="ServiceAccountToken")
    await wait_label(stage, moving, "managed2")


async def test_a_watch_survives_a_new_label_of_its_cluster(
    stage: Stage, moving: str, admin: Kubectl, clusters: dict[str, Kubectl]
) -> None:
    kubectl = stage.kubectl(moving)
    arguments = ("configmap", "-w", "--field-selector=metadata.name=survives", "--no-headers")
    async with kubectl.start("get", *arguments) as watch:
        await clusters["managed1"].ok("create", "configmap", "survives")
        assert (await watch.line()).startswith("survives")
        await admin.ok("label", "secret", "-n", SECRET_NAMESPACE, moving, "colour=red")

        async def is_red() -> bool:
            found = (await stage.ask_hub(f"{RESOURCE_PATH}/{moving}")).json()
            return bool(found["metadata"].get("labels", {}).get("colour") == "red")

        await wait_until(is_red, what="the label is seen", timeout_seconds=_SOON_SECONDS)
        await clusters["managed1"].ok("delete", "configmap", "survives")
        assert (await watch.line()).startswith("survives")


async def test_no_served_object_holds_a_credential(stage: Stage, admin: Kubectl) -> None:
    """Both clusters' tokens and keys are the canaries."""
    canaries: set[bytes] = set()
    secrets = await admin.get("secrets", "-n", SECRET_NAMESPACE)
    for secret in secrets["items"]:
        for key in ("token", "tls.key"):
            if value := secret["data"].get(key):
                canaries |= {value.encode(), base64.b64decode(value)}
    assert len(canaries) >= 4
    served = []
    for target in (RESOURCE_PATH, *(f"{RESOURCE_PATH}/{name}" for name in stage.managed)):
        for accept in (
            "application/json",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/yaml",
        ):
            answer = await stage.ask_hub(target, headers={"Accept": accept})
            served.append(answer.body)
    text = b"\n".join(served)
    assert text.count(b"managed1") >= 5
    assert not [canary for canary in canaries if canary in text]
    assert b"PRIVATE KEY" not in text
