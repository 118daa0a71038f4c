"""YAML from people who are trusted little: a small, plain tree, or an error.

What YAML has beyond JSON is refused where it can hurt or mislead: aliases, which multiply (Kubernetes CVE-2019-11253),
merge keys, explicit tags, a key given twice, several documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAXIMUM_DEPTH: Final = 16
"""Deepest nesting; the configurations that are read here have eight levels."""
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING: Final = "tag:yaml.org,2002:str"
_NULL: Final = "tag:yaml.org,2002:null"


class InvalidYAMLError(ValueError):
    """The text is refused; the message says why and quotes nothing of it but a line number."""


class NotText:
    """A scalar that YAML reads as something else than text, such as a number or a date."""


def parse_bounded_yaml(text: str, *, maximum_bytes: int) -> object:
    """Read one YAML or JSON document.

    Args:
        text: The document.
        maximum_bytes: Most bytes of it in UTF-8.

    Returns:
        Nested `dict` with `str` keys, `list`, `str`, None and `NotText`.

    Raises:
        InvalidYAMLError: It is not YAML, or breaks a rule that the module's docstring tells.
    """
    if len(text.encode("utf-8", "surrogatepass")) > maximum_bytes:
        raise InvalidYAMLError(f"it is longer than {maximum_bytes} bytes")
    try:
        _check_events(yaml.parse(text, Loader=_LOADER))
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise InvalidYAMLError(f"it is not YAML{line}") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InvalidYAMLError):
            raise
        raise InvalidYAMLError("it is not YAML") from error
    return _value(node) if node is not None else None


def _check_events(events: Iterator[Any]) -> None:
    """Refuse before anything is built: building recurses, and follows aliases."""
    depth = documents = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAXIMUM_DEPTH:
                raise InvalidYAMLError(f"it is nested deeper than {MAXIMUM_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise InvalidYAMLError("it holds an alias")
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InvalidYAMLError("it holds more than one document")
        if isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)) and event.tag is not None:
            raise InvalidYAMLError("it holds a tag")


def _value(node: Any) -> object:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if node.tag == _STRING:
        return str(node.value)
    return None if node.tag == _NULL else NotText()


def _mapping(node: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = _value(key_node)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise InvalidYAMLError(f"a key is no text (line {line})")
        if key in found:
            raise InvalidYAMLError(f"a key is given twice (line {line})")
        found[key] = _value(value_node)
    return found
