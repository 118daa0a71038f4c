"""What goes into the image: installed into an empty folder and started from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.gateway_process import run_gateway

from cluster_gateway.control_planes import pick_free_ports

if TYPE_CHECKING:
    from cluster_gateway.control_planes import ControlPlane

_REPOSITORY = Path(__file__).parents[2]
_DOCKER = _REPOSITORY / "deploy" / "docker"
_DOCS = _REPOSITORY / "docs"
_INSTALL_SECONDS = 170
_PUBLISHED = ["--secret-namespace=default", "--feature-gates=APIPriorityAndFairness=false"]
_PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


@pytest.fixture(scope="module")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image") / "root"
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)
    subprocess.run([_DOCKER / "install.sh", root], check=True, timeout=_INSTALL_SECONDS, env=environment)
    return root.rename(root.with_name("moved"))


def _run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=root, env={"PATH": _PATH}, capture_output=True, text=True, timeout=60, check=False
    )


def test_apiserver_in_the_working_directory_shows_the_committed_help(image_root: Path) -> None:
    result = _run(image_root, "./apiserver", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (_DOCS / "flags-apiserver.txt").read_text()


def test_published_command_line_is_read(image_root: Path) -> None:
    result = _run(image_root, "./apiserver", "--secure-port=9443", *_PUBLISHED)
    assert result.returncode == 1
    assert "feature gates without effect in this version: APIPriorityAndFairness" in result.stderr
    assert "no way to the hub" in result.stderr


@pytest.mark.parametrize("name", ["core", "facade"])
def test_command_runs_every_part(image_root: Path, name: str) -> None:
    result = _run(image_root, "usr/local/bin/cluster-gateway", name, "--help")
    assert result.stdout == (_DOCS / f"flags-{name}.txt").read_text()


async def test_published_command_line_serves_from_the_image(image_root: Path, hub: ControlPlane) -> None:
    (port,) = pick_free_ports(1)
    arguments = [
        f"--secure-port={port}",
        *_PUBLISHED,
        "--bind-address=127.0.0.1",
        f"--kubeconfig={hub.kubeconfig}",
    ]
    environment = {"PATH": _PATH}
    command = ["./apiserver"]
    async with run_gateway(arguments, directory=image_root, command=command, environment=environment) as gateway:
        await gateway.wait_ready(port)
        assert await gateway.stop() == 0
    certificates = image_root / "apiserver.local.config" / "certificates"
    assert sorted(path.name for path in certificates.iterdir()) == ["apiserver.crt", "apiserver.key"]


def test_image_is_built_by_the_same_script_and_runs_unprivileged() -> None:
    dockerfile = (_DOCKER / "Dockerfile").read_text()
    assert "RUN /checkout/deploy/docker/install.sh " in dockerfile
    assert "\nUSER 65532:65532\n" in dockerfile
    assert "\nWORKDIR /\n" in dockerfile
    assert '\nENTRYPOINT ["/apiserver"]\n' in dockerfile


def test_every_version_is_pinned() -> None:
    lines = (_REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in pins)


def test_constraints_cover_the_installation(image_root: Path) -> None:
    pins = {_normalized(line.partition("==")[0]) for line in (_REPOSITORY / "constraints.txt").read_text().splitlines()}
    installed = {
        _normalized(path.name.split("-")[0]) for path in (image_root / "usr/lib/cluster-gateway").glob("*.dist-info")
    }
    assert installed - pins == {"cluster-gateway"}


def _normalized(name: str) -> str:
    """Source: PyPA, specification of name normalization."""
    return re.sub(r"[-_.]+", "-", name).lower()
