from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from tests.support.fake_hub import Answer, FakeHub, make_status

from cluster_gateway_core.errors import (
    AccessDeniedError,
    ConflictError,
    ExpiredError,
    GatewayError,
    HubUnavailableError,
)
from cluster_gateway_core.hub.client import HubClient, open_hub_clients
from cluster_gateway_core.settings import HubSettings

if TYPE_CHECKING:
    from pathlib import Path


async def test_sends_the_kubeconfigs_token_and_a_user_agent(hub: FakeHub, client: HubClient) -> None:
    hub.script("LIST", Answer(body={"kind": "X"}))
    assert await client.get("/api/v1/x", {"limit": "1"}) == {"kind": "X"}
    assert hub.received[0].headers["Authorization"] == "Bearer gateway-token"
    assert hub.received[0].headers["User-Agent"] == "cluster-gateway"
    assert hub.received[0].query == {"limit": "1"}


@pytest.mark.parametrize(
    ("status", "expected", "retriable"),
    [
        (401, AccessDeniedError, False),
        (403, AccessDeniedError, False),
        (409, ConflictError, False),
        (410, ExpiredError, False),
        (422, HubUnavailableError, False),
        (429, HubUnavailableError, True),
        (500, HubUnavailableError, True),
        (503, HubUnavailableError, True),
    ],
)
async def test_maps_each_status_and_names_it(
    hub: FakeHub, client: HubClient, status: int, expected: type[GatewayError], *, retriable: bool
) -> None:
    hub.script("LIST", Answer(status=status, body=make_status(status, message="because")))
    with pytest.raises(expected, match=f"answered {status} to GET /x: because") as caught:
        await client.get("/x")
    assert (caught.value.retry_after_seconds is not None) is retriable


async def test_an_absent_object_is_none(hub: FakeHub, client: HubClient) -> None:
    hub.script("LIST", Answer(status=404))
    hub.script("PATCH", Answer(status=404))
    assert await client.get("/x") is None
    assert await client.patch("/x", {}) is None
    assert hub.of_kind("PATCH")[0].headers["Content-Type"] == "application/merge-patch+json"


async def test_what_was_posted_is_never_quoted(hub: FakeHub, client: HubClient) -> None:
    hub.script("POST", Answer(status=422, body=make_status(422, "Invalid", "spec.token: canary")))
    with pytest.raises(HubUnavailableError) as caught:
        await client.post("/x", {"spec": {"token": "canary"}})
    assert "canary" not in caught.value.message
    assert "Invalid" in caught.value.message


async def test_a_secret_reaches_no_log(hub: FakeHub, client: HubClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub.script("LIST", Answer(body={"data": "canary"}))
    await client.get("/x")
    assert "canary" not in caplog.text
    assert "gateway-token" not in caplog.text


async def test_an_answer_that_is_no_object_is_the_hubs_fault(hub: FakeHub, client: HubClient) -> None:
    hub.script("LIST", Answer(body=[1]))
    with pytest.raises(HubUnavailableError, match="not an object"):
        await client.get("/x")


async def test_a_hub_that_is_down_is_unavailable(tmp_path: Path) -> None:
    async with FakeHub() as gone:
        kubeconfig = gone.write_kubeconfig(tmp_path)
    async with open_hub_clients(HubSettings(kubeconfig=kubeconfig)) as clients:
        with pytest.raises(HubUnavailableError, match="could not be reached") as caught:
            await clients.registry.get("/x")
    assert caught.value.retry_after_seconds == 1


async def test_a_frozen_hub_is_given_up(hub: FakeHub, tmp_path: Path) -> None:
    thawed = asyncio.Event()
    hub.script("LIST", Answer(held=thawed))
    settings = HubSettings(kubeconfig=hub.write_kubeconfig(tmp_path), request_timeout_seconds=0.05)
    async with open_hub_clients(settings) as clients:
        with pytest.raises(HubUnavailableError, match="no answer in time"):
            await clients.registry.get("/x")
    thawed.set()


async def test_a_silent_watch_ends_so_that_it_is_resumed(hub: FakeHub, client: HubClient) -> None:
    hub.script("WATCH", Answer(events=({"type": "X"},)))
    async with client.watch_lines("/x", {"watch": "true"}, silence_seconds=0.1) as lines:
        assert [line async for line in lines] == [b'{"type": "X"}\n']


async def test_a_watch_that_a_frozen_hub_does_not_begin_is_given_up(hub: FakeHub, tmp_path: Path) -> None:
    thawed = asyncio.Event()
    hub.script("WATCH", Answer(held=thawed))
    settings = HubSettings(kubeconfig=hub.write_kubeconfig(tmp_path), request_timeout_seconds=0.05)
    async with open_hub_clients(settings) as clients:
        with pytest.raises(HubUnavailableError, match="no answer in time"):
            async with clients.registry.watch_lines("/x", {"watch": "true"}, silence_seconds=60):
                pass
    thawed.set()


async def test_a_second_kubeconfig_makes_a_second_client(hub: FakeHub, tmp_path: Path) -> None:
    first = hub.write_kubeconfig(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    second = hub.write_kubeconfig(other, token="reviewer")
    settings = HubSettings(kubeconfig=first, authorization_kubeconfig=second)
    hub.script("POST", Answer())
    async with open_hub_clients(settings) as clients:
        assert clients.authentication is clients.registry
        assert clients.authorization is not clients.registry
        await clients.authorization.post("/x", {})
    assert hub.received[0].headers["Authorization"] == "Bearer reviewer"


@pytest.mark.parametrize("content", ["", "{}", "current-context: x", "- a", "\tx: ["])
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken"
    path.write_text(content)
    with pytest.raises(HubUnavailableError, match="broken cannot be used"):
        async with open_hub_clients(HubSettings(kubeconfig=str(path))):
            pass
