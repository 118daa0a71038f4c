"""JSON from the hub, looked into without trust in its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

JSONObject: TypeAlias = dict[str, Any]
"""An object as the hub's JSON has it."""


def as_object(value: object) -> JSONObject:
    """The value when it is an object, else an empty one."""
    return cast("JSONObject", value) if isinstance(value, dict) else {}


def as_list(value: object) -> Sequence[Any]:
    """The value when it is a list, else an empty one."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def as_text(value: object) -> str:
    """The value when it is a string, else an empty one."""
    return value if isinstance(value, str) else ""
