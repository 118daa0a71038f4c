"""How the parts of a core tell whether they work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of `/readyz?verbose`.

    Attributes:
        name: Short, stable, for example "cluster-secrets".
        ready: Whether requests can be served as far as this part goes.
        detail: What is wrong or notable; may be non-empty although ready, then something is degraded.
    """

    name: str
    ready: bool
    detail: str = ""
