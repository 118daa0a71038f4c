"""The programs that local control planes consist of."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path


class Program(enum.StrEnum):
    """A program, by the name of its file."""

    KUBE_APISERVER = "kube-apiserver"
    ETCD = "etcd"
    KUBECTL = "kubectl"
    KUBE_CONTROLLER_MANAGER = "kube-controller-manager"
    KWOK = "kwok"
    KUBELET = "kubelet"


Programs = Mapping[Program, Path]
"""Absolute paths of executable files."""

Report = Callable[[str], None]
"""Takes one line of progress."""

CORE_PROGRAMS = frozenset({Program.KUBE_APISERVER, Program.ETCD, Program.KUBECTL})
"""Taken from one place, all three or none: a lone kubectl says nothing about the version of the others."""

REQUIRED_PROGRAMS = CORE_PROGRAMS | {Program.KUBELET}
"""What the tests of this project need."""


def report_to_stderr(line: str) -> None:
    """Write one line of progress where it does not mix with results."""
    sys.stderr.write(f"control planes: {line}\n")
    sys.stderr.flush()


def is_executable(path: Path) -> bool:
    """Tell whether a path is a file that this user may run."""
    return path.is_file() and os.access(path, os.X_OK)


def cache_directory() -> Path:
    """Return where built programs are kept, which need not exist yet.

    `CLUSTER_GATEWAY_CACHE`, else `cluster-gateway` under `XDG_CACHE_HOME` or `~/.cache`.
    """
    own = os.environ.get("CLUSTER_GATEWAY_CACHE")
    if own:
        return Path(own).absolute() / "control-planes"
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else Path.home() / ".cache"
    return base.absolute() / "cluster-gateway" / "control-planes"
