"""Processes end when they should, and their death is told with its reason."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from cluster_gateway.control_planes import (
    ChildProcess,
    CommandTimeoutError,
    NotReadyError,
    ProcessDiedError,
    run_command,
    running,
    wait_until,
)
from cluster_gateway.control_planes.processes import stop_all

WAIT_SECONDS = 20.0


def shell(name: str, directory: Path, body: str) -> ChildProcess:
    return ChildProcess(name, ["/bin/sh", "-c", body], directory / f"{name}.log")


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie, which a container's init may be slow to reap."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def gone(pid: int) -> None:
    async def has_ended() -> bool:
        return not is_running(pid)

    await wait_until(has_ended, what=f"{pid} has ended", timeout_seconds=WAIT_SECONDS)


async def logged(process: ChildProcess, text: str) -> None:
    async def has_logged() -> bool:
        return text in process.log.read_text()

    await wait_until(has_logged, what=f"{text} is logged", processes=[process], timeout_seconds=WAIT_SECONDS)


async def test_a_process_runs_for_the_block(tmp_path: Path) -> None:
    async with running(shell("one", tmp_path, "echo up; exec sleep 600")) as process:
        await logged(process, "up")
        assert process.is_running
        pid = process.pid
    assert not is_running(pid)
    assert not process.is_running


async def test_a_stopped_process_can_be_started_again(tmp_path: Path) -> None:
    process = shell("one", tmp_path, "exec sleep 600")
    pids: set[int] = set()
    for _ in range(2):
        async with running(process):
            pids.add(process.pid)
    assert len(pids) == 2


async def test_stopping_on_purpose_is_no_death(tmp_path: Path) -> None:
    process = shell("one", tmp_path, "exec sleep 600")
    await process.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(process.wait_for_death())
        await process.stop()
    process.require_alive()


async def test_a_process_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    async with running(shell("stubborn", tmp_path, "trap '' TERM; echo up; while :; do sleep 0.1; done")) as process:
        await logged(process, "up")
        pid = process.pid
        await process.stop(timeout_seconds=0.2)
    assert not is_running(pid)


async def test_cancelled_stop_kills_at_once(tmp_path: Path) -> None:
    process = shell("stubborn", tmp_path, "trap '' TERM; echo up; while :; do sleep 0.1; done")
    await process.start()
    await logged(process, "up")
    pid = process.pid
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await process.stop(timeout_seconds=600)
    await gone(pid)
    await process.stop()


async def test_an_early_death_is_told_with_the_last_log_lines(tmp_path: Path) -> None:
    process = shell("etcd", tmp_path, "seq 1 20; echo bind: address already in use; exit 3")

    async def never() -> bool:
        return False

    async with running(process):
        with pytest.raises(ProcessDiedError) as caught:
            await wait_until(never, what="etcd is ready", processes=[process], timeout_seconds=WAIT_SECONDS)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert message.startswith(f"etcd ended by itself (exit code 3); its log {process.log} ends with:\n")
    assert message.endswith("\n19\n20\nbind: address already in use")
    assert "\n12\n" not in message


async def test_death_by_a_signal_names_it(tmp_path: Path) -> None:
    process = shell("etcd", tmp_path, "exec sleep 600")
    async with running(process):
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ProcessDiedError, match=r"etcd ended by itself \(signal SIGKILL\)"):
            await process.wait_for_death()


async def test_waiting_ends_at_the_deadline_with_the_log(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async with running(shell("slow", tmp_path, "echo still starting; exec sleep 600")) as process:
        await logged(process, "still starting")
        with pytest.raises(NotReadyError, match=r"(?s)gave up after 0.1 s waiting until it is ready.*still starting"):
            await wait_until(never, what="it is ready", processes=[process], timeout_seconds=0.1)


async def test_all_are_stopped_although_one_is_stubborn(tmp_path: Path) -> None:
    processes = [shell(name, tmp_path, "exec sleep 600") for name in ("one", "two")]
    for process in processes:
        await process.start()
    await stop_all(processes)
    assert [process.is_running for process in processes] == [False, False]


async def test_processes_die_with_a_parent_that_is_killed_outright(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib
from cluster_gateway.control_planes import ChildProcess
async def main():
    log = pathlib.Path({str(tmp_path)!r}, "log")
    process = ChildProcess("child", ["/bin/sh", "-c", "echo up; exec sleep 600"], log)
    await process.start()
    while "up" not in process.log.read_text():
        await asyncio.sleep(0.01)
    print(process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    source_root = Path(sys.modules["cluster_gateway.control_planes"].__file__ or "").parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(source_root)},
    )
    try:
        assert parent.stdout is not None
        child = int(await asyncio.wait_for(parent.stdout.readline(), WAIT_SECONDS))
        assert is_running(child)
    finally:
        parent.kill()
        await parent.wait()
    await gone(child)


async def test_a_command_gives_its_output_and_exit_code() -> None:
    result = await run_command(
        ["/bin/sh", "-c", "cat; echo $X >&2; exit 7"],
        timeout_seconds=WAIT_SECONDS,
        stdin=b"in",
        environment={"X": "err"},
    )
    assert (result.exit_code, result.stdout, result.stderr) == (7, "in", "err\n")


async def test_a_command_is_killed_at_its_deadline_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CommandTimeoutError, match=r"sh was still running after 0\.5 s"):
        await run_command(["/bin/sh", "-c", f"sleep 600 & echo $! $$ > {pids}; wait"], timeout_seconds=0.5)
    for pid in pids.read_text().split():
        await gone(int(pid))
