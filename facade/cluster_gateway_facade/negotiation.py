"""Choice of a representation by the Accept header, by the rules of kube-apiserver.

Kubernetes puts more than a media type into Accept: `as`, `g` and `v` ask for another kind, for example
`application/json;as=Table;g=meta.k8s.io;v=v1`. A range whose kind is not served is skipped, and the next
is tried; unknown parameters are ignored.

Source:
    kubernetes/apiserver, pkg/endpoints/handlers/negotiation/negotiate.go, NegotiateMediaTypeOptions;
    munnerz/goautoneg, ParseAccept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

JSON: Final = "application/json"
"""Media type that every document is served in."""
YAML: Final = "application/yaml"
"""Media type that objects and legacy discovery are served in, too."""

_TARGET_PARAMETERS: Final = frozenset({"as", "g", "v"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The kind into which a caller wants the answer turned."""

    group: str
    version: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One element of an Accept header.

    Attributes:
        type: Lower case, or "*".
        subtype: Lower case, or "*".
        parameters: Names in lower case; values as sent. Without `q`.
        quality: From 0 to 1.
    """

    type: str
    subtype: str
    parameters: Mapping[str, str]
    quality: float = 1.0

    def matches(self, media_type: str) -> bool:
        """Say whether a media type falls within this range."""
        wanted_type, _, wanted_subtype = media_type.partition("/")
        return self.type in ("*", wanted_type) and self.subtype in ("*", wanted_subtype)

    def target(self) -> Target | None:
        """Return the kind that is asked for, or None for the ordinary one."""
        if _TARGET_PARAMETERS.isdisjoint(self.parameters):
            return None
        values = self.parameters
        return Target(group=values.get("g", ""), version=values.get("v", ""), kind=values.get("as", ""))

    def is_possible(self) -> bool:
        """Say whether this server can keep to the range's parameters.

        `sv` asks for another version of the server's group and `stream` for another framing: neither is
        served, save `stream=watch`, which kube-apiserver accepts, and ignores, on any request.
        """
        return not self.parameters.get("sv") and self.parameters.get("stream", "") in ("", "watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The representation to answer with."""

    media_type: str
    target: Target | None = None


def parse_accept(header: str) -> tuple[MediaRange, ...]:
    """Read an Accept header.

    Returns:
        Its well-formed elements, most wanted first: by quality, then exact types before wildcards, then
        in the order sent. Elements with quality 0 are left out (RFC 9110, section 12.4.2).
    """
    ranges = [found for element in header.split(",") if (found := _parse_range(element)) is not None]
    wanted = [found for found in ranges if found.quality > 0]
    return tuple(sorted(wanted, key=lambda found: (-found.quality, found.type == "*", found.subtype == "*")))


def negotiate(
    accept: str | None, media_types: Sequence[str], targets: Collection[Target | None] = (None,)
) -> Choice | None:
    """Choose a representation.

    Args:
        accept: Value of the Accept header; None or empty accepts everything.
        media_types: What is served, most preferred first.
        targets: Kinds that the answer can be turned into; None is the ordinary kind.

    Returns:
        The choice, or None when nothing that is served is acceptable.
    """
    if not accept:
        return Choice(media_type=media_types[0])
    for wanted in parse_accept(accept):
        if not wanted.is_possible() or wanted.target() not in targets:
            continue
        for media_type in media_types:
            if wanted.matches(media_type):
                return Choice(media_type=media_type, target=wanted.target())
    return None


def _parse_range(element: str) -> MediaRange | None:
    media_type, *pairs = (part.strip() for part in element.split(";"))
    type_, slash, subtype = media_type.lower().partition("/")
    # "*" alone is not in the grammar, yet Java's URLConnection sends it, and goautoneg reads it as "*/*".
    if media_type == "*":
        type_, slash, subtype = "*", "/", "*"
    if not (type_ and slash and subtype):
        return None
    split = (pair.partition("=") for pair in pairs if pair)
    parameters = {key.strip().lower(): value.strip().strip('"') for key, _, value in split}
    quality = _parse_quality(parameters.pop("q", "1"))
    return MediaRange(type=type_, subtype=subtype, parameters=parameters, quality=quality)


def _parse_quality(text: str) -> float:
    """Read a quality; what is no number between 0 and 1 counts as 1, as goautoneg has it."""
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if 0 <= quality <= 1 else 1.0
