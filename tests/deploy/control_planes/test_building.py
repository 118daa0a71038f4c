"""Builds are whole or absent, one at a time, and say how they are doing."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_gateway.control_planes import BuildFailedError, Program, building, find_programs, wait_until
from cluster_gateway.control_planes.modules import GoModule, modules_directory, target_of

FakeGo = Callable[..., Path]

WAIT_SECONDS = 20.0


def builds(go_calls: Path) -> list[str]:
    return go_calls.read_text().split()


async def appears(path: Path) -> None:
    async def exists() -> bool:
        return path.name in os.listdir(path.parent)  # noqa: PTH208

    await wait_until(exists, what=f"{path} exists", timeout_seconds=WAIT_SECONDS)


def files_below(cache: Path) -> set[str]:
    return {path.name for path in cache.rglob("*") if path.is_file()}


async def test_start_and_end_are_reported(cache: Path, fake_go: FakeGo) -> None:
    fake_go()
    lines: list[str] = []
    await find_programs([Program.ETCD], report=lines.append)
    assert len(lines) == 2
    assert lines[0].startswith("building etcd v3.6.8 with Go, usually 10 to 30 seconds")
    assert lines[1].startswith("built etcd v3.6.8 in 0 s: ")


async def test_a_running_build_says_that_it_is_alive(
    cache: Path, fake_go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "HEARTBEAT_SECONDS", 0.01)
    go_on = tmp_path / "go-on"
    fake_go(f'while [ ! -e {go_on} ]; do /bin/sleep 0.01; done; echo x > "$out"')
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if line.startswith("still building etcd v3.6.8, which takes "):
            go_on.touch()

    async with asyncio.timeout(WAIT_SECONDS):
        await find_programs([Program.ETCD], report=report)
    assert lines[-1].startswith("built etcd")


async def test_a_failed_build_shows_the_last_lines_and_leaves_no_program(cache: Path, fake_go: FakeGo) -> None:
    fake_go('echo half > "$out"; echo "undefined: foo" >&2; exit 3')
    with pytest.raises(BuildFailedError, match=r"(?s)building etcd failed \(go build: exit code 3\).*undefined: foo"):
        await find_programs([Program.ETCD], report=lambda _: None)
    assert files_below(cache) == {"build.lock", "etcd.log"}


async def test_a_full_disk_is_said_to_be_one(cache: Path, fake_go: FakeGo) -> None:
    fake_go('echo "write /x/y.a: no space left on device"; exit 1')
    with pytest.raises(BuildFailedError, match="the disk is full, so etcd could not be built: make room"):
        await find_programs([Program.ETCD], report=lambda _: None)


async def test_a_killed_compiler_hints_at_memory(cache: Path, fake_go: FakeGo) -> None:
    fake_go("kill -9 $$")
    with pytest.raises(BuildFailedError, match="etcd was killed, by its deadline or for want of memory"):
        await find_programs([Program.ETCD], report=lambda _: None)


async def test_a_build_beyond_its_deadline_is_killed(
    cache: Path, fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(building, "BUILD_TIMEOUT_SECONDS", 0.05)
    fake_go("exec /bin/sleep 600")
    with pytest.raises(BuildFailedError, match="was killed"):
        await find_programs([Program.ETCD], report=lambda _: None)


async def test_cancellation_ends_go_and_leaves_no_program(cache: Path, fake_go: FakeGo, tmp_path: Path) -> None:
    pid_file, new = tmp_path / "pid", tmp_path / "new"
    fake_go(f'echo half > "$out"; echo $$ > {new}; /bin/mv {new} {pid_file}; exec /bin/sleep 600')
    build = asyncio.get_running_loop().create_task(find_programs([Program.ETCD], report=lambda _: None), name="build")
    await appears(pid_file)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert files_below(cache) == {"build.lock", "etcd.log"}


async def test_two_at_once_build_once(cache: Path, fake_go: FakeGo, go_calls: Path, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    fake_go(f'while [ ! -e {go_on} ]; do /bin/sleep 0.01; done; echo x > "$out"')

    def report(line: str) -> None:
        if "another process is building" in line:
            go_on.touch()

    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(find_programs([Program.ETCD], report=report))
    assert builds(go_calls) == ["go.etcd.io/etcd/server/v3"]


async def test_what_a_killed_build_left_is_removed(cache: Path, fake_go: FakeGo) -> None:
    fake_go()
    path = (await find_programs([Program.ETCD], report=lambda _: None))[Program.ETCD]
    path.rename(path.with_name(".etcd.1.tmp"))
    await find_programs([Program.ETCD], report=lambda _: None)
    assert files_below(path.parent) == {"etcd"}


def test_kubernetes_programs_are_told_their_version() -> None:
    module = GoModule.read(modules_directory(), ".")
    arguments = " ".join(module.build_arguments(target_of(Program.KUBE_APISERVER), Path("out")))
    assert "-trimpath -mod=readonly" in arguments
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in arguments
    assert "-X k8s.io/component-base/version.gitMinor=36" in arguments


def test_a_changed_pin_changes_the_cache_folder(tmp_path: Path) -> None:
    original = modules_directory()
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).write_bytes((original / name).read_bytes())
    before = GoModule.read(tmp_path, ".").key
    assert before == GoModule.read(original, ".").key
    (tmp_path / "go.sum").write_text("changed")
    assert GoModule.read(tmp_path, ".").key != before


@pytest.mark.parametrize("module", [".", "kwok", "kubelet"])
def test_modules_name_no_registry_and_no_path_of_a_machine(module: str) -> None:
    for path in (modules_directory() / module).glob("go.*"):
        text = path.read_text()
        assert "http:" not in text
        assert "https:" not in text
        assert "=> /" not in text
        assert "=> ." not in text
