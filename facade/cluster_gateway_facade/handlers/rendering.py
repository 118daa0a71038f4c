"""Documents and objects as bytes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from cluster_gateway_facade.exchange import Answer
from cluster_gateway_facade.negotiation import YAML

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_gateway_facade.exchange import ApiRequest

# Clients that people look at the output of; kube-apiserver's own list (negotiate.go, isPrettyPrint).
_HUMAN_AGENTS: Final = ("curl", "Wget", "Mozilla/5.0")
# What Go's strconv.ParseBool takes for true.
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})


class _Dumper(yaml.CSafeDumper):
    """A YAML writer whose output every reader understands alike."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class names it so
        """Write a value again where it occurs again: not every reader follows aliases."""
        return True


def _represent_text(_dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Readers of YAML 1.2 and Go's take 1e3, 0o7 or .5 for numbers where PyYAML, of YAML 1.1, leaves the
    # string bare; a label may well be "12e5".
    style = '"' if re.match(r"[-+.]?\d", text) else None
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def render(value: Mapping[str, Any], media_type: str, *, pretty: bool = False) -> bytes:
    """Write a document as JSON or YAML.

    Args:
        value: What `json` can write.
        media_type: `application/yaml` for YAML, anything else is JSON.
        pretty: Whether JSON is indented.
    """
    if media_type == YAML:
        return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, encoding="utf-8")
    text = json.dumps(value, indent=2) if pretty else json.dumps(value, separators=(",", ":"))
    return text.encode() + b"\n"


def wants_pretty(request: ApiRequest) -> bool:
    """Say whether JSON should be indented: asked for by `?pretty`, or by a client that people look at."""
    asked = request.parameter("pretty")
    if asked:
        return asked in _TRUE
    return request.headers.get("User-Agent", "").startswith(_HUMAN_AGENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document that never changes while the process runs, written once.

    Attributes:
        content_type: Media type with parameters.
        body: The bytes.
        etag: Strong entity tag in quotes: SHA-512 of the bytes, so that replicas agree on it.
    """

    content_type: str
    body: bytes
    etag: str

    @classmethod
    def of(cls, value: Mapping[str, Any], *, media_type: str, content_type: str = "") -> Document:
        """Write a document; `content_type` where it says more than the media type."""
        body = render(value, media_type)
        digest = hashlib.sha512(body).hexdigest().upper()
        return cls(content_type=content_type or media_type, body=body, etag=f'"{digest}"')

    @property
    def hash(self) -> str:
        """The entity tag without quotes."""
        return self.etag.strip('"')

    def answer(self, request: ApiRequest, *headers: tuple[str, str]) -> Answer:
        """Answer a request: 304 without a body when the caller has this very document already.

        `Vary: Accept` keeps a cache from giving one form to a caller that asked for another.
        """
        told = (("ETag", self.etag), ("Vary", "Accept"), *headers)
        if _is_known(self.etag, request.headers.get("If-None-Match", "")):
            return Answer(status=304, content_type=self.content_type, headers=told)
        return Answer(content_type=self.content_type, body=self.body, headers=told)


def _is_known(etag: str, if_none_match: str) -> bool:
    """Compare weakly, as RFC 9110 section 13.1.2 wants it for If-None-Match."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or known == ["*"]
