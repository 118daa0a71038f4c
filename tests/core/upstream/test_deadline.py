"""Waits that are noted down."""

from __future__ import annotations

import asyncio

from tests.support.scripted_cluster import WAIT_SECONDS

from cluster_gateway_core.upstream.deadline import Deadlines


async def test_a_wait_that_lasts_too_long_is_ended_once_and_one_that_ended_is_not() -> None:
    deadlines, over = Deadlines(shortest_seconds=0.01), asyncio.Event()
    ended: list[str] = []
    stopped = deadlines.start(0.01, lambda: ended.append("stopped"))
    unlimited = deadlines.start(0, lambda: ended.append("unlimited"))
    stopped.stop()
    late = deadlines.start(0.01, lambda: ended.append("late"))
    deadlines.start(0.02, over.set)

    async with asyncio.timeout(WAIT_SECONDS):
        await over.wait()

    assert ended == ["late"]
    assert (late.has_expired, stopped.has_expired, unlimited.has_expired) == (True, False, False)
    late.stop()
    assert (deadlines._open, deadlines._timer) == (set(), None)


async def test_a_wait_may_begin_when_another_ends() -> None:
    deadlines, over = Deadlines(shortest_seconds=0.01), asyncio.Event()
    deadlines.start(0.01, lambda: deadlines.start(0.01, over.set))
    async with asyncio.timeout(WAIT_SECONDS):
        await over.wait()
    assert deadlines._timer is None


async def test_many_waits_need_one_timer() -> None:
    deadlines = Deadlines(shortest_seconds=60)
    first = deadlines.start(60, list)
    timer = deadlines._timer
    others = [deadlines.start(60, list) for _ in range(1000)]
    assert deadlines._timer is timer
    for deadline in (first, *others):
        deadline.stop()
    assert not deadlines._open
    assert timer is not None
    timer.cancel()
