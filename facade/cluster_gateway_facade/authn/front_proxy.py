"""The user that the hub's front proxy names in request headers.

Source: kubernetes/apiserver, pkg/authentication/request/headerrequest/requestheader.go.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from clustergateway.access.v1.user_info_pb2 import ExtraValues, UserInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster_gateway_facade.authn.anchors import FrontProxyAnchor

    RawHeaders = Sequence[tuple[bytes, bytes]]

_ESCAPE_LENGTH: Final = 3


def read_front_proxy_user(headers: RawHeaders, anchor: FrontProxyAnchor) -> UserInfo | None:
    """Read the user that a verified front proxy asserts.

    Args:
        headers: Names and values as received.
        anchor: Names of the headers that carry the user.

    Returns:
        The user, or None when no name header has a value. Of several name headers the first with a non-empty
        first value wins; groups are all values of all group headers in the configured order, empty ones
        dropped; extra keys are lower-cased, then percent-decoded once, malformed escapes kept.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    username = _first_of(lowered, anchor.username_headers)
    if not username:
        return None
    return UserInfo(
        username=username,
        uid=_first_of(lowered, anchor.uid_headers),
        groups=[_text(value) for wanted in anchor.group_headers for name, value in lowered if name == wanted and value],
        extra=_extra(lowered, anchor.extra_prefixes),
    )


def _first_of(headers: RawHeaders, names: Iterable[bytes]) -> str:
    for wanted in names:
        value = next((value for name, value in headers if name == wanted), b"")
        if value:
            return _text(value)
    return ""


def _extra(headers: RawHeaders, prefixes: Iterable[bytes]) -> dict[str, ExtraValues]:
    collected: dict[str, list[str]] = {}
    for prefix in prefixes:
        for name, value in headers:
            if name.startswith(prefix):
                collected.setdefault(_unescape(_text(name[len(prefix) :])), []).append(_text(value))
    return {key: ExtraValues(values=values) for key, values in collected.items()}


def _unescape(key: str) -> str:
    """Undo percent encoding once, or not at all where an escape is malformed, as Go's url.PathUnescape."""
    position = key.find("%")
    while position >= 0:
        escape = key[position : position + _ESCAPE_LENGTH]
        if len(escape) < _ESCAPE_LENGTH or not set(escape[1:]) <= set(string.hexdigits):
            return key
        position = key.find("%", position + _ESCAPE_LENGTH)
    return unquote(key, errors="replace")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
