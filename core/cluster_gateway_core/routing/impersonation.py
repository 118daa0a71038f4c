"""What a caller asks for with `Impersonate-*` headers: whom to act as, and what that needs.

The rules are kube-apiserver's, with three differences, all towards refusing: a header that is empty, repeated where one
is meant, or of an unknown name is an error instead of being passed over; so is text that is no UTF-8 or holds a control
character, because it would be reviewed as something else; and one request may ask for a bounded number of things.

Source: kubernetes/apiserver, pkg/endpoints/filters/impersonation.go, WithImpersonation and buildImpersonationRequests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from cluster_gateway_core.errors import InvalidRequestError
from cluster_gateway_core.model.attributes import ResourceAttributes
from cluster_gateway_core.model.user import (
    ANONYMOUS_USER,
    AUTHENTICATED_GROUP,
    SERVICE_ACCOUNTS_GROUP,
    UNAUTHENTICATED_GROUP,
    UserInfo,
    parse_service_account,
)

if TYPE_CHECKING:
    from cluster_gateway_core.model.http import Headers

MAXIMUM_PIECES: Final = 256
"""Most users, groups, uids and extra values of one request: each is a review at the hub. Twice the 128 groups of the
largest directories' users; the hub's own filter has no bound, but also asks nobody over a network."""

_PREFIX: Final = "impersonate-"
_EXTRA_PREFIX: Final = "impersonate-extra-"
_KNOWN: Final = frozenset({"impersonate-user", "impersonate-group", "impersonate-uid"})
_BAD_ESCAPE: Final = re.compile("%(?![0-9a-fA-F]{2})")
_AUTHENTICATION_GROUP: Final = "authentication.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Impersonation:
    """Another user to act as.

    Attributes:
        user: The user, with the groups that follow from the name.
        required: What the caller must be allowed to do, everything of it, before acting as that user.
    """

    user: UserInfo
    required: tuple[ResourceAttributes, ...]


def parse_impersonation(headers: Headers) -> Impersonation:
    """Read the impersonation headers of a request.

    Args:
        headers: The `Impersonate-*` headers alone, at least one, in the order received.

    Raises:
        InvalidRequestError: They break a rule that the module's docstring tells, or name no user.
    """
    if len(headers) > MAXIMUM_PIECES:
        raise _invalid(f"there are more than {MAXIMUM_PIECES}")
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(_known_name(name), []).append(_text(value, "a value"))
    extra: dict[str, list[str]] = {}
    for known, texts in values.items():
        if known.startswith(_EXTRA_PREFIX):
            extra.setdefault(_extra_key(known), []).extend(texts)
    username, uid = _single(values, "impersonate-user"), _single(values, "impersonate-uid")
    if not username:
        raise _invalid("they name no user")
    groups = values.get("impersonate-group", [])
    user = UserInfo(
        username=username,
        uid=uid,
        groups=_all_groups(username, groups),
        extra=tuple(sorted((key, tuple(texts)) for key, texts in extra.items())),
    )
    return Impersonation(user=user, required=_required(user, groups))


def _required(user: UserInfo, groups: list[str]) -> tuple[ResourceAttributes, ...]:
    """List the reviews: one a value, in the hub's order."""
    required = [_user_attributes(user.username)]
    required += [_attributes("groups", group, group="", version="v1") for group in groups]
    required += [_attributes("userextras", value, subresource=key) for key, values in user.extra for value in values]
    if user.uid:
        required.append(_attributes("uids", user.uid))
    return tuple(required)


def _user_attributes(username: str) -> ResourceAttributes:
    account = parse_service_account(username)
    if account is None:
        return _attributes("users", username, group="", version="v1")
    namespace, name = account
    return _attributes("serviceaccounts", name, group="", version="v1", namespace=namespace)


def _attributes(
    resource: str,
    name: str,
    *,
    group: str = _AUTHENTICATION_GROUP,
    version: str = "v1",
    subresource: str = "",
    namespace: str = "",
) -> ResourceAttributes:
    return ResourceAttributes(
        verb="impersonate",
        group=group,
        version=version,
        resource=resource,
        subresource=subresource,
        name=name,
        namespace=namespace,
    )


def _all_groups(username: str, groups: list[str]) -> tuple[str, ...]:
    """Add the groups that follow from the name: all of them, unless the request lists groups itself."""
    found = list(groups)
    account = parse_service_account(username)
    if account is not None and not found:
        found = [SERVICE_ACCOUNTS_GROUP, f"{SERVICE_ACCOUNTS_GROUP}:{account[0]}"]
    if username == ANONYMOUS_USER:
        if UNAUTHENTICATED_GROUP not in found:
            found.append(UNAUTHENTICATED_GROUP)
    elif AUTHENTICATED_GROUP not in found and UNAUTHENTICATED_GROUP not in found:
        found.append(AUTHENTICATED_GROUP)
    return tuple(found)


def _known_name(name: bytes) -> str:
    """Return a header's name in lower case; one with "_" for "-" would be read differently by two servers."""
    lowered = name.decode("latin-1").lower()
    if lowered in _KNOWN or (lowered.startswith(_EXTRA_PREFIX) and lowered.isascii()):
        return lowered
    raise _invalid("one has a name that is not known")


def _extra_key(name: str) -> str:
    """Undo percent encoding once, or not at all where an escape is malformed, as Go's url.PathUnescape."""
    escaped = name.removeprefix(_EXTRA_PREFIX)
    key = escaped.encode("ascii") if _BAD_ESCAPE.search(escaped) else unquote_to_bytes(escaped)
    return _text(key, "the key of an extra")


def _single(values: dict[str, list[str]], name: str) -> str:
    found = values.get(name, [""])
    if len(found) > 1:
        raise _invalid("there are two where one is meant")
    return found[0]


def _text(value: bytes, what: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"{what} is not UTF-8") from error
    if not text:
        raise _invalid(f"{what} is empty")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):  # noqa: PLR2004 - ASCII's controls
        raise _invalid(f"{what} holds a control character")
    return text


def _invalid(fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"the impersonation headers are refused: {fault}")
