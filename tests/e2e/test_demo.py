"""What `make run` runs: everything starts, the three commands work, and Ctrl-C leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from tests.support.gateway import processes_mentioning

from cluster_gateway.control_planes import Program, find_programs, require_free_port, run_command, wait_until

if TYPE_CHECKING:
    from pathlib import Path

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_COMMAND_SECONDS = 30.0


async def start_demo(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster_gateway.demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def read_welcome(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(_START_SECONDS):
        welcome = await process.stdout.readuntil(b"Ctrl-C stops everything.\n")
    return welcome.decode()


async def test_the_demo_serves_what_it_says_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    process = await start_demo("--directory", str(directory))
    try:
        welcome = await read_welcome(process)
        environment = os.environ | {"KUBECONFIG": str(directory / "kubeconfig")}
        kubectl = str((await find_programs())[Program.KUBECTL])
        commands = [line.split()[1:] for line in welcome.splitlines() if "--context" in line]
        outputs = [
            await run_command([kubectl, *command], environment=environment, timeout_seconds=_COMMAND_SECONDS)
            for command in commands
        ]
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(_STOP_SECONDS):
            _, errors = await process.communicate()

    assert [(output.exit_code, output.stderr) for output in outputs] == [(0, "")] * 3
    assert "managed1" in outputs[0].stdout
    assert "demo" in outputs[1].stdout
    assert "Linux" in outputs[2].stdout
    assert process.returncode == 0
    assert errors.decode().splitlines()[-1].endswith("stopped")

    async def is_over() -> bool:
        return processes_mentioning(str(directory)) == []

    await wait_until(is_over, what="no process of the demo is left", timeout_seconds=_COMMAND_SECONDS)


async def test_a_used_port_is_told_in_a_sentence(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await start_demo("--directory", str(tmp_path / "run"), "--base-port", str(port))
    async with asyncio.timeout(_START_SECONDS):
        _, errors = await process.communicate()
    server.close()
    await server.wait_closed()

    last = errors.decode().splitlines()[-1]
    assert process.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in last
    assert require_free_port(port) == port


async def test_a_folder_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    process = await start_demo("--directory", str(tmp_path))
    async with asyncio.timeout(_START_SECONDS):
        _, errors = await process.communicate()

    assert process.returncode == 1
    assert "is not empty" in errors.decode()
    assert (tmp_path / "precious").exists()
