"""Impersonation headers on an exchange: straight gRPC callers, and facades that pass them on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.scripted_cluster import Receive, ScriptedCluster, Send

from cluster_gateway_client import CoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.routing_core import RoutingCore

    from cluster_gateway_client import CoreClient

_OK = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))


@pytest.fixture
async def cluster() -> AsyncIterator[ScriptedCluster]:
    async with ScriptedCluster() as cluster:
        cluster.script(_OK)
        yield cluster


async def send(client: CoreClient, *headers: tuple[str, str]) -> int:
    async with client.request("managed1", "GET", "/api", headers=headers) as response:
        await response.read()
        return response.status


async def test_without_such_headers_a_request_is_its_caller_s(
    served: tuple[RoutingCore, CoreClient], cluster: ScriptedCluster
) -> None:
    """IM-1."""
    core, client = served
    assert await send(client, ("Accept", "x")) == 200
    assert core.authorizer.asked == [("get", "proxy", "managed1")]
    assert core.authorizer.askers == ["jane"]


@pytest.mark.parametrize("connection", ["", "close, Impersonate-User, impersonate-group"])
async def test_a_request_is_authorized_as_whom_its_caller_acts_as(
    served: tuple[RoutingCore, CoreClient], cluster: ScriptedCluster, connection: str
) -> None:
    """IM-14: nothing of it travels on. A header that Connection lists is acted upon all the same (CVE-2021-31999)."""
    core, client = served
    headers = [("Impersonate-User", "tony"), ("impersonate-group", "dev"), ("IMPERSONATE-EXTRA-Scopes", "a")]
    headers += [("Connection", connection)] if connection else []
    assert await send(client, *headers, ("X-Kept", "1")) == 200
    assert core.authorizer.askers == ["jane", "jane", "jane", "tony"]
    assert core.authorizer.asked == [
        ("impersonate", "", "tony"),
        ("impersonate", "", "dev"),
        ("impersonate", "scopes", "a"),
        ("get", "proxy", "managed1"),
    ]
    received = bytes(cluster.connections[0].received)
    assert b"X-Kept: 1\r\n" in received
    assert b"mpersonate" not in received.lower()


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("Impersonate-User", "tony")], "ACCESS_DENIED"),
        ([("Impersonate-Group", "dev")], "INVALID_REQUEST"),
        ([("Impersonate-User", "tony"), ("Impersonate-Foo", "x")], "INVALID_REQUEST"),
        ([("Impersonate_User", "tony")], "INVALID_REQUEST"),
    ],
    ids=["IM-4 denied", "IM-3 no user", "IM-15 unknown name", "IM-15 underscore"],
)
async def test_what_is_refused_never_reaches_the_cluster(
    served: tuple[RoutingCore, CoreClient], cluster: ScriptedCluster, headers: list[tuple[str, str]], reason: str
) -> None:
    core, client = served
    core.authorizer.denied = {"impersonate"}
    with pytest.raises(CoreError) as refused:
        await send(client, *headers)
    assert refused.value.reason == reason
    assert cluster.connections == []
