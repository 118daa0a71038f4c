"""Processes as `/proc` shows them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.01


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has collected does not."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in {"Z", "X"}
    return False


def children_of(pid: int) -> dict[str, int]:
    """The process ids of a supervisor's children by their role, which ends their command line."""
    found: dict[str, int] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found[read_command_line(int(child))[-1]] = int(child)
    return found


def read_command_line(pid: int) -> list[str]:
    """What a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


async def until_gone(pid: int) -> None:
    """Wait until a process has ended."""
    await _until(lambda: not is_running(pid))


async def until_exists(path: Path) -> None:
    """Wait until another process has made a file."""
    await _until(path.exists)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - of another process nothing tells
            await asyncio.sleep(_POLL_SECONDS)
