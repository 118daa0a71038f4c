"""A value that many watch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ValueT = TypeVar("ValueT")


class Broadcast(Generic[ValueT]):
    """The latest value, given to each watcher at once and after each change.

    A slow watcher skips what it missed and gets only the latest; nothing is queued.

    Attributes:
        value: The latest value; None before the first.
    """

    def __init__(self) -> None:
        self.value: ValueT | None = None
        self._changed = asyncio.Event()

    def publish(self, value: ValueT) -> None:
        """Set the value and wake the watchers; an equal value wakes nobody."""
        if value == self.value:
            return
        self.value = value
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[ValueT]:
        """Yield the value, waiting for the first if need be, then each later one; ends by cancellation."""
        while True:
            changed = self._changed
            sent = self.value
            if sent is not None:
                yield sent
            # A value that came while the watcher was busy replaced `_changed`, whose old event is set.
            await changed.wait()
