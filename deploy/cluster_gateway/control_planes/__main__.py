"""`python -m cluster_gateway.control_planes DIR`: control planes on this host until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.binaries import find_programs
from cluster_gateway.control_planes.foreground import run_in_foreground, wait_for_first_death
from cluster_gateway.control_planes.nodes import start_kubelet
from cluster_gateway.control_planes.plane import DEFAULT_NAMES, start_control_planes
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
        await wait_for_first_death(
            {process for plane in planes.values() for process in (plane.process, *plane.dependencies)}
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 after an error, which is printed as one sentence.
    """
    return run_in_foreground(run(parse_arguments(arguments)), "control planes")


if __name__ == "__main__":
    sys.exit(main())
