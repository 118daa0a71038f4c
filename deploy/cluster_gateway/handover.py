"""Settings on their way from the supervisor to a child: JSON, one line, through the child's standard input.

Standard input, because command lines can be read by everybody on the host. The same pipe is the child's
lifeline: it stays open for as long as the supervisor lives.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar, cast, get_origin, get_type_hints

_Settings = TypeVar("_Settings")


def encode_settings(settings: object, *, verbosity: int) -> bytes:
    """Write settings (a dataclass of scalars, tuples and such dataclasses) and the verbosity as a line."""
    document = {"verbosity": verbosity, "settings": dataclasses.asdict(cast("Any", settings))}
    return json.dumps(document).encode() + b"\n"


def decode_settings(line: bytes, kind: type[_Settings]) -> tuple[_Settings, int]:
    """Read what `encode_settings` wrote.

    Args:
        line: The line.
        kind: The dataclass that the settings are.

    Returns:
        The settings, and the verbosity.

    Raises:
        ValueError: The line is not whole.
    """
    document = json.loads(line)
    return cast("_Settings", _build(kind, document["settings"])), int(document["verbosity"])


def _build(kind: Any, values: dict[str, Any]) -> object:
    hints = get_type_hints(kind)
    return kind(**{name: _convert(hints[name], value) for name, value in values.items()})


def _convert(hint: Any, value: Any) -> object:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value)
    return tuple(value) if get_origin(hint) is tuple else value
