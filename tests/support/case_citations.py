"""Which cases of the catalogue the tests cite, and which are excused in writing.

A citation counts where a reader would look for the proof: in a test function with its decorators, in the comment
directly above it, and in the tables of the same module that its decorators name. What stands elsewhere proves nothing.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TestFunction: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

EXCUSES_TITLE: Final = "## Cases of the catalogue that do not apply"
_NOT_RUN: Final = frozenset({"skip", "skipif", "xfail"})
_RANGE: Final = re.compile(r"([A-Z][A-Z0-9]*)-(\d+)(?:\.\.|…| to )(?:\1-)?(\d+)")
_ROW_CELLS: Final = 2


@dataclass(frozen=True, slots=True)
class Excuse:
    """A row of the table of cases that do not apply."""

    cases: tuple[str, ...]
    reason: str


def read_cases(table: str) -> dict[str, str]:
    """Read the catalogue: id and what is expected, separated by a tab, one case a line."""
    cases = dict(line.split("\t", 1) for line in table.splitlines() if line)
    if len(cases) != sum(1 for line in table.splitlines() if line):
        raise ValueError("the catalogue names a case twice")
    return cases


def case_pattern(cases: Iterable[str]) -> re.Pattern[str]:
    """A pattern of ids of the catalogue's families, also of such as it does not hold; an end of a range is none."""
    families = sorted({case.rpartition("-")[0] for case in cases})
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(families)})-\d+(?![\w]|\.\.|…)")


def cited_cases(source: str, pattern: re.Pattern[str]) -> set[str]:
    """Ids that a test module's tests cite."""
    module = ast.parse(source)
    comments = _comments(source)
    tables = dict(_tables(module))
    cited: set[str] = set()
    for test in _tests(module.body):
        start = min((decorator.lineno for decorator in test.decorator_list), default=test.lineno)
        while start - 1 in comments and comments[start - 1].own_line:
            start -= 1
        cited |= _cited(test, start, comments, pattern)
        for table in _named_tables(test.decorator_list, tables):
            cited |= _cited(table, table.lineno, comments, pattern)
    return cited


def mentioned_cases(source: str, pattern: re.Pattern[str]) -> set[str]:
    """Ids anywhere in a text."""
    return set(pattern.findall(source))


def read_excuses(document: str) -> list[Excuse]:
    """Read the table of cases that do not apply; ranges such as `ZZ-1..ZZ-9` are written out."""
    _, _, section = document.partition(EXCUSES_TITLE)
    excuses: list[Excuse] = []
    for line in section.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == _ROW_CELLS and re.search(r"[A-Z]-?\d", cells[0]):
            excuses.append(Excuse(cases=tuple(_written_out(cells[0])), reason=cells[1]))
    return excuses


@dataclass(frozen=True, slots=True)
class _Comment:
    text: str
    own_line: bool


def _comments(source: str) -> dict[int, _Comment]:
    return {
        token.start[0]: _Comment(token.string, token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }


def _tests(body: Iterable[ast.stmt]) -> Iterator[_TestFunction]:
    for statement in body:
        if isinstance(statement, ast.ClassDef) and statement.name.startswith("Test"):
            yield from _tests(statement.body)
        elif isinstance(statement, _TestFunction) and statement.name.startswith("test_") and _is_run(statement):
            yield statement


def _is_run(test: _TestFunction) -> bool:
    """Whether a test is held to pass, so that it proves something."""
    names = {node.attr for decorator in test.decorator_list for node in ast.walk(decorator) if _is_mark(node)}
    return not names & _NOT_RUN


def _is_mark(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "mark"


def _tables(module: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for statement in module.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        yield from ((target.id, statement) for target in targets if isinstance(target, ast.Name))


def _named_tables(decorators: Iterable[ast.expr], tables: dict[str, ast.stmt]) -> Iterator[ast.stmt]:
    """Tables that decorators name, and tables that these are put together from."""
    waiting: list[ast.AST] = list(decorators)
    seen: set[str] = set()
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id in tables and node.id not in seen:
                seen.add(node.id)
                waiting.append(tables[node.id])
                yield tables[node.id]


def _cited(node: ast.AST, start: int, comments: dict[int, _Comment], pattern: re.Pattern[str]) -> set[str]:
    end = getattr(node, "end_lineno", None) or start
    texts = [comments[line].text for line in range(start, end + 1) if line in comments]
    texts += [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return {case for text in texts for case in pattern.findall(text)}


def _written_out(cell: str) -> Iterator[str]:
    for part in re.split(r",\s*", cell.replace("`", "")):
        many = _RANGE.fullmatch(part)
        if many is None:
            yield part
        else:
            yield from (f"{many[1]}-{number}" for number in range(int(many[2]), int(many[3]) + 1))
