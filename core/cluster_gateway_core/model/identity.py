"""Rules by which a caller's identity becomes the one that a cluster sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import re2

MAXIMUM_PATTERN_BYTES: Final = 1024
"""Longest pattern; what names users, groups and clusters is far shorter."""
_MEMORY_BYTES: Final = 1024 * 1024
"""Memory of one pattern, automata included; RE2 refuses patterns that need more."""


def _options() -> Any:
    options: Any = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    return options


class InvalidPatternError(ValueError):
    """The text is no pattern of RE2, or too large a one."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that must match a name whole, in the syntax of Go's regexp.

    The engine is RE2, whose time is linear in the name whatever the pattern is: rules come from people who may write
    Secrets, names from anybody, and a backtracking engine could be made to stall every request.

    Attributes:
        text: As written; patterns of one text are equal.
    """

    text: str
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile.

        Raises:
            InvalidPatternError: It cannot be compiled.
        """
        if len(self.text.encode("utf-8", "surrogatepass")) > MAXIMUM_PATTERN_BYTES:
            raise InvalidPatternError(f"it is longer than {MAXIMUM_PATTERN_BYTES} bytes")
        try:
            compiled = re2.compile(self.text, _options())
        except (re2.error, UnicodeError) as error:
            raise InvalidPatternError("it is no regular expression of RE2") from error
        object.__setattr__(self, "_compiled", compiled)

    def matches(self, name: str) -> bool:
        """Whether the whole name is matched."""
        try:
            return self._compiled.fullmatch(name) is not None
        except UnicodeError:  # a lone surrogate, which no name from the wire holds
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySource:
    """To whom a rule applies: to those who fulfil everything that is not None; something always is.

    Attributes:
        user: User name.
        group: A group of the user.
        uid: The user's uid.
        cluster: Name of the cluster.
        user_pattern: Matches the user name.
        group_pattern: Matches a group of the user.
        cluster_pattern: Matches the cluster's name.
    """

    user: str | None = None
    group: str | None = None
    uid: str | None = None
    cluster: str | None = None
    user_pattern: Pattern | None = None
    group_pattern: Pattern | None = None
    cluster_pattern: Pattern | None = None


@dataclass(frozen=True, slots=True)
class Privileged:
    """The cluster sees the gateway's own credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticMapping:
    """The cluster sees this user.

    Attributes:
        user: Never empty: an empty one would mean the gateway's own credential.
        groups: Exactly these, whatever they are.
        uid: Empty for none.
    """

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """The cluster sees whom a service names.

    Attributes:
        url: An https URL; may hold a secret in its query, hence not shown.
    """

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassThrough:
    """The cluster sees the caller, and these groups too, though Kubernetes reserves them.

    Attributes:
        privileged_groups: Exact names.
    """

    privileged_groups: frozenset[str] = frozenset()


Exchange: TypeAlias = Privileged | StaticMapping | External | PassThrough


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRule:
    """One rule; of several the first that applies counts.

    Attributes:
        name: For messages.
        source: To whom it applies.
        exchange: What the cluster sees.
    """

    name: str
    source: IdentitySource
    exchange: Exchange
