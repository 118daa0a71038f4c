"""docs/headers.md says what the code does with headers."""

from __future__ import annotations

import pytest
from tests.support.header_tables import (
    REMOVED_FROM_REQUESTS,
    REMOVED_FROM_RESPONSES,
    SET_ON_REQUESTS,
    SET_ON_RESPONSES,
    forwarded,
    returned,
)

from cluster_gateway_core.routing import header_policy

PAGES = (REMOVED_FROM_REQUESTS, SET_ON_REQUESTS, REMOVED_FROM_RESPONSES, SET_ON_RESPONSES)


def test_every_header_that_the_code_removes_from_a_request_is_listed() -> None:
    prefixes = (*header_policy._NEVER_FORWARDED_PREFIXES, header_policy._IMPERSONATION_PREFIX)
    removed = header_policy._NEVER_FORWARDED | {prefix + b"x" for prefix in prefixes}
    assert [name for name in sorted(removed) if not REMOVED_FROM_REQUESTS.holds(name)] == []


def test_every_header_that_the_code_removes_from_a_response_is_listed_and_no_other() -> None:
    assert REMOVED_FROM_RESPONSES.names == header_policy._NEVER_RETURNED
    assert REMOVED_FROM_RESPONSES.prefixes == ()


@pytest.mark.parametrize("row", REMOVED_FROM_REQUESTS.rows)
def test_every_header_listed_as_removed_from_a_request_is_removed(row: str) -> None:
    for name in {row, row.lower(), row.upper(), row.replace("-", "_")}:
        lines = [(b"A", b"1"), (name.replace("*", "Anything").encode(), b"x"), (b"B", b"2")]
        assert header_policy.forwarded_headers(lines, []) == forwarded(lines) == [(b"A", b"1"), (b"B", b"2")]


@pytest.mark.parametrize("row", REMOVED_FROM_RESPONSES.rows)
def test_every_header_listed_as_removed_from_a_response_is_removed(row: str) -> None:
    lines = [(b"A", b"1"), (row.encode(), b"x"), (b"B", b"2")]
    assert header_policy.returned_headers(lines) == returned(lines) == [(b"A", b"1"), (b"B", b"2")]


def test_every_table_was_found() -> None:
    assert [len(page.rows) for page in PAGES] == [17, 8, 9, 2]
