"""Answers of the hub, kept for a short time, each asked once however many wait for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from cluster_gateway_core.errors import Hop, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from types import TracebackType

KeyT = TypeVar("KeyT", bound="Hashable")
AnswerT = TypeVar("AnswerT")


class ReviewCache(Generic[KeyT, AnswerT]):
    """A bounded cache with expiry and single flight; an async context manager that ends open questions."""

    def __init__(
        self, *, capacity: int, name: str, pending: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._pending = pending
        self._name = name
        self._clock = clock
        self._answers: OrderedDict[KeyT, tuple[float, AnswerT]] = OrderedDict()
        self._questions: dict[KeyT, asyncio.Task[AnswerT]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        open_questions = list(self._questions.values())
        for question in open_questions:
            question.cancel()
        await asyncio.gather(*open_questions, return_exceptions=True)

    def peek(self, key: KeyT) -> AnswerT | None:
        """The kept answer, or None when there is none or it is too old."""
        entry = self._answers.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._answers[key]
            return None
        self._answers.move_to_end(key)
        return entry[1]

    async def ask(
        self,
        key: KeyT,
        question: Callable[[], Coroutine[None, None, AnswerT]],
        ttl_seconds: Callable[[AnswerT], float],
    ) -> AnswerT:
        """Get the answer from the cache, from who is asking already, or from the hub.

        Args:
            key: Everything that the answer depends on.
            question: Asks the hub; it must end by itself. Its exceptions reach all who wait and are not kept.
            ttl_seconds: How long an answer is believed; 0 keeps it not at all.

        Returns:
            The answer. A caller that is cancelled leaves the question to the others who wait (SAR-14).

        Raises:
            OverloadedError: Too many other questions wait for the hub.
        """
        answer = self.peek(key)
        if answer is not None:
            return answer
        task = self._questions.get(key)
        if task is None:
            if len(self._questions) >= self._pending:
                raise OverloadedError(
                    f"{self._pending} questions like this wait for the hub already", hop=Hop.HUB, retry_after_seconds=1
                )
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._settle(key, question, ttl_seconds), name=self._name)
            self._questions[key] = task
            task.add_done_callback(lambda _: self._questions.pop(key))
        return await asyncio.shield(task)

    async def _settle(
        self,
        key: KeyT,
        question: Callable[[], Coroutine[None, None, AnswerT]],
        ttl_seconds: Callable[[AnswerT], float],
    ) -> AnswerT:
        answer = await question()
        ttl = ttl_seconds(answer)
        if ttl > 0:
            self._answers[key] = (self._clock() + ttl, answer)
            self._answers.move_to_end(key)
            while len(self._answers) > self._capacity:
                self._answers.popitem(last=False)
        return answer
