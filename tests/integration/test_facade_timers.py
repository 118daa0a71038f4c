"""Connections that do nothing, or a head's bytes one by one, are closed (slow loris, pitfall A7)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import ALICE, PROXY, RunningFacade, running_facade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_core import Conversation
    from tests.support.raw_client import RawClient

HEAD = "\r\n".join(("Host: gateway", *ALICE))


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[RunningFacade]:
    async with running_facade(tmp_path, header_timeout_seconds=0.2) as running:
        yield running


async def dribble(client: RawClient) -> None:
    for byte in f"GET {PROXY}/x HTTP/1.1\r\nX: {'a' * 10000}".encode():
        await client.send(bytes((byte,)))
        await asyncio.sleep(0.01)


async def test_a_new_connection_that_says_nothing_is_closed(impatient: RunningFacade) -> None:
    async with impatient.connect() as client:
        assert await client.rest() == b""


async def test_a_head_that_dribbles_is_cut_off(impatient: RunningFacade) -> None:
    async with impatient.connect() as client, asyncio.TaskGroup() as group:
        dribbling = group.create_task(dribble(client))
        assert await client.rest() == b""
        dribbling.cancel()
    assert impatient.core.conversations == []


async def test_a_later_head_that_dribbles_is_cut_off_too(impatient: RunningFacade) -> None:
    async with impatient.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"
        await client.send(b"GET / HT")
        assert await client.rest() == b""


async def test_a_long_request_and_a_slow_body_outlast_the_limit(impatient: RunningFacade) -> None:
    async def script(conversation: Conversation) -> None:
        await asyncio.sleep(0.5)
        await conversation.read_all()
        await conversation.respond(200, (b"Content-Length", b"2"), body=b"ok")

    impatient.core.script(script)
    async with impatient.as_front_proxy() as client:
        await client.send(f"POST {PROXY}/x HTTP/1.1\r\n{HEAD}\r\nContent-Length: 2\r\n\r\na".encode())
        await asyncio.sleep(0.3)
        await client.send(b"b")
        assert (await client.response()).body == b"ok"
        await asyncio.sleep(0.3)
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"


async def test_an_idle_kept_connection_is_closed_after_its_own_limit(tmp_path: Path) -> None:
    async with running_facade(tmp_path, keepalive_seconds=0.2) as running, running.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"
        assert await client.rest() == b""


async def test_a_timer_never_outlives_its_connection(impatient: RunningFacade) -> None:
    async with impatient.as_front_proxy() as client:
        await client.get(f"{PROXY}/x", *ALICE)
        assert impatient.connection._head_timer is None
