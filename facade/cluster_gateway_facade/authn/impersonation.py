"""Telling requests that ask to act as somebody else; what comes of it is the core's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX: Final = b"impersonate-"


def impersonation_headers(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the `Impersonate-*` headers in order, names compared without case and with "_" read as "-"."""
    return [header for header in headers if header[0][: len(_PREFIX)].lower().replace(b"_", b"-") == _PREFIX]
