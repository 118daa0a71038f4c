"""Field selectors, as far as every Kubernetes resource has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_FIELDS: Final = ("metadata.name", "metadata.namespace")


class InvalidFieldSelectorError(Exception):
    """The selector cannot be read, or names a field that cannot be selected by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRequirement:
    """One term, for example `metadata.name!=a`."""

    field: str
    value: str
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSelector:
    """Requirements that must all hold."""

    requirements: tuple[FieldRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Read a selector, for example "metadata.name=a".

        Args:
            text: Terms with "=", "==" or "!=", separated by commas; empty selects everything. Backslashes
                escape: names hold nothing that would need it, so such a value simply matches nothing.

        Raises:
            InvalidFieldSelectorError: A term has no operator or names another field.

        Source:
            kubernetes/apimachinery, pkg/fields/selector.go, parseSelector.
        """
        return cls(requirements=tuple(_parse_term(term) for term in text.split(",") if term))

    def matches(self, name: str) -> bool:
        """Say whether a cluster of this name is selected; clusters have no namespace."""
        actual = {"metadata.name": name, "metadata.namespace": ""}
        return all((actual[term.field] == term.value) is term.equal for term in self.requirements)


def _parse_term(term: str) -> FieldRequirement:
    # "!=" and "==" first: both contain "=".
    operator = next((found for found in ("!=", "==", "=") if found in term), "")
    if not operator:
        raise InvalidFieldSelectorError(f"invalid selector: '{term}'; can't understand '{term}'")
    field, _, value = term.partition(operator)
    if field not in _FIELDS:
        raise InvalidFieldSelectorError(f"field label not supported: {field}")
    return FieldRequirement(field=field, value=value, equal=operator != "!=")
