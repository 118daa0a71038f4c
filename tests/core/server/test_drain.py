from __future__ import annotations

import asyncio
from contextlib import ExitStack

from cluster_gateway_core.server.drain import Drain


async def test_nothing_in_progress_is_idle() -> None:
    drain = Drain()

    assert await drain.wait_idle(0)
    assert drain.active == 0


async def test_work_is_counted_until_it_ends_even_by_failure() -> None:
    drain = Drain()
    try:
        with drain.track(), drain.track():
            assert drain.active == 2
            assert not await drain.wait_idle(0)
            raise KeyError  # noqa: TRY301
    except KeyError:
        pass

    assert drain.active == 0
    assert await drain.wait_idle(0)


async def test_what_can_be_woken_is_woken_and_all_is_told_to_end() -> None:
    drain = Drain()
    woken: list[str] = []
    with drain.track() as first, drain.track() as second:
        first.wake = lambda: woken.append("first")
        assert not drain.draining

        drain.begin()
        assert drain.draining
        assert not first.ending

        await drain.end_watches(1)
        assert first.ending
        assert second.ending

    assert woken == ["first"]


async def test_many_watches_are_not_told_all_at_once_and_the_last_within_the_time() -> None:
    """GS-8: the watches of all informers end here and begin elsewhere."""
    drain = Drain()
    count = 60
    with ExitStack() as stack:
        works = [stack.enter_context(drain.track()) for _ in range(count)]
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(drain.end_watches(60))
            ended = 0
            steps: list[int] = []
            while not telling.done():
                await asyncio.sleep(0.01)
                now = sum(work.ending for work in works)
                if now != ended:
                    steps.append(now - ended)
                    ended = now
    assert sum(steps) == count
    assert max(steps) <= 20  # two hundred a second
    assert len(steps) > 2


async def test_so_many_watches_that_the_time_is_short_are_told_faster() -> None:
    drain = Drain()
    with ExitStack() as stack:
        works = [stack.enter_context(drain.track()) for _ in range(2000)]
        async with asyncio.timeout(5):  # at two hundred a second it would take ten
            await drain.end_watches(0.2)
        assert all(work.ending for work in works)


async def test_waiting_ends_when_it_is_given_up() -> None:
    drain = Drain()
    with drain.track():
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(drain.wait_idle(60))
            await asyncio.sleep(0)
            drain.give_up()
        assert waiting.result() is False


async def test_work_may_end_while_it_is_woken() -> None:
    drain = Drain()
    first, second = drain.track(), drain.track()
    with second as other:
        first.__enter__().wake = lambda: None
        other.wake = lambda: first.__exit__(None, None, None) and None

        await drain.end_watches(1)

        assert drain.active == 1
