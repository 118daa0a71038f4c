from __future__ import annotations

import asyncio

import pytest

from cluster_gateway_core.errors import OverloadedError
from cluster_gateway_core.hub.review_cache import ReviewCache


class Question:
    """A question whose answer the test gives."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.asked += 1
        return await asyncio.shield(self.answer)


def for_ten_seconds(_: str) -> float:
    return 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_equal_questions_are_asked_once_and_outlive_the_first_who_asked() -> None:
    """SAR-14."""
    question = Question()
    async with ReviewCache[str, str](capacity=8, name="test") as cache:
        loop = asyncio.get_running_loop()
        leader = loop.create_task(cache.ask("k", question, for_ten_seconds), name="leader")
        followers = [loop.create_task(cache.ask("k", question, for_ten_seconds), name="follower") for _ in range(1000)]
        await asyncio.sleep(0)
        leader.cancel()
        await asyncio.sleep(0)
        question.answer.set_result("yes")
        assert set(await asyncio.gather(*followers)) == {"yes"}
        assert leader.cancelled()
    assert question.asked == 1


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    """SAR-5."""
    failing, working = Question(), Question()
    failing.answer.set_exception(ValueError("down"))
    working.answer.set_result("yes")
    async with ReviewCache[str, str](capacity=8, name="test") as cache:
        results = await asyncio.gather(
            *(cache.ask("k", failing, for_ten_seconds) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [ValueError] * 3
        assert await cache.ask("k", working, for_ten_seconds) == "yes"
    assert failing.asked == 1


async def test_an_answer_expires_and_the_least_used_goes_first() -> None:
    clock = Clock()
    async with ReviewCache[str, str](capacity=2, name="test", clock=clock) as cache:
        for key in "ab":
            question = Question()
            question.answer.set_result(key)
            await cache.ask(key, question, for_ten_seconds)
        assert cache.peek("a") == "a"
        question = Question()
        question.answer.set_result("c")
        await cache.ask("c", question, for_ten_seconds)
        assert (cache.peek("a"), cache.peek("b"), cache.peek("c")) == ("a", None, "c")
        clock.now = 9.9
        assert cache.peek("a") == "a"
        clock.now = 10.0
        assert cache.peek("a") is None


async def test_leaving_ends_open_questions() -> None:
    question = Question()
    async with ReviewCache[str, str](capacity=2, name="test") as cache:
        waiting = asyncio.get_running_loop().create_task(cache.ask("a", question, for_ten_seconds), name="w")
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    question = Question()
    async with ReviewCache[str, str](capacity=2, name="test") as cache:
        waiting = asyncio.get_running_loop().create_task(cache.ask("a", question, for_ten_seconds), name="w")
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        question.answer.set_exception(ValueError("down"))
        await asyncio.sleep(0)
    assert caplog.text == ""


async def test_more_questions_than_may_wait_are_refused_and_equal_ones_are_not() -> None:
    """SAR-14: whoever shows made-up tokens must not fill the memory with questions."""
    answered = asyncio.Event()

    async def question() -> str:
        await answered.wait()
        return "yes"

    async with ReviewCache[str, str](capacity=10, pending=2, name="test") as cache:
        waiting = [
            asyncio.get_running_loop().create_task(cache.ask(key, question, lambda _: 10), name=key)
            for key in ("a", "b", "a", "b")
        ]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="2 questions like this wait for the hub already") as caught:
            await cache.ask("c", question, lambda _: 10)
        assert caught.value.retry_after_seconds == 1
        answered.set()
        assert await asyncio.gather(*waiting) == ["yes"] * 4
        assert await cache.ask("c", question, lambda _: 10) == "yes"
