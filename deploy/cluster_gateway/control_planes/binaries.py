"""Where the programs of local control planes are found, and when they are built instead."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.building import build_programs
from cluster_gateway.control_planes.programs import (
    CORE_PROGRAMS,
    REQUIRED_PROGRAMS,
    Program,
    Programs,
    Report,
    is_executable,
    report_to_stderr,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def find_installed(report: Report = report_to_stderr) -> Programs:
    """Return the three core programs from `KUBEBUILDER_ASSETS` or, failing that, from `PATH`.

    Nothing is returned from a place that lacks one of them. The other programs are never looked up
    there: a real kubelet on `PATH` is not the one we need.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        found = {program: Path(assets).absolute() / program for program in CORE_PROGRAMS}
        missing = sorted(program for program, path in found.items() if not is_executable(path))
        if not missing:
            return MappingProxyType(found)
        report(f"KUBEBUILDER_ASSETS={assets} is not used: it lacks {', '.join(missing)}")
    on_path = {program: shutil.which(program) for program in CORE_PROGRAMS}
    complete = {program: Path(path).absolute() for program, path in on_path.items() if path}
    return MappingProxyType(complete if len(complete) == len(CORE_PROGRAMS) else {})


async def find_programs(
    needed: Iterable[Program] = REQUIRED_PROGRAMS, *, report: Report = report_to_stderr
) -> Programs:
    """Find programs, building with Go those that are not there.

    The core programs come from `KUBEBUILDER_ASSETS` or `PATH` if all three are in one of them; everything
    else comes from the cache, where it is built first if its pinned version has never been built. A first
    build takes several minutes; two processes never build at once. On cancellation a build is ended.

    Args:
        needed: The programs wanted.
        report: Told about every build: its start, its end, and every 15 seconds in between.

    Raises:
        GoUnavailableError: Something must be built, and there is no Go or one too old.
        ProgramsUnavailableError: Something must be built, and its Go module is not there.
        BuildFailedError: Go could not build it.
    """
    wanted = frozenset(needed)
    installed: Programs = find_installed(report) if wanted & CORE_PROGRAMS else {}
    found = {program: path for program, path in installed.items() if program in wanted}
    built = await build_programs([program for program in Program if program in wanted - found.keys()], report)
    return MappingProxyType({**found, **built})
