"""Builds programs with Go from the modules of `deploy/control-planes`, once for each pinned version.

A program is built under a temporary name and renamed when it is complete, so that a file in the cache is
always whole. One lock covers the whole cache: a build uses all processors and gigabytes of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.errors import BuildFailedError, ProgramsUnavailableError
from cluster_gateway.control_planes.golang import BUILD_ENVIRONMENT, require_go
from cluster_gateway.control_planes.locks import waiting_lock
from cluster_gateway.control_planes.modules import GoModule, Target, modules_directory, target_of
from cluster_gateway.control_planes.processes import last_lines
from cluster_gateway.control_planes.programs import (
    Program,
    Programs,
    Report,
    cache_directory,
    is_executable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

HEARTBEAT_SECONDS = 15.0
"""How often a running build says that it is alive."""

BUILD_TIMEOUT_SECONDS = 45 * 60.0
"""Ten times what the largest program takes on two cores."""

_DISK_FULL = ("no space left on device", "disk quota exceeded")


async def build_programs(programs: Sequence[Program], report: Report) -> Programs:
    """Return programs from the cache, building those that are missing; see `binaries.find_programs`."""
    if not programs:
        return {}
    root = modules_directory()
    targets = {program: target_of(program) for program in programs}
    modules = {name: GoModule.read(root, name) for name in {target.module for target in targets.values()}}
    paths = {
        program: cache_directory() / modules[target.module].key / "bin" / program for program, target in targets.items()
    }
    missing = [program for program in programs if not is_executable(paths[program])]
    if missing:
        go = await require_go(max(module.go_version for module in modules.values()), root, ", ".join(missing))
        async with _exclusive(missing, report):
            for program in missing:
                module = modules[targets[program].module]
                if not is_executable(paths[program]):  # whoever held the lock may have built it
                    await _build(go, module, targets[program], paths[program], report)
    return paths


@contextlib.asynccontextmanager
async def _exclusive(missing: Sequence[Program], report: Report) -> AsyncGenerator[None]:
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{cache} cannot be created ({error.strerror}): set CLUSTER_GATEWAY_CACHE to a writable directory"
        raise ProgramsUnavailableError(message) from error
    next_report = 0.0

    def waited(seconds: float) -> None:
        nonlocal next_report
        if seconds >= next_report:
            report(f"{', '.join(missing)}: another process is building, waiting for it ({seconds:.0f} s so far)")
            next_report = seconds + HEARTBEAT_SECONDS

    async with waiting_lock(cache / "build.lock", waited):
        yield


async def _build(go: Path, module: GoModule, target: Target, path: Path, report: Report) -> None:
    name = f"{target.program} {module.version_of(target)}"
    log = path.parent.parent / f"{target.program}.log"
    temporary = path.with_name(f".{target.program}.{os.getpid()}.tmp")
    started = time.monotonic()

    def heartbeat(seconds: float) -> None:
        report(f"still building {name}, which takes {target.usual_time}: {seconds:.0f} s so far")

    report(f"building {name} with Go, usually {target.usual_time}; Go's output is in {log}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{target.program}.*.tmp"):  # ours alone: we hold the lock
            leftover.unlink()
        arguments = [str(go), *module.build_arguments(target, temporary)]
        code = await _run_go(arguments, module.directory, log, heartbeat)
        if code != 0 or not temporary.is_file():
            raise _failure(target, code, log)
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise BuildFailedError(_disk_full(target.program), program=target.program, log=log) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    report(f"built {name} in {time.monotonic() - started:.0f} s: {path}")


async def _run_go(arguments: Sequence[str], directory: Path, log: Path, heartbeat: Callable[[float], None]) -> int:
    """Run one `go build`; on cancellation its whole session ends, compilers and linker included."""
    started = time.monotonic()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=directory,
            env={**os.environ, **BUILD_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while (elapsed := time.monotonic() - started) < BUILD_TIMEOUT_SECONDS:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(process.wait(), HEARTBEAT_SECONDS)
            heartbeat(elapsed + HEARTBEAT_SECONDS)
        return -signal.SIGKILL
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _disk_full(program: Program) -> str:
    places = f"{cache_directory()} and in Go's caches (see `go env GOCACHE GOMODCACHE`)"
    with contextlib.suppress(OSError):
        places += f"; {shutil.disk_usage(cache_directory()).free // 2**20} MiB are free in the former"
    return f"the disk is full, so {program} could not be built: make room, about 6 GiB in all, in {places}"


def _failure(target: Target, code: int, log: Path) -> BuildFailedError:
    tail = last_lines(log)
    if any(text in tail.lower() for text in _DISK_FULL):
        message = _disk_full(target.program)
    elif code == -signal.SIGKILL:
        message = (
            f"building {target.program} was killed, by its deadline or for want of memory (give it 3 GiB, "
            f"or put ready-made programs in KUBEBUILDER_ASSETS); {log} ends with:\n{tail}"
        )
    else:
        message = f"building {target.program} failed (go build: exit code {code}); {log} ends with:\n{tail}"
    return BuildFailedError(message, program=target.program, log=log)
