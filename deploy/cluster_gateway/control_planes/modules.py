"""The Go modules that pin the programs: what they build, in which version, and where it is cached."""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from cluster_gateway.control_planes.errors import ProgramsUnavailableError
from cluster_gateway.control_planes.golang import Version, parse_go_version
from cluster_gateway.control_planes.programs import Program

_BUILD_FLAGS = ("-trimpath", "-mod=readonly", "-buildvcs=false")
_HASH_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How one program is built.

    Attributes:
        program: The program.
        module: Folder of its module below `modules_directory()`.
        package: Go import path of its main package.
        requirement: The module whose version in go.mod is the program's version.
        usual_time: What to tell somebody who waits, measured on two cores with an empty build cache.
    """

    program: Program
    module: str
    package: str
    requirement: str
    usual_time: str


_TARGETS = (
    Target(
        program=Program.KUBE_APISERVER,
        module=".",
        package="k8s.io/kubernetes/cmd/kube-apiserver",
        requirement="k8s.io/kubernetes",
        usual_time="3 to 5 minutes the first time",
    ),
    Target(
        program=Program.ETCD,
        module=".",
        package="go.etcd.io/etcd/server/v3",
        requirement="go.etcd.io/etcd/server/v3",
        usual_time="10 to 30 seconds",
    ),
    Target(
        program=Program.KUBECTL,
        module=".",
        package="k8s.io/kubernetes/cmd/kubectl",
        requirement="k8s.io/kubernetes",
        usual_time="20 to 60 seconds",
    ),
    Target(
        program=Program.KUBE_CONTROLLER_MANAGER,
        module=".",
        package="k8s.io/kubernetes/cmd/kube-controller-manager",
        requirement="k8s.io/kubernetes",
        usual_time="about a minute",
    ),
    Target(
        program=Program.KWOK,
        module="kwok",
        package="sigs.k8s.io/kwok/cmd/kwok",
        requirement="sigs.k8s.io/kwok",
        usual_time="1 to 3 minutes the first time",
    ),
    Target(
        program=Program.KUBELET,
        module="kubelet",
        package=".",
        requirement="k8s.io/cri-streaming",
        usual_time="5 to 60 seconds",
    ),
)

_MAIN_REQUIREMENT = {".": "k8s.io/kubernetes", "kwok": "sigs.k8s.io/kwok", "kubelet": "k8s.io/cri-streaming"}

_LABEL = {".": "kubernetes", "kwok": "kwok", "kubelet": "kubelet"}


def target_of(program: Program) -> Target:
    """Return how a program is built."""
    return next(target for target in _TARGETS if target.program == program)


def modules_directory() -> Path:
    """Return the directory of the Go modules: `deploy/control-planes` of the checkout we run from.

    Raises:
        ProgramsUnavailableError: There is no checkout around this package.
    """
    directory = Path(__file__).resolve().parents[2] / "control-planes"
    if not (directory / "go.mod").is_file():
        raise ProgramsUnavailableError(
            f"the Go modules are missing ({directory}): run from a checkout of this project's sources"
        )
    return directory


@dataclass(frozen=True, slots=True, kw_only=True)
class GoModule:
    """One Go module, as its go.mod pins it.

    Attributes:
        directory: Its folder.
        go_version: Oldest Go that builds it.
        key: Cache folder of what is built from it; changes with the pins, the sources, the flags and
            the platform.
    """

    directory: Path
    go_version: Version
    key: str
    _go_mod: str = field(repr=False)

    @classmethod
    def read(cls, root: Path, folder: str) -> GoModule:
        """Read a module below `modules_directory()`.

        Raises:
            ProgramsUnavailableError: Its go.mod does not name its versions.
        """
        directory = root / folder
        text = (directory / "go.mod").read_text()
        requirement = _MAIN_REQUIREMENT[folder]
        go_line = re.search(r"^go (\S+)", text, re.MULTILINE)
        go_version = parse_go_version(f"go{go_line[1]}") if go_line else None
        if go_version is None:
            raise ProgramsUnavailableError(f"{directory / 'go.mod'} names no Go version: restore it")
        version = _required_version(text, requirement)
        key = f"{_LABEL[folder]}-{version}-{_digest(directory)}"
        return cls(directory=directory, go_version=go_version, key=key, _go_mod=text)

    def version_of(self, target: Target) -> str:
        """Return the pinned version of a target of this module, such as "v1.36.3"."""
        return _required_version(self._go_mod, target.requirement)

    def build_arguments(self, target: Target, output: Path) -> list[str]:
        """Return the arguments of `go` that build a target into a file."""
        flags = f"-s -w {_version_flags(target.program, self.version_of(target))}".strip()
        return ["build", *_BUILD_FLAGS, f"-ldflags={flags}", "-o", str(output), target.package]


def _required_version(go_mod: str, requirement: str) -> str:
    match = re.search(rf"^\s*(?:require )?{re.escape(requirement)} (v\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise ProgramsUnavailableError(f"go.mod does not require {requirement}: restore it")
    return match[1]


def _digest(directory: Path) -> str:
    digest = hashlib.sha256(" ".join([*_BUILD_FLAGS, platform.system(), platform.machine()]).encode())
    sources = [directory / "go.mod", directory / "go.sum", *sorted(directory.glob("*.go"))]
    for path in sources:
        if path.name != "tools.go":  # it is there for `go mod tidy` alone
            digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:_HASH_DIGITS]


def _version_flags(program: Program, version: str) -> str:
    """Return the linker flags that tell a program its version; Kubernetes calls itself v0.0.0 without."""
    if program == Program.KWOK:
        return f"-X sigs.k8s.io/kwok/pkg/consts.Version={version}"
    if program in {Program.ETCD, Program.KUBELET}:  # etcd's version stands in its sources
        return ""
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    libraries = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {library}.{name}={value}" for library in libraries for name, value in values.items())
