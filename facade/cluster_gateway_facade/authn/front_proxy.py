"""The user that the hub's front proxy names in request headers.

Source: kubernetes/apiserver, pkg/authentication/request/headerrequest/requestheader.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from clustergateway.access.v1.user_info_pb2 import ExtraValues, UserInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clustergateway.access.v1.access_service_pb2 import FrontProxyTrust

    RawHeaders = Sequence[tuple[bytes, bytes]]


def read_front_proxy_user(headers: RawHeaders, trust: FrontProxyTrust) -> UserInfo | None:
    """Read the user that a verified front proxy asserts.

    Args:
        headers: Names and values as received.
        trust: Names of the headers that carry the user.

    Returns:
        The user, or None when no name header has a value. Of several name headers the first with a non-empty first
        value wins; groups are all values of all group headers in the configured order, empty ones dropped; extra keys
        are lower-cased and percent-decoded once, malformed escapes kept.
    """
    username = _first_of(headers, trust.username_headers)
    if not username:
        return None
    return UserInfo(
        username=username,
        uid=_first_of(headers, trust.uid_headers),
        groups=[group for name in trust.group_headers for group in _values(headers, name) if group],
        extra=_extra(headers, trust.extra_header_prefixes),
    )


def _first_of(headers: RawHeaders, names: Iterable[str]) -> str:
    for name in names:
        value = next(iter(_values(headers, name)), "")
        if value:
            return value
    return ""


def _values(headers: RawHeaders, name: str) -> list[str]:
    wanted = name.lower().encode("latin-1")
    return [_text(value) for key, value in headers if key.lower() == wanted]


def _extra(headers: RawHeaders, prefixes: Iterable[str]) -> dict[str, ExtraValues]:
    collected: dict[str, list[str]] = {}
    for prefix in prefixes:
        wanted = prefix.lower().encode("latin-1")
        for name, value in headers:
            lowered = name.lower()
            if lowered.startswith(wanted):
                key = _unescape(lowered[len(wanted) :].decode("latin-1"))
                collected.setdefault(key, []).append(_text(value))
    return {key: ExtraValues(values=values) for key, values in collected.items()}


def _unescape(key: str) -> str:
    """Undo percent encoding once, or not at all where an escape is malformed, as Go's url.PathUnescape fails whole."""
    position = key.find("%")
    while position >= 0:
        digits = key[position + 1 : position + 3]
        if len(digits) < 2 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):  # noqa: PLR2004
            return key
        position = key.find("%", position + 3)
    return unquote(key, errors="replace").lower() if "%" in key else key


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
