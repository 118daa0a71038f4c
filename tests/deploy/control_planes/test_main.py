"""The command that runs control planes for a developer."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from cluster_gateway import control_planes
from cluster_gateway.control_planes.__main__ import parse_arguments, run

FakeGo = Callable[..., Path]

SOURCE_ROOT = Path(control_planes.__path__[0]).parents[1]
WAIT_SECONDS = 120.0


@contextlib.asynccontextmanager
async def command(*arguments: str | Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cluster_gateway.control_planes",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE_ROOT)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def printed(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(WAIT_SECONDS):
        async for line in process.stderr:
            if text in line.decode():
                return
    pytest.fail(f"{text!r} was never printed")


def pids_mentioning(directory: Path) -> set[int]:
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in entry.read_bytes():
                found.add(int(entry.parent.name))
    return found


async def test_build_only_prints_where_the_programs_are(
    cache: Path, fake_go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_go()
    await run(parse_arguments(["--build-only"]))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["etcd", "kube-apiserver", "kubectl", "kubelet"]
    assert all(line.split()[1].startswith(str(cache)) for line in lines)


async def test_an_error_is_one_line_and_exit_code_1(search_path: Path, cache: Path) -> None:
    async with command("--build-only") as process:
        stdout, stderr = await asyncio.wait_for(process.communicate(), WAIT_SECONDS)
    assert process.returncode == 1
    assert stdout == b""
    assert stderr.decode().count("\n") == 1
    assert stderr.decode().startswith("control planes: error: Go 1.26.0 or newer is needed to build ")


def test_a_directory_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([])
    assert "DIR is needed unless --build-only is given" in capsys.readouterr().err


@pytest.mark.timeout(3600)  # a first build is part of it
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
async def test_nothing_runs_on_when_the_command_ends(number: signal.Signals, tmp_path: Path) -> None:
    await control_planes.find_programs()
    async with command(tmp_path, "--names", "one", "--kubelet") as process:
        await printed(process, "one is ready: kubectl --kubeconfig")
        assert len(pids_mentioning(tmp_path)) == 4  # the command, etcd, the apiserver and the kubelet
        process.send_signal(number)
        await asyncio.wait_for(process.wait(), WAIT_SECONDS)

        async def nothing_runs() -> bool:
            return not pids_mentioning(tmp_path)

        await control_planes.wait_until(nothing_runs, what="all have ended", timeout_seconds=WAIT_SECONDS)
    assert process.returncode == (0 if number == signal.SIGINT else -signal.SIGKILL)
