"""TCP to one of several addresses: the next is tried beside one that is slow, so that a dead one costs little."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import OverloadedError
from cluster_gateway_transport.peers import notice_dead_peer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_core.upstream.resolver import AddressInfo

_ATTEMPT_DELAY_SECONDS: Final = 0.25
"""How long an address has before the next is tried beside it. Source: RFC 8305 section 5."""
_MAXIMUM_ADDRESSES: Final = 16
"""Most addresses of one name that are tried: as many as fit into the time for connecting, one after the other."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The gateway's own shortages, which say nothing about a cluster."""


class ConnectError(Exception):
    """No address took a connection.

    Attributes:
        address: The first that failed.
        cause: The system's words for why.
    """

    def __init__(self, address: AddressInfo, cause: str) -> None:
        super().__init__(cause)
        self.address = address
        self.cause = cause


async def connect_to_any(addresses: Sequence[AddressInfo], *, dead_peer_seconds: float) -> socket.socket:
    """Connect to the first address that answers.

    Addresses of both families take turns, beginning with the resolver's first (RFC 8305 section 4). Cancellation closes
    whatever was opened; the caller closes the result.

    Raises:
        ConnectError: Each address refused.
        OverloadedError: The gateway has no descriptor or memory left for a socket.
    """
    waiting = interleave_families(addresses)[:_MAXIMUM_ADDRESSES]
    if len(waiting) == 1:
        return await _connect(waiting[0], dead_peer_seconds)
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[socket.socket]] = set()
    winner: socket.socket | None = None
    failure: ConnectError | None = None
    try:
        while winner is None and (waiting or running):
            if waiting:
                running.add(loop.create_task(_connect(waiting.pop(0), dead_peer_seconds), name="connect"))
            delay = _ATTEMPT_DELAY_SECONDS if waiting else None
            done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                running.discard(attempt)
                error = attempt.exception()
                if isinstance(error, ConnectError):
                    failure = failure or error
                else:
                    winner = attempt.result()  # raises what is the gateway's own fault
                    break
        await _end(running)
    except BaseException:
        if winner is not None:
            winner.close()
        await _end(running)
        raise
    if winner is None:
        raise failure or ConnectError(addresses[0], "no address")
    return winner


async def _end(attempts: set[asyncio.Task[socket.socket]]) -> None:
    """End the attempts that nobody needs any more; each closes its socket."""
    for attempt in tuple(attempts):
        if not attempt.cancel():  # it was over already
            attempts.discard(attempt)
            if not attempt.cancelled() and attempt.exception() is None:
                attempt.result().close()
    if attempts:
        await asyncio.wait(attempts)


async def _connect(info: AddressInfo, dead_peer_seconds: float) -> socket.socket:
    family, kind, protocol, _, address = info
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _failed(info, error) from error
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        notice_dead_peer(sock, dead_peer_seconds)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as error:
        sock.close()
        raise _failed(info, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _failed(info: AddressInfo, error: OSError) -> ConnectError | OverloadedError:
    # The loop puts words of its own into the error; people know the system's.
    cause = os.strerror(error.errno).lower() if error.errno else (str(error) or type(error).__name__).lower()
    if error.errno in _EXHAUSTED:
        return OverloadedError(
            f"the gateway cannot open another connection: {cause}",
            hint="Raise the limit of open files of the gateway's process.",
            retry_after_seconds=1,
        )
    return ConnectError(info, cause)


def interleave_families(addresses: Sequence[AddressInfo]) -> list[AddressInfo]:
    """Let the families take turns, beginning with that of the first address."""
    first = [info for info in addresses if info[0] == addresses[0][0]]
    other = [info for info in addresses if info[0] != addresses[0][0]]
    return [info for pair in zip_longest(first, other) for info in pair if info is not None]
