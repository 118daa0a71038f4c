"""Running control planes in the foreground of a terminal: until Ctrl-C, SIGTERM, or the death of a process."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.errors import ControlPlaneError
from cluster_gateway.control_planes.programs import report_to_stderr

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from cluster_gateway.control_planes.processes import ChildProcess


async def wait_for_first_death(processes: Iterable[ChildProcess]) -> None:
    """Wait until one of the processes dies, and tell of it.

    Raises:
        ProcessDiedError: Always, unless cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(process.wait_for_death(), name=f"watch {process.name}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def run_in_foreground(work: Coroutine[None, None, None], name: str) -> int:
    """Run until the work ends; SIGINT and SIGTERM cancel it.

    Returns:
        The exit code: 0 after the end or a signal, 1 after an error, which is printed as one sentence.
    """
    return asyncio.run(_run_until_signalled(work, name))


async def _run_until_signalled(work: Coroutine[None, None, None], name: str) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name=name)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        report_to_stderr("stopped")
    except ControlPlaneError as error:
        report_to_stderr(f"error: {error}")
        return 1
    return 0
