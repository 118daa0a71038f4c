"""The tables of docs/headers.md, so that the tests hold the code to what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).parents[2] / "docs" / "headers.md"
_ROW: Final = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


class HeaderTable:
    """The headers that one section of the page lists; a name that ends in "*" stands for all that begin so."""

    def __init__(self, section: str) -> None:
        text = _PAGE.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
        self.rows = _ROW.findall(text)
        lowered = [row.lower().encode() for row in self.rows]
        self.names = frozenset(name for name in lowered if not name.endswith(b"*"))
        self.prefixes = tuple(name[:-1] for name in lowered if name.endswith(b"*"))

    def holds(self, name: bytes) -> bool:
        """Whether a name in lower case is listed."""
        return name in self.names or (bool(self.prefixes) and name.startswith(self.prefixes))


REMOVED_FROM_REQUESTS: Final = HeaderTable("Removed from a request")
SET_ON_REQUESTS: Final = HeaderTable("Set on a request")
REMOVED_FROM_RESPONSES: Final = HeaderTable("Removed from a response")
SET_ON_RESPONSES: Final = HeaderTable("Set on a response")

Lines = list[tuple[bytes, bytes]]


def forwarded(lines: Lines) -> Lines:
    """What of a request's header lines reaches a cluster, by the page."""
    named = _named_by_connection(lines, underscores=True)
    return [
        (name, value)
        for name, value in lines
        if not REMOVED_FROM_REQUESTS.holds(name.lower().replace(b"_", b"-")) and name.lower() not in named
    ]


def returned(lines: Lines) -> Lines:
    """What of a response's header lines reaches a client, by the page; a Content-Length of a 204 apart."""
    named = _named_by_connection(lines, underscores=False)
    return [
        (name, value)
        for name, value in lines
        if not REMOVED_FROM_RESPONSES.holds(name.lower()) and name.lower() not in named
    ]


def _named_by_connection(lines: Lines, *, underscores: bool) -> set[bytes]:
    values = [
        value for name, value in lines if (name.replace(b"_", b"-") if underscores else name).lower() == b"connection"
    ]
    return {token.strip(b" \t").lower() for value in values for token in value.split(b",")}
