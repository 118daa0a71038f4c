"""Facade and core as two processes that live and die together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway_children import make_child, read_journal
from tests.support.processes import is_running, until_exists, until_gone

from cluster_gateway.errors import ConfigurationError
from cluster_gateway.handover import decode_settings
from cluster_gateway.supervisor import build_children, describe_status, private_directory, supervise
from cluster_gateway_core.settings import CoreSettings
from cluster_gateway_core.settings import ServingSettings as CoreServingSettings
from cluster_gateway_facade.settings import FacadeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.01


async def _read_pid(folder: Path, role: str) -> int:
    path = folder / f"{role}.pid"
    await until_exists(path)
    return int(path.read_text())


@contextlib.asynccontextmanager
async def _supervised(
    folder: Path, core: str = "obedient", facade: str = "obedient", *, grace_seconds: float = 20.0
) -> AsyncIterator[asyncio.Task[int]]:
    children = [
        make_child("core", folder, core, grace_seconds=grace_seconds),
        make_child("facade", folder, facade, grace_seconds=grace_seconds),
    ]
    task = asyncio.get_running_loop().create_task(supervise(*children), name="supervise")
    try:
        await _read_pid(folder, "core")
        await _read_pid(folder, "facade")
        async with asyncio.timeout(_WAIT_SECONDS):
            yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("victim", "other"), [("core", "facade"), ("facade", "core")])
async def test_death_of_either_ends_both_with_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, victim: str, other: str
) -> None:
    async with _supervised(tmp_path) as task:
        os.kill(await _read_pid(tmp_path, victim), signal.SIGKILL)
        assert await task == 1
    assert read_journal(tmp_path) == [f"{other} told", f"{other} ended"]
    assert f"the {victim} died: signal SIGKILL; ending" in caplog.messages
    assert not is_running(await _read_pid(tmp_path, other))


async def test_unasked_exit_is_a_death_that_names_its_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(_WAIT_SECONDS):
        status = await supervise(make_child("core", tmp_path, "brief"), make_child("facade", tmp_path))
    assert status == 1
    assert "the core died: exit status 3; ending" in caplog.messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_facade_drains_before_the_core_is_told(tmp_path: Path, number: signal.Signals) -> None:
    async with _supervised(tmp_path) as task:
        os.kill(os.getpid(), number)
        assert await task == 0
    assert read_journal(tmp_path) == ["facade told", "facade ended", "core told", "core ended"]


async def test_child_that_does_not_end_in_time_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _supervised(tmp_path, facade="stubborn", grace_seconds=0.2) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 1
    assert "the facade did not end in time and is killed" in caplog.messages
    assert "core ended" in read_journal(tmp_path)


async def test_second_signal_kills_at_once(tmp_path: Path) -> None:
    async with _supervised(tmp_path, facade="stubborn", core="stubborn") as task:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(_WAIT_SECONDS):
            while "facade told" not in read_journal(tmp_path):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 1
    assert not is_running(await _read_pid(tmp_path, "core"))


async def test_failure_while_stopping_shows_in_the_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _supervised(tmp_path, core="failing") as task:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 1
    assert "the core stopped badly: exit status 4" in caplog.messages


async def test_terminals_interrupt_reaches_the_supervisor_alone(tmp_path: Path) -> None:
    async with _supervised(tmp_path):
        for role in ("core", "facade"):
            assert os.getpgid(await _read_pid(tmp_path, role)) != os.getpgid(0)


async def test_cancellation_ends_both(tmp_path: Path) -> None:
    async with _supervised(tmp_path) as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not is_running(await _read_pid(tmp_path, "core"))
    assert not is_running(await _read_pid(tmp_path, "facade"))


_PARENT = """
import asyncio, pathlib, sys
from cluster_gateway.supervisor import supervise
from tests.support.gateway_children import make_child
folder = pathlib.Path(sys.argv[1])
asyncio.run(supervise(make_child("core", folder, "stubborn"), make_child("facade", folder, "stubborn")))
"""


async def test_killed_supervisor_takes_both_along(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PARENT,
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        pids = [await _read_pid(tmp_path, role) for role in ("core", "facade")]
    finally:
        process.kill()
        await process.wait()
    for pid in pids:
        await until_gone(pid)
    assert sorted(read_journal(tmp_path)) == ["core orphaned", "facade orphaned"]


async def test_settings_arrive_by_the_lifeline_and_not_on_the_command_line(tmp_path: Path) -> None:
    async with _supervised(tmp_path):
        assert (tmp_path / "core.handover").read_text() == "settings of the core\n"
    core, facade = build_children(
        CoreSettings(),
        FacadeSettings(),
        directory=Path("/run/x"),
        verbosity=4,
    )
    for command in (core, facade):
        assert command.arguments[1:] == ("-P", "-m", "cluster_gateway.child", command.role)


def test_children_meet_at_one_socket_and_keep_their_settings() -> None:
    core = CoreSettings(serving=CoreServingSettings(grace_seconds=7.0, facade_names=("a", "b")))
    directory = Path("/run/somewhere")
    core_command, facade_command = build_children(core, FacadeSettings(), directory=directory, verbosity=4)
    decoded, verbosity = decode_settings(core_command.handover, CoreSettings)
    assert decoded.serving.unix_socket == "/run/somewhere/core.sock"
    assert decoded.serving.facade_names == ("a", "b")
    assert decoded.hub == core.hub
    assert verbosity == 4
    facade, _ = decode_settings(facade_command.handover, FacadeSettings)
    assert facade.core.target == "unix:/run/somewhere/core.sock"
    assert core_command.grace_seconds > 7.0
    assert core_command.variables == {"TMPDIR": "/run/somewhere"}
    assert json.loads(core_command.handover)["settings"]["serving"]["grace_seconds"] == 7.0


def test_socket_path_that_no_system_takes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="set TMPDIR to a shorter one"):
        build_children(CoreSettings(), FacadeSettings(), directory=Path("/" + "x" * 100), verbosity=0)


def test_directory_is_private_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with private_directory() as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "core.sock").touch()
    assert not directory.exists()


def test_statuses_are_described() -> None:
    assert describe_status(3) == "exit status 3"
    assert describe_status(-9) == "signal SIGKILL"
    assert describe_status(-250) == "signal 250"
