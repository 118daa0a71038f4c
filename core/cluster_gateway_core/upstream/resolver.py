"""Names to addresses, so that a name whose servers do not answer delays nobody else.

The loop's own resolver shares a few threads among all names, and a lookup cannot be given up before its time: a few
dead name servers would hold every thread for half a minute. So each name has at most one lookup, whoever waits for it,
on a thread of its own, and there are at most so many threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

AddressInfo: TypeAlias = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]


class Resolver:
    """Looks names up with the system's resolver, at most `capacity` names at once; belongs to one event loop."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._running = 0
        self._lookups: dict[tuple[str, int], _Lookup] = {}
        self._queue: deque[_Lookup] = deque()

    def __repr__(self) -> str:
        return f"<Resolver: {self._running} lookups, {len(self._queue)} waiting>"

    async def resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        """Return a host's addresses, in the system's order; a literal address needs no lookup.

        Cancellation leaves the lookup to whoever else waits for it; its thread ends when the system's resolver does.

        Raises:
            socket.gaierror: There are none, or the name servers failed.
            UnicodeError: The host is nothing that a name can be.
        """
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass
        key = (host, port)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = _Lookup(key)
            self._queue.append(lookup)
        waiter: asyncio.Future[Sequence[AddressInfo]] = asyncio.get_running_loop().create_future()
        lookup.waiters.append(waiter)
        try:
            self._start_next()
            return await waiter
        finally:
            lookup.waiters.remove(waiter)

    def is_waiting(self, host: str, port: int) -> bool:
        """Whether a lookup waits because too many others run."""
        lookup = self._lookups.get((host, port))
        return lookup is not None and not lookup.started

    def _start_next(self) -> None:
        while self._queue and self._running < self._capacity:
            lookup = self._queue.popleft()
            if not lookup.waiters:
                del self._lookups[lookup.key]
                continue
            lookup.started = True
            self._running += 1
            arguments = (lookup, asyncio.get_running_loop())
            # A daemon, because nothing can end it and the process must not wait for it.
            thread = threading.Thread(target=self._look_up, args=arguments, name="lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._settle(lookup, socket.gaierror(socket.EAI_AGAIN, "the gateway cannot start another thread"))

    def _look_up(self, lookup: _Lookup, loop: asyncio.AbstractEventLoop) -> None:
        found: Sequence[AddressInfo] | Exception
        try:
            found = socket.getaddrinfo(*lookup.key, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            found = error
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(self._settle, lookup, found)

    def _settle(self, lookup: _Lookup, found: Sequence[AddressInfo] | Exception) -> None:
        self._running -= 1
        del self._lookups[lookup.key]
        for waiter in lookup.waiters:
            if waiter.done():
                continue
            if isinstance(found, Exception):
                waiter.set_exception(found)
            else:
                waiter.set_result(found)
        self._start_next()


class _Lookup:
    """One name that is being looked up, or waits to be."""

    __slots__ = ("key", "started", "waiters")

    def __init__(self, key: tuple[str, int]) -> None:
        self.key = key
        self.started = False
        self.waiters: list[asyncio.Future[Sequence[AddressInfo]]] = []
