"""Kubernetes label selectors: parsing and matching; pure.

Source: kubernetes/apimachinery, pkg/labels/selector.go (Parse, Matches) and pkg/util/validation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The longest operator first, as the lexer takes it; other characters run up to the next special one.
_TOKEN: Final = re.compile(r"\s*(?:(==|!=|[=!(),<>])|([^\s=!(),<>]+))", re.ASCII)
_COMMA: Final = ","
_CLOSE: Final = ")"
_SPECIAL: Final = frozenset({"==", "=", "!=", "!", "(", ")", ",", "<", ">"})
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_MAXIMUM_SUBDOMAIN_CHARACTERS: Final = 253
_MAXIMUM_SELECTOR_CHARACTERS: Final = 64 * 1024


class Operator(StrEnum):
    """What a requirement asks of a label."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = ">"
    LESS_THAN = "<"


_BINARY: Final = {
    "=": Operator.IN,
    "==": Operator.IN,
    "!=": Operator.NOT_IN,
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition on one label.

    Attributes:
        key: The label.
        operator: What is asked; equality is `IN` or `NOT_IN` with one value.
        values: Its values; empty for the operators that need none.
    """

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it; what a label is not, is also met by its absence."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GREATER_THAN | Operator.LESS_THAN:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or not _INTEGER.fullmatch(value):
            return False
        limit = int(next(iter(self.values)))
        return int(value) > limit if self.operator is Operator.GREATER_THAN else int(value) < limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """All requirements must be met; none select everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)


EVERYTHING: Final = LabelSelector()


def parse_label_selector(text: str) -> LabelSelector:
    """Parse a selector such as "region in (eu,us),tier!=dev,!retired".

    Raises:
        InvalidRequestError: It breaks the grammar, or a key or value cannot be a label's.
    """
    if len(text) > _MAXIMUM_SELECTOR_CHARACTERS:
        raise InvalidRequestError(f"the label selector is longer than {_MAXIMUM_SELECTOR_CHARACTERS}")
    return LabelSelector(requirements=tuple(_Parser(text).parse()))


class _Parser:
    """Recursive descent over the tokens; an empty token is the end."""

    def __init__(self, text: str) -> None:
        self._tokens = [operator or word for operator, word in _TOKEN.findall(text)]
        self._position = 0

    def parse(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        if not self._peek():
            return requirements
        while True:
            requirements.append(self._parse_requirement())
            token = self._take()
            if not token:
                return requirements
            if token != _COMMA:
                raise _unexpected(token, "',' or 'end of string'")

    def _parse_requirement(self) -> Requirement:
        negated = self._peek() == "!"
        if negated:
            self._take()
        key = _check_key(self._take_word("identifier"))
        if self._peek() in ("", ","):
            return Requirement(key=key, operator=Operator.DOES_NOT_EXIST if negated else Operator.EXISTS)
        token = self._take()
        operator = _BINARY.get(token)
        if operator is None or negated:
            raise _unexpected(token, "in, notin, =, ==, !=, >, <" if not negated else "','")
        values = self._parse_set() if token in ("in", "notin") else frozenset({self._parse_exact_value()})
        return _check_requirement(Requirement(key=key, operator=operator, values=values))

    def _parse_exact_value(self) -> str:
        return "" if self._peek() in ("", ",") else self._take_word("identifier")

    def _parse_set(self) -> frozenset[str]:
        """Read "(a,b)"; nothing between two separators is the empty value."""
        if self._peek() != "(":
            raise _unexpected(self._peek(), "'('")
        self._take()
        values: set[str] = set()
        while True:
            values.add("" if self._peek() in (",", ")") else self._take_word("',' or identifier"))
            token = self._take()
            if token == _CLOSE:
                return frozenset(values)
            if token != _COMMA:
                raise _unexpected(token, "',' or ')'")

    def _take_word(self, expected: str) -> str:
        token = self._take()
        if not token or token in _SPECIAL:
            raise _unexpected(token, expected)
        return token

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._position += 1
        return token


def _unexpected(token: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"unable to parse label selector: found '{token}', expected: {expected}")


def _check_key(key: str) -> str:
    """Check a qualified name: an optional DNS subdomain and "/", then at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    wrong_prefix = bool(slash) and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= _MAXIMUM_SUBDOMAIN_CHARACTERS)
    if wrong_prefix or not _NAME.fullmatch(name):
        raise InvalidRequestError(f"unable to parse label selector: '{key}' cannot be a label's key")
    return key


def _check_requirement(requirement: Requirement) -> Requirement:
    numeric = requirement.operator in (Operator.GREATER_THAN, Operator.LESS_THAN)
    for value in requirement.values:
        if numeric and not _INTEGER.fullmatch(value):
            raise InvalidRequestError(f"unable to parse label selector: '{value}' is not an integer")
        if value and not _NAME.fullmatch(value):
            raise InvalidRequestError(f"unable to parse label selector: '{value}' cannot be a label's value")
    return requirement
