"""Ending a core's work in good order."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster_gateway_transport.spread import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Work:
    """One exchange in progress.

    Attributes:
        ending: Whether it shall end as soon as it can without losing anything.
        wake: Called when `ending` is set, so that a waiting exchange looks up; None while there is nothing to wake.
    """

    __slots__ = ("ending", "wake")

    def __init__(self) -> None:
        self.ending = False
        self.wake: Callable[[], None] | None = None

    def end_soon(self) -> None:
        """Let it end as soon as it can."""
        self.ending = True
        if self.wake is not None:
            self.wake()


class Drain:
    """Counts the work in progress and tells it when to end.

    Before `begin` everything is served, after it new work is refused. `end_watches` lets watches end between events,
    and whatever else is open may finish until the caller of `wait_idle` loses patience.

    Attributes:
        draining: Whether new work is refused.
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

    async def end_watches(self, within_seconds: float) -> None:
        """Let what is open end at its next boundary, the last of it told within `within_seconds`."""
        async for work in spread(tuple(self._active), within_seconds):
            if work in self._active:
                work.end_soon()

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing is in progress; False when the time is up first, or nobody may wait longer."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return not self._active

    def give_up(self) -> None:
        """Let `wait_idle` return, whatever is in progress."""
        self._idle.set()
