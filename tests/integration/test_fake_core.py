"""The fake core does what its tests are told it does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.fake_core import Conversation, FakeCore

from cluster_gateway_client.channel import CoreEndpoint
from cluster_gateway_client.client import CoreClient
from cluster_gateway_client.errors import CoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[FakeCore]:
    async with FakeCore(tmp_path / "core.sock") as fake:
        yield fake


@pytest.fixture
async def client(core: FakeCore) -> AsyncIterator[CoreClient]:
    async with CoreClient(CoreEndpoint(target=core.target)) as made:
        yield made


async def test_scripts_answer_in_order_and_then_the_usual_answer(core: FakeCore, client: CoreClient) -> None:
    async def echo(conversation: Conversation) -> None:
        body = await conversation.read_all()
        await conversation.respond(201, (b"A", b"b"), body=body)

    core.script(echo)
    for status, body in ((201, b"sent"), (200, b"ok")):
        async with client.request("east", "POST", "/x", body=b"sent") as response:
            assert response.status == status
            assert await response.read() == body
    assert [one.head.cluster_name for one in core.conversations] == ["east", "east"]


async def test_a_failure_is_a_core_error(core: FakeCore, client: CoreClient) -> None:
    async def fail(conversation: Conversation) -> None:
        await conversation.fail("TIMEOUT")

    core.script(fail)
    with pytest.raises(CoreError) as failed:
        async with client.request("east", "GET", "/x"):
            pass
    assert (failed.value.reason, failed.value.cluster_name) == ("TIMEOUT", "east")


async def test_a_cancelled_exchange_is_seen(core: FakeCore, client: CoreClient) -> None:
    async def hold(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.hold()

    core.script(hold)
    async with client.request("east", "GET", "/x") as response:
        assert response.status == 200
    async with asyncio.timeout(20):
        await (await core.conversation()).cancelled.wait()
