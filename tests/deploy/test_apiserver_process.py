"""`cluster-gateway apiserver` as it really runs: its two children, and what becomes of them."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway_process import GatewayProcess, run_gateway
from tests.support.processes import children_of, is_running, read_command_line, until_gone

from cluster_gateway.control_planes import pick_free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cluster_gateway.control_planes import ControlPlane


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the gateway makes its private directory; short, as a socket's path has to be."""
    with tempfile.TemporaryDirectory(prefix="gw-") as directory:
        yield Path(directory)


@pytest.fixture
async def gateway(hub: ControlPlane, tmp_path: Path, temporary: Path) -> AsyncIterator[GatewayProcess]:
    (port,) = pick_free_ports(1)
    arguments = [f"--secure-port={port}", "--bind-address=127.0.0.1", f"--kubeconfig={hub.kubeconfig}"]
    async with run_gateway(
        ["apiserver", *arguments], directory=tmp_path, variables={"TMPDIR": str(temporary)}
    ) as process:
        await process.wait_ready(port)
        assert len(_names(temporary)) == 1
        yield process


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_core_and_facade_meet_in_a_private_directory_that_is_removed(
    gateway: GatewayProcess, temporary: Path
) -> None:
    directory = temporary / _names(temporary)[0]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert "core.sock" in _names(directory)
    assert await gateway.stop() == 0
    assert _names(temporary) == []


async def test_command_lines_tell_nothing_but_the_role(gateway: GatewayProcess) -> None:
    children = children_of(gateway.process.pid)
    assert children.keys() == {"core", "facade"}
    for role, pid in children.items():
        assert read_command_line(pid)[1:] == ["-P", "-m", "cluster_gateway.child", role]


async def test_stop_drains_the_facade_before_the_core(gateway: GatewayProcess) -> None:
    assert await gateway.stop() == 0
    log = gateway.log.read_text()
    assert log.index("facade draining") < log.index("core draining")


@pytest.mark.parametrize(("victim", "other"), [("core", "facade"), ("facade", "core")])
async def test_death_of_either_ends_the_command_with_failure(
    gateway: GatewayProcess, temporary: Path, victim: str, other: str
) -> None:
    children = children_of(gateway.process.pid)
    os.kill(children[victim], signal.SIGKILL)
    assert await gateway.wait() == 1
    assert f"the {victim} died: signal SIGKILL; ending" in gateway.log.read_text()
    assert not is_running(children[other])
    assert _names(temporary) == []


async def test_killed_command_takes_both_children_and_their_socket_along(
    gateway: GatewayProcess, temporary: Path
) -> None:
    children = children_of(gateway.process.pid)
    gateway.process.kill()
    assert await gateway.wait() == -signal.SIGKILL
    for pid in children.values():
        await until_gone(pid)
    assert _names(temporary) == []
