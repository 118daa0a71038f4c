"""HTTP messages as bytes on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Name and value of each header line, in order, duplicates kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request before its body.

    Attributes:
        method: HTTP method in upper case.
        target: Path and query as bytes on the wire, below the cluster's root.
        headers: As received.
        forwarded_for: Value for X-Forwarded-For; empty for none.
        upgrade: Protocol that it asks to switch to; empty for none.
        has_body: False when the message ends with its head.
    """

    method: str
    target: bytes
    headers: Headers
    forwarded_for: str = ""
    upgrade: str = ""
    has_body: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """A response before its body."""

    status: int
    reason: bytes
    headers: Headers
