"""The reader of citations, on made-up tests and a made-up family of cases."""

from __future__ import annotations

import textwrap

import pytest
from tests.support.case_citations import (
    EXCUSES_TITLE,
    case_pattern,
    cited_cases,
    mentioned_cases,
    read_cases,
    read_excuses,
)

_PATTERN = case_pattern(["ZZ-1", "ZZ-2"])


def cited(source: str) -> set[str]:
    return cited_cases(textwrap.dedent(source), _PATTERN)


@pytest.mark.parametrize(
    "source",
    [
        '''
        def test_a():
            """ZZ-1: it works."""
        ''',
        """
        def test_a():
            assert True  # ZZ-1
        """,
        """
        # ZZ-1 is what this
        # proves.
        @decorated
        def test_a():
            assert True
        """,
        """
        @pytest.mark.parametrize("x", [pytest.param(1, id="ZZ-1 one")])
        async def test_a(x):
            assert x
        """,
        """
        ROWS = [("ZZ-1", 1)]
        TABLE = [*ROWS]
        @pytest.mark.parametrize("x", TABLE)
        def test_a(x):
            assert x
        """,
        """
        class TestAll:
            def test_a(self):
                "ZZ-1"
        """,
    ],
    ids=["docstring", "comment inside", "comment above", "parameter id", "table of a decorator", "method"],
)
def test_what_stands_at_a_test_is_a_citation(source: str) -> None:
    assert cited(source) == {"ZZ-1"}


@pytest.mark.parametrize(
    "source",
    [
        '"""ZZ-1."""\ndef test_a():\n    assert True\n',
        '''
        def helper():
            """ZZ-1."""
        ''',
        """
        # ZZ-1 is far away.

        def test_a():
            assert True
        """,
        """
        TABLE = ["ZZ-1"]
        def test_a():
            assert True
        """,
        '''
        @pytest.mark.skip(reason="not yet")
        def test_a():
            """ZZ-1."""
        ''',
        '''
        @pytest.mark.xfail
        def test_a():
            """ZZ-1."""
        ''',
        '''
        def test_a():
            """ZZ-1..ZZ-4, ZZ-1..4, ZZ-12a, XZZ-1."""
        ''',
    ],
    ids=["module docstring", "helper", "detached comment", "table of nobody", "skipped", "expected to fail", "range"],
)
def test_what_proves_nothing_is_no_citation(source: str) -> None:
    assert cited(source) == set()


def test_ids_that_the_catalogue_does_not_hold_are_seen_too() -> None:
    assert mentioned_cases("# ZZ-99 and YY-1", _PATTERN) == {"ZZ-99"}


def test_a_case_named_twice_in_the_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        read_cases("ZZ-1\tone\nZZ-1\tone again\n")


def test_excuses_are_read_from_their_section_alone() -> None:
    document = f"""
| ZZ-7 | another table |

{EXCUSES_TITLE}

| case | why it cannot apply |
|---|---|
| ZZ-1..ZZ-3 | not served |
| `ZZ-5`, ZZ-6 | no such thing |

## Something else
| ZZ-8 | another table |
"""
    excuses = read_excuses(document)
    assert [excuse.cases for excuse in excuses] == [("ZZ-1", "ZZ-2", "ZZ-3"), ("ZZ-5", "ZZ-6")]
    assert [excuse.reason for excuse in excuses] == ["not served", "no such thing"]
