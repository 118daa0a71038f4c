from __future__ import annotations

import asyncio

from cluster_gateway_core.hub.broadcast import Broadcast


async def test_a_late_watcher_gets_the_value_at_once_and_a_slow_one_only_the_latest() -> None:
    broadcast: Broadcast[int] = Broadcast()
    broadcast.publish(1)
    watcher = broadcast.watch()
    assert await anext(watcher) == 1
    broadcast.publish(2)
    broadcast.publish(3)
    assert await anext(watcher) == 3


async def test_an_early_watcher_waits_for_the_first_value() -> None:
    broadcast: Broadcast[int] = Broadcast()
    watcher = broadcast.watch()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(anext(watcher))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not first.done()
        broadcast.publish(1)
        assert await first == 1


async def test_an_equal_value_wakes_nobody() -> None:
    broadcast: Broadcast[int] = Broadcast()
    broadcast.publish(1)
    watcher = broadcast.watch()
    await anext(watcher)
    broadcast.publish(1)
    async with asyncio.TaskGroup() as group:
        pending = group.create_task(anext(watcher))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not pending.done()
        broadcast.publish(2)
        assert await pending == 2
