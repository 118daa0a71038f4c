"""The example of the README, run as it stands."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.split_gateway import run_core

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_REPOSITORY = Path(__file__).parents[2]
_EXAMPLE = _REPOSITORY / "docs" / "examples" / "list_and_watch.py"
_SECONDS = 30.0


def test_the_readme_shows_the_example_that_is_run() -> None:
    code = _EXAMPLE.read_text()
    assert code[code.index("import asyncio") :].rstrip() in (_REPOSITORY / "README.md").read_text()


async def test_the_example_lists_and_watches_without_any_facade(
    stage: Stage, gateway: Gateway, clusters: dict[str, Kubectl]
) -> None:
    async with run_core(stage) as core:
        endpoint = core.endpoint(stage.hub.issue_client_certificate("root", ["system:masters"]), "example")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(_EXAMPLE), endpoint.target, "managed1"),
            *(str(endpoint.ca_file), str(endpoint.certificate_file), str(endpoint.private_key_file)),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(_SECONDS):
                while await process.stdout.readline() != b"listed kube-system\n":
                    assert not process.stdout.at_eof()
                await clusters["managed1"].ok("create", "namespace", "example")
                assert await process.stdout.readline() == b"added example\n"
        finally:
            process.kill()
            await process.wait()
            await clusters["managed1"]("delete", "namespace", "example", "--wait=false")
