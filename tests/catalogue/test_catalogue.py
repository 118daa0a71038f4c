"""Every case of the catalogue is proved by a test, or excused in writing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.case_citations import (
    Excuse,
    case_pattern,
    cited_cases,
    mentioned_cases,
    read_cases,
    read_excuses,
)

_TESTS = Path(__file__).parents[1]
_CATALOGUE = Path(__file__).with_name("cases.tsv")
_PENDING = Path(__file__).with_name("pending.txt")
_KNOWN_ISSUES = _TESTS.parent / "docs" / "known-issues.md"
_TEST_NAME = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")

CASES = read_cases(_CATALOGUE.read_text())
PATTERN = case_pattern(CASES)


def sources() -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(_TESTS.rglob("*.py"))}


@pytest.fixture(scope="module")
def cited() -> set[str]:
    return {
        case
        for path, source in sources().items()
        if path.name.startswith("test_")
        for case in cited_cases(source, PATTERN)
    }


@pytest.fixture(scope="module")
def excuses() -> list[Excuse]:
    return read_excuses(_KNOWN_ISSUES.read_text())


@pytest.fixture(scope="module")
def excused(excuses: list[Excuse]) -> set[str]:
    return {case for excuse in excuses for case in excuse.cases}


def pending() -> set[str]:
    lines = _PENDING.read_text().splitlines() if _PENDING.exists() else []
    return {line for line in lines if line and not line.startswith("#")}


def test_every_case_is_cited_by_a_test_or_excused(cited: set[str], excused: set[str]) -> None:
    missing = [case for case in CASES if case not in cited | excused | pending()]
    assert missing == [], f"cite these at the tests that prove them, or excuse them in {_KNOWN_ISSUES.name}"


def test_the_list_of_cases_without_a_test_only_shrinks(cited: set[str], excused: set[str]) -> None:
    settled = sorted(pending() & (cited | excused))
    assert settled == [], f"these are settled: delete their lines from {_PENDING.name}"
    assert pending() <= CASES.keys()


def test_no_case_is_both_proved_and_excused(cited: set[str], excused: set[str]) -> None:
    assert sorted(cited & excused) == []


def test_no_test_and_no_excuse_names_a_case_that_does_not_exist(excused: set[str]) -> None:
    unknown = {
        str(path.relative_to(_TESTS)): sorted(names - CASES.keys())
        for path, source in sources().items()
        if (names := mentioned_cases(source, PATTERN)) - CASES.keys()
    }
    assert unknown == {}
    assert sorted(excused - CASES.keys()) == []


def test_every_excuse_has_a_reason_and_names_tests_that_exist(excuses: list[Excuse]) -> None:
    assert excuses
    counted = [case for excuse in excuses for case in excuse.cases]
    assert len(counted) == len(set(counted)), "a case is excused twice"
    for excuse in excuses:
        assert len(excuse.reason.split()) > 3, f"{excuse.cases} is excused without a reason"
        for path, test in _TEST_NAME.findall(excuse.reason):
            source = (_TESTS.parent / path).read_text()
            assert not test or re.search(rf"def {test}\(", source), f"{path} has no {test}"
