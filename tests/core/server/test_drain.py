from __future__ import annotations

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


async def test_beginning_wakes_what_can_be_woken() -> None:
    drain = Drain()
    woken: list[str] = []
    with drain.track() as first, drain.track():
        first.wake = lambda: woken.append("first")
        assert not drain.draining

        drain.begin()

    assert drain.draining
    assert woken == ["first"]


async def test_work_may_end_while_it_is_woken() -> None:
    drain = Drain()
    first, second = drain.track(), drain.track()
    with second as other:
        first.__enter__().wake = lambda: None
        other.wake = lambda: first.__exit__(None, None, None) and None

        drain.begin()

        assert drain.active == 1
