"""Child processes that are always stopped again, and polling that notices when one of them dies.

Each process has a session of its own, so that Ctrl-C in a terminal reaches only us and we stop the others
in the right order. On Linux the kernel also kills them when we are killed (see `launcher`); elsewhere a
kill -9 of this process leaves them running.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.errors import CommandTimeoutError, NotReadyError, ProcessDiedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

STOP_SECONDS = 10.0
"""How long a process may take to end after SIGTERM before it is killed."""

_LAST_LINES = 8
_TAIL_BYTES = 16 * 1024
_POLL_SECONDS = 0.1
_LAUNCHER = Path(__file__).with_name("launcher.py")


def last_lines(log: Path, count: int = _LAST_LINES) -> str:
    """Return the last lines of a log file, joined by newlines; empty if there is no such file."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def _with_launcher(arguments: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(arguments)
    # -I -S: nothing but the standard library, so that it starts in a few milliseconds.
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *arguments]


class ChildProcess:
    """One long-running program with its own log file; it can be started again after it has been stopped.

    Start it from the main thread or from a thread that lives longer than the process: Linux takes the
    end of the starting thread for the end of the parent.
    """

    def __init__(self, name: str, arguments: Sequence[str | Path], log: Path) -> None:
        """Describe the process without starting it.

        Args:
            name: What error messages call it.
            arguments: The program's absolute path, then its arguments.
            log: File that its output is appended to.
        """
        self.name = name
        self.log = log
        self._arguments = [str(argument) for argument in arguments]
        self._process: asyncio.subprocess.Process | None = None
        self._is_wanted = False

    def __repr__(self) -> str:
        """Say what it is and whether it runs."""
        state = f"pid {self.pid}" if self.is_running else "not running"
        return f"<{type(self).__name__} {self.name}, {state}>"

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Process id of the latest start.

        Raises:
            RuntimeError: It is not running.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    async def start(self) -> None:
        """Start the program.

        It is not ready for use when this returns. If this is cancelled nothing keeps running.
        """
        self._is_wanted = True
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_with_launcher(self._arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def stop(self, *, timeout_seconds: float = STOP_SECONDS) -> None:
        """End the program: SIGTERM, and SIGKILL after `timeout_seconds`; if cancelled, SIGKILL at once."""
        self._is_wanted = False
        process = self._process
        if process is None:
            return
        try:
            _signal(process, signal.SIGTERM)
            await asyncio.wait_for(process.wait(), timeout_seconds)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()
        except asyncio.CancelledError:
            _signal(process, signal.SIGKILL)
            await process.wait()
            raise
        finally:
            if process.returncode is not None:
                self._process = None

    async def wait_for_death(self) -> None:
        """Wait until the program ends; return if it was stopped, or was not running at all.

        Raises:
            ProcessDiedError: It ended by itself.
        """
        if self._process is not None:
            await self._process.wait()
            self.require_alive()

    def require_alive(self) -> None:
        """Do nothing if the program runs or has been stopped on purpose.

        Raises:
            ProcessDiedError: It ended by itself; the message has its last log lines.
        """
        if not self._is_wanted or self._process is None or self._process.returncode is None:
            return
        code = self._process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        message = f"{self.name} ended by itself ({how}); its log {self.log} ends with:\n{last_lines(self.log)}"
        raise ProcessDiedError(message, name=self.name, exit_code=code, log=self.log)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def stop_all(processes: Sequence[ChildProcess]) -> None:
    """Stop processes at the same time, none waiting for another."""
    async with asyncio.TaskGroup() as group:
        for process in processes:
            group.create_task(process.stop(), name=f"stop {process.name}")


@contextlib.asynccontextmanager
async def running(process: ChildProcess) -> AsyncGenerator[ChildProcess]:
    """Keep a process running for the duration of a block."""
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def wait_until(
    condition: Callable[[], Awaitable[bool]],
    *,
    what: str,
    processes: Sequence[ChildProcess] = (),
    timeout_seconds: float,
) -> None:
    """Poll until a condition holds.

    Args:
        condition: Asked again and again; each call must come to an end by itself.
        what: What is being waited for, as in "hub is ready".
        processes: Whoever the condition depends on; one that dies ends the waiting.
        timeout_seconds: When to give up.

    Raises:
        ProcessDiedError: One of the processes died.
        NotReadyError: The condition did not hold in time.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await condition():
                for process in processes:
                    process.require_alive()
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as error:
        logs = "".join(f"\n{process.log} ends with:\n{last_lines(process.log)}" for process in processes)
        message = f"gave up after {timeout_seconds:g} s waiting until {what}{logs}"
        raise NotReadyError(message) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a finished command left behind.

    Attributes:
        exit_code: Its exit code; the negative signal number if a signal ended it.
        stdout: What it printed.
        stderr: What it complained about.
    """

    exit_code: int
    stdout: str
    stderr: str


async def run_command(
    arguments: Sequence[str | Path],
    *,
    timeout_seconds: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> CommandResult:
    """Run a command to its end; a non-zero exit code is a result like any other.

    Args:
        arguments: The program and its arguments.
        timeout_seconds: When to kill it, with everything it started in its session.
        stdin: What it reads; empty is an end of file.
        environment: Variables set on top of our own.
        directory: Where it is run; by default our own working directory.

    Raises:
        CommandTimeoutError: It was still running at the deadline. It is killed then, as on cancellation.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(argument) for argument in arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        cwd=directory,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await process.communicate(stdin)
            code = await process.wait()
    except TimeoutError as error:
        name = Path(arguments[0]).name
        raise CommandTimeoutError(f"{name} was still running after {timeout_seconds:g} s") from error
    finally:
        await _kill_session(process)
    return CommandResult(exit_code=code, stdout=stdout.decode(errors="replace"), stderr=stderr.decode(errors="replace"))


async def _kill_session(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
