"""Which headers travel, in both directions.

Strip first, then set: no identity, credential or hop-by-hop header of the caller reaches a cluster, and what the
caller names in `Connection` goes before anything of ours is added. A header that `Connection` may remove at the next
hop, set by us, would turn an impersonated request into one of the gateway's own (Rancher CVE-2021-31999).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import AccessDeniedError, Hop, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_gateway_core.model.http import Headers

_HOP_BY_HOP: Final = frozenset(
    {
        # RFC 9110 section 7.6.1, and what common software treats alike
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NEVER_FORWARDED: Final = _HOP_BY_HOP | {
    b"authorization",
    b"cookie",
    b"content-length",  # framing is set anew
    b"expect",  # answered by the gateway itself
    b"forwarded",
    b"host",
    b"http2-settings",
    b"proxy-authenticate",
    b"proxy-authorization",
}
_NEVER_FORWARDED_PREFIXES: Final = (b"x-remote-", b"x-forwarded-", b"proxy-")
_IMPERSONATION_PREFIX: Final = b"impersonate-"
_BEARER_SUBPROTOCOL: Final = b"base64url.bearer.authorization.k8s.io."
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A header's name: RFC 9110 section 5.6.2, token. A space before the colon would split readers' opinions."""
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""RFC 9110 section 5.5."""
AUDIT_ID: Final = b"audit-id"
"""Source: kubernetes/apiserver, pkg/apis/audit/types.go, HeaderAuditID."""
_NEVER_RETURNED: Final = _HOP_BY_HOP | {b"proxy-authenticate", b"alt-svc"}


def forwarded_headers(
    headers: Headers, impersonation: list[tuple[bytes, bytes]] | None = None
) -> list[tuple[bytes, bytes]]:
    """Return the caller's headers that a cluster may see, in order and as spelled.

    Names are compared without regard to case and with "_" read as "-", because some servers read them alike.

    Args:
        headers: As received.
        impersonation: Takes the `Impersonate-*` headers, which never travel, for whoever acts upon them. They count
            whether or not `Connection` lists them: a request must not run as its bearer because a header was lost.

    Raises:
        AccessDeniedError: There are `Impersonate-*` headers, and nobody to act upon them.
        InvalidRequestError: A name or value would break the request's framing.
    """
    kept: list[tuple[bytes, bytes]] = []
    named: set[bytes] = set()
    for name, value in headers:
        key = name.lower().replace(b"_", b"-")
        if key in _NEVER_FORWARDED:
            if key == b"connection":
                named |= _connection_tokens(value)
            continue
        if key.startswith(_NEVER_FORWARDED_PREFIXES):
            continue
        if key.startswith(_IMPERSONATION_PREFIX):
            if impersonation is None:
                raise AccessDeniedError("impersonation headers are not accepted here", hop=Hop.CALLER)
            impersonation.append((name, value))
            continue
        if _NAME.fullmatch(name) is None or _FORBIDDEN_IN_VALUE.search(value) is not None:
            raise InvalidRequestError("a header has no valid name or holds a control character")
        if key == b"sec-websocket-protocol":
            value = _without_bearer(value)  # noqa: PLW2901 - the kept form of this header
            if not value:
                continue
        kept.append((name, value))
    if named:
        kept = [header for header in kept if header[0].lower() not in named]
    return kept


def has_audit_id(headers: Headers) -> bool:
    """Whether a request carries the id under which the hub and the cluster log it."""
    return any(name.lower() == AUDIT_ID for name, _ in headers)


def returned_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the cluster's headers that the caller may see, in order and as spelled."""
    kept: list[tuple[bytes, bytes]] = []
    named: set[bytes] = set()
    for name, value in headers:
        key = name.lower()
        if key in _NEVER_RETURNED:
            if key == b"connection":
                named |= _connection_tokens(value)
            continue
        kept.append((name, value))
    if named:
        kept = [header for header in kept if header[0].lower() not in named]
    return kept


def first_value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of a header; `name` in lower case."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def _connection_tokens(value: bytes) -> set[bytes]:
    return {token for part in value.split(b",") if (token := part.strip(b" \t").lower())}


def _without_bearer(value: bytes) -> bytes:
    """Drop a bearer token that travels as a WebSocket sub-protocol.

    Source: kubernetes/apiserver, pkg/authentication/request/websocket/protocol.go.
    """
    if _BEARER_SUBPROTOCOL not in value.lower():
        return value
    kept = [part.strip() for part in value.split(b",") if not part.strip().lower().startswith(_BEARER_SUBPROTOCOL)]
    return b", ".join(kept)
