"""Finds a Go that is new enough."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from cluster_gateway.control_planes.errors import CommandTimeoutError, GoUnavailableError
from cluster_gateway.control_planes.processes import run_command

Version = tuple[int, ...]
"""A Go version, such as (1, 26, 0)."""

BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off"}
"""Static programs; and no workspace file above the checkout may change what is built."""

_VERSION = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")
_QUICK_SECONDS = 20.0
_DOWNLOAD_SECONDS = 300.0
_ALTERNATIVE = "or set KUBEBUILDER_ASSETS to a directory with ready-made kube-apiserver, etcd and kubectl"


def parse_go_version(text: str) -> Version | None:
    """Find a version such as "go1.26" or "go version go1.26.8 linux/amd64"; None if there is none."""
    match = _VERSION.search(text)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def render_version(version: Version) -> str:
    """Render a version as Go's own pages write it."""
    return ".".join(str(part) for part in version)


def find_go() -> Path | None:
    """Return the `go` command of `PATH`."""
    found = shutil.which("go")
    return Path(found).absolute() if found else None


async def require_go(minimum: Version, module: Path, purpose: str) -> Path:
    """Find a `go` command that can build a module.

    Args:
        minimum: Oldest version that will do.
        module: The module's directory. Go 1.21 and later may download a newer Go to satisfy its go.mod.
        purpose: What it is wanted for, for the error message.

    Raises:
        GoUnavailableError: There is none on `PATH`, or it is too old and cannot fetch a newer one.
    """
    go = find_go()
    need = f"Go {render_version(minimum)} or newer"
    if go is None:
        raise GoUnavailableError(
            f"{need} is needed to build {purpose}, and there is no `go` on PATH: install it, {_ALTERNATIVE}"
        )
    version = await _version_of(go, Path(os.sep), {"GOTOOLCHAIN": "local"}, _QUICK_SECONDS)
    if version and version >= minimum:
        return go
    # With GOTOOLCHAIN=auto this downloads the version that go.mod names, if the network lets it.
    switched = await _version_of(go, module, {}, _DOWNLOAD_SECONDS)
    if switched and switched >= minimum:
        return go
    have = f"{go} is Go {render_version(version)}" if version else f"{go} does not tell its version"
    raise GoUnavailableError(
        f"{need} is needed to build {purpose}, and {have}, which could not download a newer one by itself "
        f"(GOTOOLCHAIN): install a newer Go, {_ALTERNATIVE}"
    )


async def _version_of(go: Path, directory: Path, environment: dict[str, str], timeout_seconds: float) -> Version | None:
    ([go, "-C", directory, "env", "GOVERSION"] if directory != Path(os.sep) else [go, "env", "GOVERSION"])
    try:
        result = await run_command(
            [go, "env", "GOVERSION"],
            timeout_seconds=timeout_seconds,
            environment={**BUILD_ENVIRONMENT, **environment},
            directory=directory,
        )
    except (CommandTimeoutError, OSError):
        return None
    return parse_go_version(result.stdout) if result.exit_code == 0 else None
