"""The project's manifests, rendered, and looked at as data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from cluster_gateway.control_planes import Program, find_programs, run_command

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "deploy" / "manifests"

Document = dict[str, Any]

_RENDER_SECONDS = 60.0


async def render(directory: Path) -> str:
    """Run `kubectl kustomize`; fails with what it complained about."""
    kubectl = (await find_programs([Program.KUBECTL]))[Program.KUBECTL]
    result = await run_command([kubectl, "kustomize", directory], timeout_seconds=_RENDER_SECONDS)
    assert result.exit_code == 0, result.stderr
    return result.stdout


async def render_installation(directory: Path, overlay: str) -> str:
    """Do what the manifests' README tells: an overlay with certificates made for it.

    Args:
        directory: An empty folder; its `certificates` then holds the files.
        overlay: Name of the overlay.
    """
    shutil.copytree(MANIFESTS, directory / "manifests")
    script = directory / "manifests" / "certificates.sh"
    result = await run_command([script, directory / "certificates"], timeout_seconds=_RENDER_SECONDS)
    assert result.exit_code == 0, result.stderr
    kustomization = f"resources: [manifests/overlays/{overlay}]\ncomponents: [certificates]\n"
    (directory / "kustomization.yaml").write_text(kustomization)
    return await render(directory)


def parse(text: str) -> list[Document]:
    """The documents of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def select(documents: list[Document], kind: str) -> list[Document]:
    """The objects of one kind."""
    return [document for document in documents if document["kind"] == kind]


def find(documents: list[Document], kind: str, name: str) -> Document:
    """The object of that kind and name."""
    (found,) = (document for document in select(documents, kind) if document["metadata"]["name"] == name)
    return found


def command_line(deployment: Document) -> list[str]:
    """What the one container of a Deployment runs."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return [*container.get("command", []), *container.get("args", [])]


def replace_flag(arguments: list[str], name: str, value: object) -> list[str]:
    """The arguments with another value for a flag that they give."""
    assert any(argument.startswith(f"--{name}=") for argument in arguments), (name, arguments)
    return [f"--{name}={value}" if argument.startswith(f"--{name}=") else argument for argument in arguments]
