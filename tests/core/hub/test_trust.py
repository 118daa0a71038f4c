from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.fake_hub import Answer, FakeHub, make_list, make_status
from tests.support.hub_certificates import make_identity

from cluster_gateway_core.hub.trust import TrustStore, parse_trust_anchors
from cluster_gateway_core.model.trust import FrontProxyTrust, TrustAnchors

if TYPE_CHECKING:
    from cluster_gateway_core.hub.client import HubClient

CA = make_identity("ca").certificate_pem.decode()
OTHER_CA = make_identity("other").certificate_pem.decode()
FULL = {
    "client-ca-file": CA,
    "requestheader-client-ca-file": OTHER_CA,
    "requestheader-allowed-names": '["front-proxy-client"]',
    "requestheader-username-headers": '["X-Remote-User","X-User"]',
    "requestheader-uid-headers": '["X-Remote-Uid"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}
ANCHORS = TrustAnchors(
    front_proxy=FrontProxyTrust(
        ca_pem=OTHER_CA.encode(),
        allowed_names=("front-proxy-client",),
        username_headers=("X-Remote-User", "X-User"),
        uid_headers=("X-Remote-Uid",),
        group_headers=("X-Remote-Group",),
        extra_header_prefixes=("X-Remote-Extra-",),
    ),
    client_ca_pem=CA.encode(),
)


def test_the_configmap_fills_every_value() -> None:
    """RH-20."""
    assert parse_trust_anchors(FULL, previous=TrustAnchors()) == (ANCHORS, "")


def test_an_empty_configmap_trusts_nobody_and_is_no_fault() -> None:
    """RH-20, RH-1."""
    assert parse_trust_anchors({}, previous=TrustAnchors()) == (TrustAnchors(), "")


def test_header_lists_that_are_absent_are_empty() -> None:
    data = {"requestheader-client-ca-file": CA, "requestheader-allowed-names": "null"}
    anchors, fault = parse_trust_anchors(data, previous=TrustAnchors())
    assert anchors.front_proxy == FrontProxyTrust(ca_pem=CA.encode())
    assert fault == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client-ca-file", ""),
        ("client-ca-file", "garbage"),
        ("client-ca-file", None),
        ("requestheader-client-ca-file", ""),
        ("requestheader-client-ca-file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("requestheader-client-ca-file", None),
        ("requestheader-username-headers", "X-Remote-User"),
        ("requestheader-username-headers", '{"a":1}'),
        ("requestheader-allowed-names", "[1]"),
    ],
)
def test_a_faulty_part_keeps_its_last_good_value(key: str, value: str | None) -> None:
    """RH-20: invalid JSON or an unusable bundle is an error and the previous state is kept."""
    data: dict[str, Any] = {**FULL, key: value}
    if value is None:
        del data[key]
    anchors, fault = parse_trust_anchors(data, previous=ANCHORS)
    assert anchors == ANCHORS
    assert fault.startswith(key)


def test_every_value_may_change_at_once() -> None:
    """RH-20."""
    changed = {
        "client-ca-file": OTHER_CA,
        "requestheader-client-ca-file": CA,
        "requestheader-allowed-names": "[]",
        "requestheader-username-headers": '["X-User"]',
        "requestheader-uid-headers": "[]",
        "requestheader-group-headers": '["X-Group","X-Team"]',
        "requestheader-extra-headers-prefix": '["X-Extra-"]',
    }
    anchors, fault = parse_trust_anchors(changed, previous=ANCHORS)
    assert fault == ""
    assert anchors == TrustAnchors(
        front_proxy=FrontProxyTrust(
            ca_pem=CA.encode(),
            username_headers=("X-User",),
            group_headers=("X-Group", "X-Team"),
            extra_header_prefixes=("X-Extra-",),
        ),
        client_ca_pem=OTHER_CA.encode(),
    )


def test_a_faulty_part_does_not_hold_up_the_other() -> None:
    data = {**FULL, "requestheader-allowed-names": "[", "client-ca-file": OTHER_CA}
    anchors, fault = parse_trust_anchors(data, previous=ANCHORS)
    assert anchors == TrustAnchors(front_proxy=ANCHORS.front_proxy, client_ca_pem=OTHER_CA.encode())
    assert "requestheader-allowed-names" in fault


def make_configmap(data: dict[str, str], version: str = "1") -> dict[str, Any]:
    name = "extension-apiserver-authentication"
    return {"metadata": {"name": name, "resourceVersion": version}, "data": data}


async def test_follows_the_configmap_and_keeps_it_after_deletion(hub: FakeHub, client: HubClient) -> None:
    """RH-20."""
    changed = {**FULL, "requestheader-allowed-names": '["other"]'}
    release = asyncio.Event()
    hub.script("LIST", Answer(body=make_list(make_configmap(FULL))))
    hub.script("WATCH", Answer(events=(), end="abort", held=release))
    hub.script(
        "WATCH",
        Answer(
            events=(
                {"type": "MODIFIED", "object": make_configmap(changed, "101")},
                {"type": "DELETED", "object": make_configmap(changed, "102")},
                {"type": "BOOKMARK", "object": make_configmap({}, "103")},
            ),
            end="close",
        ),
    )
    store = TrustStore(client)
    assert store.current == TrustAnchors()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.run())
        watcher = store.watch()
        assert await anext(watcher) == ANCHORS
        release.set()
        latest = await anext(watcher)
        assert latest.front_proxy is not None
        assert latest.front_proxy.allowed_names == ("other",)
        await hub.wait_for("WATCH", 3)
        assert store.current == latest
        assert "deleted" in store.condition().detail
        task.cancel()
    assert hub.received[0].query["fieldSelector"] == "metadata.name=extension-apiserver-authentication"


async def test_a_refusal_names_the_role_to_bind(hub: FakeHub, client: HubClient) -> None:
    hub.script("LIST", *[Answer(status=403, body=make_status(403, message="no"))] * 50)
    store = TrustStore(client)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.run())
        await hub.wait_for("LIST", 2)
        task.cancel()
    condition = store.condition()
    assert not condition.ready
    assert "bind Role extension-apiserver-authentication-reader" in condition.detail


async def test_a_hub_without_the_configmap_is_ready_and_says_so(hub: FakeHub, client: HubClient) -> None:
    hub.script("LIST", Answer(body=make_list()))
    store = TrustStore(client)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.run())
        assert await anext(store.watch()) == TrustAnchors()
        task.cancel()
    assert store.condition().ready
    assert "does not exist" in store.condition().detail
