"""The file of identity rules while a core runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from cluster_gateway_core.identity.rules_file import IdentityRulesFile
from cluster_gateway_core.routing.identity_rules import MAXIMUM_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_SECONDS = 20.0


def rules(*names: str) -> str:
    listed = [f"{{name: {name}, type: PrivilegedIdentityExchanger, source: {{user: u}}}}" for name in names]
    return f"spec: {{clientIdentityExchanger: {{rules: [{', '.join(listed)}]}}}}\n"


def names(file: IdentityRulesFile) -> list[str]:
    return [rule.name for rule in file.rules]


@asynccontextmanager
async def followed(file: IdentityRulesFile) -> AsyncIterator[Callable[[Callable[[], bool]], object]]:
    """Follow a file, and wait for what is to be seen of it."""

    async def until(seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(_SECONDS):
            while not seen():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(file.run(), name="rules")
        try:
            yield until
        finally:
            task.cancel()


async def test_without_a_file_there_are_no_rules_and_nothing_runs() -> None:
    file = IdentityRulesFile(None)
    await file.run()
    assert file.rules == ()
    assert file.condition().detail == ""


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("spec: {}", "clientIdentityExchanger"),
        ("[", "not YAML"),
        ("#" * (MAXIMUM_FILE_BYTES + 1), "longer"),
        (None, "No such file"),
    ],
)
def test_a_core_does_not_start_with_rules_it_cannot_use(tmp_path: Path, content: str | None, fault: str) -> None:
    path = tmp_path / "rules.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RuntimeError, match=f"rules.yaml cannot be used: .*{fault}"):
        IdentityRulesFile(str(path))


def test_what_is_no_text_is_no_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RuntimeError, match="UTF-8"):
        IdentityRulesFile(str(path))


async def test_new_rules_come_into_force_and_broken_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(rules("a"))
    file = IdentityRulesFile(str(path), check_seconds=0.005)
    assert names(file) == ["a"]
    async with followed(file) as until:
        path.write_text(rules("a", "b"))
        await until(lambda: names(file) == ["a", "b"])
        path.write_text(rules("c").replace("source", "sauce"))
        await until(lambda: "unknown field 'sauce'" in file.condition().detail)
        assert names(file) == ["a", "b"]
        assert file.condition().ready
        path.unlink()
        await until(lambda: "No such file" in file.condition().detail)
        assert names(file) == ["a", "b"]
        path.write_text(rules("a", "b"))
        await until(lambda: file.condition().detail == "")
        path.write_text(rules())
        await until(lambda: names(file) == [])


async def test_a_file_that_is_still_being_written_is_not_taken_for_whole(tmp_path: Path) -> None:
    """The first half of a list of rules is a list of rules: it must be the same twice."""
    path = tmp_path / "rules.yaml"
    path.write_text(rules("a"))
    file = IdentityRulesFile(str(path))
    path.write_text(rules("b"))
    await file._check(path)
    assert names(file) == ["a"]
    path.write_text(rules("b", "c"))
    await file._check(path)
    assert names(file) == ["a"]
    await file._check(path)
    assert names(file) == ["b", "c"]
