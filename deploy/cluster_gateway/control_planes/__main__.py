"""`python -m cluster_gateway.control_planes DIR`: control planes on this host until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.binaries import find_programs
from cluster_gateway.control_planes.errors import ControlPlaneError
from cluster_gateway.control_planes.nodes import start_kubelet
from cluster_gateway.control_planes.plane import DEFAULT_NAMES, ControlPlane, start_control_planes
from cluster_gateway.control_planes.programs import REQUIRED_PROGRAMS, Program, report_to_stderr

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; by default that of this process."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster_gateway.control_planes", description=sys.modules[__name__].__doc__
    )
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="where everything is kept")
    parser.add_argument("--names", nargs="+", default=list(DEFAULT_NAMES), help="planes (%(default)s)")
    parser.add_argument("--base-port", type=int, help="first port; free ports are chosen by default")
    parser.add_argument("--kubelet", action="store_true", help="give each plane a node, node1")
    parser.add_argument("--build-only", action="store_true", help="build missing programs and exit")
    parser.add_argument("--all-programs", action="store_true", help="build the optional programs too")
    parsed = parser.parse_args(arguments)
    if parsed.directory is None and not parsed.build_only:
        parser.error("DIR is needed unless --build-only is given")
    return parsed


async def run(parsed: argparse.Namespace) -> None:
    """Do what the command line asks for; ends when cancelled.

    Raises:
        ControlPlaneError: Something could not be built or started, or died.
    """
    needed = frozenset(Program) if parsed.all_programs else REQUIRED_PROGRAMS
    programs = await find_programs(needed)
    if parsed.build_only:
        for program, path in sorted(programs.items()):
            sys.stdout.write(f"{program} {path}\n")
        return
    async with contextlib.AsyncExitStack() as stack:
        planes = await stack.enter_async_context(
            start_control_planes(parsed.directory, parsed.names, programs=programs, base_port=parsed.base_port)
        )
        if parsed.kubelet:
            for plane in planes.values():
                await stack.enter_async_context(start_kubelet(plane))
        for plane in planes.values():
            report_to_stderr(f"{plane.name} is ready: kubectl --kubeconfig {plane.kubeconfig} get namespaces")
        report_to_stderr("Ctrl-C stops them")
        await _wait_for_death(list(planes.values()))


async def _wait_for_death(planes: Sequence[ControlPlane]) -> None:
    processes = {process for plane in planes for process in (plane.process, *plane.dependencies)}
    try:
        async with asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(process.wait_for_death(), name=f"watch {process.name}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _run_until_signalled(parsed: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(run(parsed), name="control planes")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 after an error, which is printed as one sentence.
    """
    return asyncio.run(_run_until_signalled(parse_arguments(arguments)))


if __name__ == "__main__":
    sys.exit(main())
