"""Waits that may not last for ever, without a timer for each.

A request waits several times, and nearly every wait is short; setting and cancelling a timer for each would cost more
than the rest of the bookkeeping. So the waits are only noted down, and one timer looks at all of them now and then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_INTERVAL_SECONDS: Final = 0.5


class Deadlines:
    """The waits of one event loop; each ends, or is ended when its time is up, at most half a second later."""

    def __init__(self, *, shortest_seconds: float) -> None:
        """Be told the shortest wait there will be; a tenth of it is precise enough."""
        self._interval_seconds = min(_LONGEST_INTERVAL_SECONDS, shortest_seconds / 10)
        self._open: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Deadlines: {len(self._open)} open>"

    def start(self, seconds: float, expire: Callable[[], object]) -> Deadline:
        """Note down a wait.

        Args:
            seconds: How long it may last; 0 for as long as it likes.
            expire: Ends it; called once, from the event loop, if `Deadline.stop` does not come first.
        """
        loop = asyncio.get_running_loop()
        deadline = Deadline(self, loop.time() + seconds, expire)
        if seconds:
            self._open.add(deadline)
            if self._timer is None:
                self._timer = loop.call_later(self._interval_seconds, self._look, loop)
        return deadline

    def forget(self, deadline: Deadline) -> None:
        """Stop watching a wait."""
        self._open.discard(deadline)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for deadline in [deadline for deadline in self._open if deadline.at <= now]:
            self._open.discard(deadline)
            deadline.has_expired = True
            deadline.expire()
        if self._open and self._timer is None:
            self._timer = loop.call_later(self._interval_seconds, self._look, loop)


class Deadline:
    """One wait.

    Attributes:
        at: When its time is up, in the loop's seconds.
        expire: Ends it.
        has_expired: Whether that was done.
    """

    __slots__ = ("_owner", "at", "expire", "has_expired")

    def __init__(self, owner: Deadlines, at: float, expire: Callable[[], object]) -> None:
        self._owner = owner
        self.at = at
        self.expire = expire
        self.has_expired = False

    def stop(self) -> None:
        """Say that the wait is over; leaving the deadline as a context manager does the same."""
        self._owner.forget(self)

    def __enter__(self) -> Self:
        """Wait."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._owner.forget(self)
