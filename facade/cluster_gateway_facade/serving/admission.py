"""Which connections are held: a decision about counts, apart from sockets.

Whoever shows a certificate that a trusted CA signed is known, the hub's front proxy above all. Strangers, and everybody
until the handshake is done, share a room of their own, and so does each address. A full room takes nobody in vain: its
oldest stranger has to go, an idle one before one with a request in progress. So a flood of strangers, even from the
hub's own address, costs strangers their connections and never keeps the hub out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


class Guest(Protocol):
    """A connection as it is counted."""

    @property
    def busy(self) -> bool:
        """Whether a request is in progress on it."""
        ...

    def evict(self) -> None:
        """End it at once, whatever it does."""
        ...


class Admission:
    """The connections that are held.

    Args:
        total: Most in all.
        strangers: Most without a verified client certificate.
        strangers_per_address: Most of those from one address.
    """

    def __init__(self, *, total: int, strangers: int, strangers_per_address: int) -> None:
        self._total = total
        self._limit = strangers
        self._limit_per_address = strangers_per_address
        self._known: set[Guest] = set()
        self._strangers: dict[Guest, str] = {}
        self._by_address: dict[str, dict[Guest, None]] = {}

    @property
    def counts(self) -> tuple[int, int]:
        """How many are known, and how many strangers."""
        return len(self._known), len(self._strangers)

    def admit(self, guest: Guest, address: str) -> bool:
        """Take a new connection, a stranger still; False when all are taken by known ones."""
        same = self._by_address.get(address, {})
        if len(same) >= self._limit_per_address:
            self._make_room(same)
        elif len(self._strangers) >= self._limit or len(self._known) + len(self._strangers) >= self._total:
            if not self._strangers:
                return False
            self._make_room(self._strangers)
        self._strangers[guest] = address
        self._by_address.setdefault(address, {})[guest] = None
        return True

    def recognise(self, guest: Guest) -> None:
        """Take note that a connection has shown a certificate."""
        if guest in self._strangers:
            self._forget_stranger(guest)
            self._known.add(guest)

    def release(self, guest: Guest) -> None:
        """Take note that a connection has ended."""
        self._known.discard(guest)
        self._forget_stranger(guest)

    def _make_room(self, guests: Iterable[Guest]) -> None:
        """Evict the oldest that is idle, else the oldest."""
        oldest = next(iter(guests))
        victim = next((guest for guest in guests if not guest.busy), oldest)
        self._forget_stranger(victim)
        victim.evict()

    def _forget_stranger(self, guest: Guest) -> None:
        address = self._strangers.pop(guest, None)
        if address is None:
            return
        same = self._by_address[address]
        del same[guest]
        if not same:
            del self._by_address[address]
