"""The threat table of docs/security.md names code and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("core/cluster_gateway_core", "core/cluster_gateway_client", "facade/cluster_gateway_facade")
_QUOTED = re.compile(r"`([^`]+)`")
_COLUMNS = 3


def read_threats(document: str) -> list[tuple[str, str, str]]:
    """Rows of the table headed `| threat | defence | test |`."""
    lines = iter(document.splitlines())
    rows = []
    for line in lines:
        if re.fullmatch(r"\|\s*threat\s*\|\s*defence[^|]*\|\s*tests?\s*\|", line):
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    break
                cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
                assert len(cells) == _COLUMNS, f"not three columns: {row}"
                rows.append((cells[0], cells[1], cells[2]))
    return rows


def find_module(name: str) -> Path | None:
    """The file of a module that is named by its path, from the repository's root or within a package."""
    path = name if name.endswith(".py") else f"{name}.py"
    candidates = [_ROOT / path, *(_ROOT / package / path for package in _PACKAGES)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def find_test(name: str) -> bool:
    """Whether a test file exists, and the function that is named behind `::` in it."""
    file, _, function = name.partition("::")
    path = _ROOT / file
    if not (path.is_file() and path.name.startswith("test_")):
        return False
    nodes = ast.walk(ast.parse(path.read_text()))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return not function or function in defined


THREATS = read_threats((_ROOT / "docs" / "security.md").read_text())


@pytest.mark.parametrize(("threat", "defence", "tests"), THREATS, ids=[row[0][:40] for row in THREATS])
def test_every_threat_names_a_module_and_a_test_that_exist(threat: str, defence: str, tests: str) -> None:
    modules = [name for name in _QUOTED.findall(defence) if "/" in name or name.endswith(".py")]
    assert modules, f"no module is named against: {threat}"
    assert [name for name in modules if find_module(name) is None] == []
    named = _QUOTED.findall(tests)
    assert named, f"no test is named against: {threat}"
    assert [name for name in named if not find_test(name)] == []


def test_the_table_is_there() -> None:
    assert len(THREATS) > 30


def test_what_does_not_exist_is_found_out() -> None:
    row = "| a | `routing/target` does | `tests/docs/test_security.py` |"
    assert read_threats(f"| threat | defence | test |\n|---|---|---|\n{row}\n\nend") == [
        ("a", "`routing/target` does", "`tests/docs/test_security.py`")
    ]
    assert find_module("routing/target") is not None
    assert find_module("core/cluster_gateway_core/routing/target.py") is not None
    assert find_module("routing/tarot") is None
    assert find_test("tests/docs/test_security.py::test_what_does_not_exist_is_found_out")
    assert not find_test("tests/docs/test_security.py::test_something_else")
    assert not find_test("tests/support/gateway.py")
