"""Ending a core's work in good order."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Work:
    """One exchange in progress.

    Attributes:
        wake: Called when draining begins, so that a waiting exchange looks up; None while there is nothing to wake.
    """

    __slots__ = ("wake",)

    def __init__(self) -> None:
        self.wake: Callable[[], None] | None = None


class Drain:
    """Counts the work in progress and tells it when to end.

    Before `begin` everything is served. After it new work is refused, watches end at their next event boundary, and
    whatever else is open may finish until the caller of `wait_idle` loses patience.
    """

    def __init__(self) -> None:
        self._active: set[Work] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @property
    def active(self) -> int:
        """How many exchanges are in progress."""
        return len(self._active)

    @contextmanager
    def track(self) -> Generator[Work, None, None]:
        """Count one exchange for as long as the context lasts."""
        work = Work()
        self._active.add(work)
        self._idle.clear()
        try:
            yield work
        finally:
            self._active.discard(work)
            if not self._active:
                self._idle.set()

    def begin(self) -> None:
        """Refuse new work from now on."""
        self.draining = True
        for work in tuple(self._active):
            if work.wake is not None:
                work.wake()

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing is in progress; False when the time is up first."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
