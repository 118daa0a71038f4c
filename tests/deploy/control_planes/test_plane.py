"""What can be said about control planes without starting real ones."""

import socket
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from cluster_gateway.control_planes import (
    ControlPlaneError,
    PortInUseError,
    ProcessDiedError,
    Program,
    Programs,
    pick_free_ports,
    start_control_planes,
)


@pytest.fixture
def broken_programs(tmp_path: Path, script: Callable[[Path, str], Path]) -> Programs:
    """An etcd that keeps running and an apiserver that does not start."""
    folder = tmp_path / "programs"
    return MappingProxyType(
        {
            Program.ETCD: script(folder / "etcd", f"echo $$ > {tmp_path}/etcd.pid; exec /bin/sleep 600"),
            Program.KUBE_APISERVER: script(folder / "kube-apiserver", "echo unknown flag: --x; exit 2"),
            Program.KUBECTL: script(folder / "kubectl", "exit 0"),
        }
    )


def started_and_running(pid_file: Path) -> set[int]:
    """Return the process a script noted before it was stopped, if it came so far and still runs."""
    pids = {int(pid_file.read_text())} if pid_file.exists() else set[int]()
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


async def test_an_apiserver_that_does_not_start_is_named_and_nothing_is_left(
    tmp_path: Path, broken_programs: Programs
) -> None:
    with pytest.raises(ProcessDiedError, match=r"(?s)hub-apiserver ended by itself.*unknown flag: --x"):
        async with start_control_planes(tmp_path / "planes", ["hub"], programs=broken_programs):
            pass
    assert started_and_running(tmp_path / "etcd.pid") == set()


async def test_a_base_port_in_use_is_refused_before_anything_starts(tmp_path: Path, broken_programs: Programs) -> None:
    (port,) = pick_free_ports(1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUseError, match=f"port {port} "):
        async with start_control_planes(tmp_path / "planes", programs=broken_programs, base_port=port - 10):
            pass


async def test_files_of_others_are_not_replaced(tmp_path: Path, broken_programs: Programs) -> None:
    (tmp_path / "hub").mkdir()
    with pytest.raises(ControlPlaneError, match="holds hub of another origin: choose an empty directory"):
        async with start_control_planes(tmp_path, programs=broken_programs):
            pass


@pytest.mark.parametrize("names", [["Hub"], ["../hub"], ["etcd"], ["a", "a"], []])
async def test_names_that_cannot_be_folders_are_refused(
    names: list[str], tmp_path: Path, broken_programs: Programs
) -> None:
    with pytest.raises(ControlPlaneError, match=r"cannot be the name|control planes need names"):
        async with start_control_planes(tmp_path, names, programs=broken_programs):
            pass


async def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ControlPlaneError, match="control planes need etcd, kube-apiserver, kubectl too"):
        async with start_control_planes(tmp_path, programs={}):
            pass
