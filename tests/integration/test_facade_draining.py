"""Stopping in good order (GS-8): not ready, then no new connections, then open requests to their end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import ALICE, PROXY, RunningFacade, running_facade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_core import Conversation

HOST = "\r\n".join(("Host: gateway", *ALICE))


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[RunningFacade]:
    async with running_facade(tmp_path, grace_seconds=20.0) as running:
        yield running


async def stop(gateway: RunningFacade) -> None:
    await gateway.facade.stop(gateway.listener, asyncio.Event())


async def test_readiness_turns_red_while_requests_are_still_served(tmp_path: Path) -> None:
    async with (
        running_facade(tmp_path, shutdown_delay_seconds=1.0) as gateway,
        gateway.connect() as client,
        asyncio.TaskGroup() as group,
    ):
        assert (await client.get("/readyz")).status == 200
        group.create_task(stop(gateway))
        await gateway.until(lambda: gateway.facade._stopping)
        assert b"[-]shutdown failed" in (await client.get("/readyz")).body
        assert (await client.get("/livez")).status == 200


async def test_an_idle_connection_closes_and_new_ones_are_refused(patient: RunningFacade) -> None:
    async with patient.as_front_proxy() as client:
        await client.get(f"{PROXY}/x", *ALICE)
        async with asyncio.timeout(10):
            await stop(patient)
        assert await client.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", patient.port)


async def test_an_upload_in_progress_reads_on_and_is_answered(patient: RunningFacade) -> None:
    async def take(conversation: Conversation) -> None:
        body = await conversation.read_all()
        await conversation.respond(200, (b"Content-Length", b"%d" % len(body)), body=body)

    patient.core.script(take)
    async with patient.as_front_proxy() as client, asyncio.TaskGroup() as group:
        await client.send(f"POST {PROXY}/x HTTP/1.1\r\n{HOST}\r\nContent-Length: 4\r\n\r\nab".encode())
        await patient.core.conversation()
        stopping = group.create_task(stop(patient))
        await patient.until(lambda: patient.connection.draining)
        await client.send(b"cd")
        response = await client.response()
        assert response.body == b"abcd"
        assert response.values("Connection") == ["close"]
        async with asyncio.timeout(10):
            await stopping


async def test_a_tunnel_in_progress_carries_on_both_ways(patient: RunningFacade) -> None:
    async def echo(conversation: Conversation) -> None:
        await conversation.send_head(101)
        while piece := await conversation.read():
            await conversation.send(piece)
        await conversation.end()

    patient.core.script(echo)
    async with patient.as_front_proxy() as client, asyncio.TaskGroup() as group:
        await client.send(
            f"GET {PROXY}/x HTTP/1.1\r\n{HOST}\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode()
        )
        await client.head()
        group.create_task(stop(patient))
        await patient.until(lambda: patient.connection.draining)
        await client.send(b"still here")
        assert await client.read(10) == b"still here"
        client.writer.close()


async def test_a_watch_between_events_ends_completely_at_once(patient: RunningFacade) -> None:
    async def watch(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"{}\n")
        await conversation.hold()

    patient.core.script(watch)
    async with patient.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x?watch=1 HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
        await client.head()
        assert await client.read(8) == b"3\r\n{}\n\r\n"
        await patient.until(lambda: patient.connection.between_events)
        async with asyncio.timeout(10):
            await stop(patient)
        assert await client.rest() == b"0\r\n\r\n"


async def test_a_watch_within_an_event_ends_behind_it(patient: RunningFacade) -> None:
    rest = asyncio.Event()

    async def watch(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"{}\n{")
        await rest.wait()
        await conversation.send(b"}\n")
        await conversation.hold()

    patient.core.script(watch)
    async with patient.as_front_proxy() as client, asyncio.TaskGroup() as group:
        await client.send(f"GET {PROXY}/x?watch=true HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
        await client.head()
        assert await client.read(9) == b"4\r\n{}\n{\r\n"
        stopping = group.create_task(stop(patient))
        await patient.until(lambda: patient.connection.draining)
        rest.set()
        assert await client.rest() == b"2\r\n}\n\r\n0\r\n\r\n"
        async with asyncio.timeout(10):
            await stopping


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_what_outlasts_the_grace_time_is_cut_not_completed(tmp_path: Path, version: str) -> None:
    async def stream(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"half")
        await conversation.hold()

    async with running_facade(tmp_path, grace_seconds=0.2) as gateway:
        gateway.core.script(stream)
        async with gateway.as_front_proxy() as client:
            await client.send(f"GET {PROXY}/x HTTP/{version}\r\n{HOST}\r\n\r\n".encode())
            await client.head()
            await client.read(4 if version == "1.0" else 9)
            async with asyncio.timeout(10):
                await stop(gateway)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as cut:
                await client.read(1)
            assert version == "1.1" or cut.type is ConnectionResetError


async def test_many_watches_end_whole_and_not_all_at_once(patient: RunningFacade) -> None:
    """GS-8: each informer begins anew elsewhere, so two hundred a second are told."""
    count = 30

    async def watch(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"{}\n")
        await conversation.hold()

    patient.core.script(*[watch] * count)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(patient.as_front_proxy()) for _ in range(count)]
        for client in clients:
            await client.send(f"GET {PROXY}/x?watch=1 HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
        connections = patient.facade._server._open
        await patient.until(lambda: sum(connection.between_events for connection in connections) == count)
        watching = tuple(connections)
        async with asyncio.TaskGroup() as group:
            group.create_task(stop(patient))
            await patient.until(lambda: any(connection.draining for connection in watching))
            assert sum(connection.draining for connection in watching) < count
            for client in clients:
                assert (await client.response()).body == b"{}\n"


async def test_a_second_signal_cuts_what_is_open(tmp_path: Path) -> None:
    hurrying = asyncio.Event()

    async def stream(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"half")
        await conversation.hold()

    async with running_facade(tmp_path, grace_seconds=600.0) as gateway:
        gateway.core.script(stream)
        async with gateway.as_front_proxy() as client, asyncio.TaskGroup() as group:
            await client.send(f"GET {PROXY}/x HTTP/1.1\r\n{HOST}\r\n\r\n".encode())
            await client.head()
            await client.read(9)
            group.create_task(gateway.facade.stop(gateway.listener, hurrying))
            await gateway.until(lambda: gateway.connection.draining)
            hurrying.set()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await client.read(1)
