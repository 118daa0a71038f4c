"""What the tests of control planes share: an empty cache, an empty PATH, and a `go` that builds nothing."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest


def write_script(path: Path, body: str) -> Path:
    """Write an executable shell script that uses no program from PATH."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def script() -> Callable[[Path, str], Path]:
    return write_script


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTER_GATEWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "control-planes"


@pytest.fixture
def search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return folder


@pytest.fixture
def go_calls(tmp_path: Path) -> Path:
    """File with one line for each build that the fake `go` was asked for."""
    return tmp_path / "go-calls"


@pytest.fixture
def fake_go(search_path: Path, go_calls: Path) -> Callable[..., Path]:
    """Put a `go` on PATH that answers `go env GOVERSION`, and runs a snippet for `go build -o $out ...`."""

    def make(build: str = 'echo "program" > "$out"', *, version: str = "go1.99.0") -> Path:
        body = f"""
if [ "$1" = env ]; then echo {version}; exit 0; fi
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then out="$2"; fi; last="$1"; shift; done
echo "$last" >> {go_calls}
{build}
"""
        return write_script(search_path / "go", body)

    return make
