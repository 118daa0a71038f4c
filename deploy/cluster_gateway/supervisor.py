"""Facade and core as two processes of one host, which live and die together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.errors import ConfigurationError
from cluster_gateway.handover import encode_settings

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from cluster_gateway_core.settings import CoreSettings
    from cluster_gateway_facade.settings import FacadeSettings

_log = logging.getLogger(__name__)

SOCKET_NAME = "core.sock"
_LONGEST_SOCKET_PATH = 103
"""macOS's limit of sun_path without its terminator; Linux allows 107."""
_MARGIN_SECONDS = 5.0
"""What a child gets beyond the grace time it was told to keep."""
_ABANDONED_SECONDS = 5.0
"""How long a child gets whose other half has died: what was open cannot be finished any more."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCommand:
    """How to start one child.

    Attributes:
        role: "core" or "facade", for the log.
        arguments: Its command line.
        handover: First line of its standard input, which then stays open as its lifeline.
        grace_seconds: How long it may take from SIGTERM to its end before it is killed.
        variables: Environment variables on top of this process's.
    """

    role: str
    arguments: Sequence[str]
    handover: bytes
    grace_seconds: float
    variables: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class _Child:
    command: ChildCommand
    process: asyncio.subprocess.Process
    ended: asyncio.Task[int]

    @property
    def role(self) -> str:
        return self.command.role


def build_children(
    core: CoreSettings, facade: FacadeSettings, *, directory: Path, verbosity: int
) -> tuple[ChildCommand, ChildCommand]:
    """Describe the core and the facade of one host, joined by a socket in a private directory.

    Args:
        core: The core's settings; its socket is put in.
        facade: The facade's settings; its target is put in.
        directory: Directory that only this user may enter.
        verbosity: The flag `-v`.

    Returns:
        The core's and the facade's command.

    Raises:
        ConfigurationError: The directory's path is too long for a socket.
    """
    socket = str(directory / SOCKET_NAME)
    if len(socket.encode()) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(f"the path {socket} is too long for a socket: set TMPDIR to a shorter one")
    core = dataclasses.replace(core, serving=dataclasses.replace(core.serving, unix_socket=socket))
    facade = dataclasses.replace(facade, core=dataclasses.replace(facade.core, target=f"unix:{socket}"))
    return (
        ChildCommand(
            role="core",
            arguments=_python("core"),
            handover=encode_settings(core, verbosity=verbosity),
            grace_seconds=core.serving.grace_seconds + _MARGIN_SECONDS,
            # The Kubernetes client writes a kubeconfig's key to a temporary file: it goes with the directory,
            # however the core ends.
            variables={"TMPDIR": str(directory)},
        ),
        ChildCommand(
            role="facade",
            arguments=_python("facade"),
            handover=encode_settings(facade, verbosity=verbosity),
            grace_seconds=facade.serving.shutdown_delay_seconds + facade.serving.grace_seconds + _MARGIN_SECONDS,
        ),
    )


@contextlib.contextmanager
def private_directory() -> Generator[Path]:
    """Make a directory that only this user may enter, and remove it with all it holds at the end."""
    directory = Path(tempfile.mkdtemp(prefix="cluster-gateway-"))  # mode 0700
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_gateway(core: CoreSettings, facade: FacadeSettings, *, verbosity: int) -> int:
    """Run a core and a facade on this host until a signal or the death of either.

    Returns:
        0 after an orderly stop, 1 otherwise.

    Raises:
        ConfigurationError: As `build_children`.
    """
    with private_directory() as directory:
        commands = build_children(core, facade, directory=directory, verbosity=verbosity)
        return asyncio.run(supervise(*commands))


async def supervise(core: ChildCommand, facade: ChildCommand) -> int:
    """Run two children until one dies or SIGTERM or SIGINT arrives.

    On a signal the facade is told first and waited for, so that what it still serves has a core; then the
    core. A second signal kills both. When either dies unasked, the other is ended too. Cancellation kills
    both.

    Returns:
        0 if both ended as asked, else 1.
    """
    stopping = asyncio.Event()
    killing = asyncio.Event()
    children: list[_Child] = []
    with _signal_handlers(stopping, killing):
        try:
            for command in (core, facade):
                children.append(await _start(command))  # noqa: PERF401 - those started are known to `finally`
            return await _supervise(*children, stopping=stopping, killing=killing)
        finally:
            for child in children:
                _kill(child)
            await asyncio.gather(*(child.ended for child in children))


async def _supervise(core: _Child, facade: _Child, *, stopping: asyncio.Event, killing: asyncio.Event) -> int:
    told = asyncio.get_running_loop().create_task(stopping.wait(), name="wait for a signal")
    try:
        await asyncio.wait({told, core.ended, facade.ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
    dead = [child for child in (core, facade) if child.ended.done()]
    if dead:
        for child in dead:
            _log.error("the %s died: %s; ending", child.role, describe_status(child.ended.result()))
        for child in (facade, core):
            await _stop(child, within_seconds=_ABANDONED_SECONDS, killing=killing)
        return 1
    _log.info("stopping: the facade drains first, then the core")
    orderly = True
    for child in (facade, core):
        orderly &= await _stop(child, within_seconds=child.command.grace_seconds, killing=killing)
    return 0 if orderly else 1


async def _stop(child: _Child, *, within_seconds: float, killing: asyncio.Event) -> bool:
    """End a child, by SIGKILL if it takes too long or a second signal comes; tell if it ended as asked."""
    if child.ended.done():
        return False
    _signal(child, signal.SIGTERM)
    killed = asyncio.get_running_loop().create_task(killing.wait(), name="wait for a second signal")
    try:
        await asyncio.wait({child.ended, killed}, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        killed.cancel()
    if not child.ended.done():
        _log.error("the %s did not end in time and is killed", child.role)
        _kill(child)
    status = await child.ended
    # A child that had not yet installed its handler is ended by the very signal that it was sent.
    if status in {0, -signal.SIGTERM}:
        return True
    _log.error("the %s stopped badly: %s", child.role, describe_status(status))
    return False


async def _start(command: ChildCommand) -> _Child:
    process = await asyncio.create_subprocess_exec(
        *command.arguments,
        stdin=asyncio.subprocess.PIPE,
        # A group of its own: the terminal's interrupt must reach the supervisor alone, which keeps the order.
        process_group=0,
        env={**os.environ, **command.variables},
    )
    ended = asyncio.get_running_loop().create_task(process.wait(), name=f"wait for the {command.role}")
    child = _Child(command, process, ended)
    if process.stdin is not None:
        # No drain: a child that died already is seen by its end, and the line fits the pipe's buffer.
        process.stdin.write(command.handover)
    _log.info("started the %s, process %d", command.role, process.pid)
    return child


@contextlib.contextmanager
def _signal_handlers(stopping: asyncio.Event, killing: asyncio.Event) -> Generator[None]:
    loop = asyncio.get_running_loop()

    def notice() -> None:
        (killing if stopping.is_set() else stopping).set()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, notice)
    try:
        yield
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


def _kill(child: _Child) -> None:
    _signal(child, signal.SIGKILL)


def _signal(child: _Child, number: signal.Signals) -> None:
    # `returncode` is set before the process id can be given to another.
    if child.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def describe_status(status: int) -> str:
    """Say how a process ended: "exit status 3", or "signal SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


def _python(role: str) -> tuple[str, ...]:
    # -P: the working directory, which may be writable, is no place to import from.
    return (sys.executable, "-P", "-m", "cluster_gateway.child", role)
