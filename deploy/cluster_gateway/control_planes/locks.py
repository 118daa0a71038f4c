"""Locks between processes, which the kernel releases when their holder dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

_POLL_SECONDS = 0.2


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def lock_or_fail(path: Path, error: Exception) -> Generator[None]:
    """Hold the lock on a file for the duration of a block, or raise `error` if somebody else holds it."""
    with path.open("ab") as file:
        if not _try_lock(file):
            raise error
        yield


@contextlib.asynccontextmanager
async def waiting_lock(path: Path, waited: Callable[[float], None]) -> AsyncGenerator[None]:
    """Hold the lock on a file for the duration of a block, after waiting for whoever holds it.

    Polls rather than blocks, so that cancellation works.

    Args:
        path: File to lock; created if absent, never removed.
        waited: Called before each pause with the seconds waited so far.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    with path.open("ab") as file:
        while not _try_lock(file):
            waited(clock() - started)
            await asyncio.sleep(_POLL_SECONDS)
        yield
