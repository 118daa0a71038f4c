"""Which connection an exchange gets: a synchronous decision that touches no socket.

Newest first, because the newest is the least likely to have been closed by the other side. Whatever is returned for
closing is closed by the caller.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class Poolable(Protocol):
    """What the pool asks of a connection."""

    @property
    def is_open(self) -> bool:
        """Whether it can still carry bytes."""
        ...

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow on it."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=Poolable)


class IdleBudget:
    """How many unused connections all pools together may keep.

    Attributes:
        capacity: At most.
        used: Now.
    """

    __slots__ = ("capacity", "used")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0


class ConnectionPool(Generic[ConnectionT]):
    """The unused connections to one cluster with one credential."""

    def __init__(self, *, capacity: int, idle_seconds: float, budget: IdleBudget) -> None:
        self._capacity = capacity
        self._budget = budget
        self._idle_seconds = idle_seconds
        self._idle: deque[tuple[float, ConnectionT]] = deque()
        self._retired = False

    def __repr__(self) -> str:
        return f"<ConnectionPool: {len(self._idle)} idle{', retired' if self._retired else ''}>"

    def take(self) -> ConnectionT | None:
        """Return the newest usable connection, or None when one must be opened."""
        while self._idle:
            _, connection = self._idle.pop()
            self._budget.used -= 1
            if connection.is_open:
                return connection
        return None

    def give(self, connection: ConnectionT, now: float) -> Iterable[ConnectionT]:
        """Take back a connection whose exchange is over; return those to close, in monotonic seconds `now`."""
        if self._retired or not connection.is_reusable:
            return (connection,)
        self._idle.append((now, connection))
        self._budget.used += 1
        surplus = self.expire(now)
        if len(self._idle) > self._capacity or self._budget.used > self._budget.capacity:
            self._budget.used -= 1
            surplus.append(self._idle.popleft()[1])
        return surplus

    def expire(self, now: float) -> list[ConnectionT]:
        """Return the connections that have been unused too long, to be closed."""
        expired: list[ConnectionT] = []
        while self._idle and now - self._idle[0][0] > self._idle_seconds:
            self._budget.used -= 1
            expired.append(self._idle.popleft()[1])
        return expired

    def retire(self) -> list[ConnectionT]:
        """Keep nothing from now on; return the unused connections, to be closed."""
        self._retired = True
        unused = [connection for _, connection in self._idle]
        self._budget.used -= len(unused)
        self._idle.clear()
        return unused
