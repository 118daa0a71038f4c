"""As whom a cluster sees a caller: which rule applies, what may be passed on, and how it is written.

By default a cluster sees the caller's own name, uid, groups and extra, save what would mean something else there: hub
and cluster are two domains of trust. Kubernetes reserves names with `system:` for itself, so a group such as
system:masters of the hub is not passed, and a user such as system:kube-scheduler is refused, unless a rule says whom
the cluster is to see (kcp GHSA-c7xh-gjv4-4jgv).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import AccessDeniedError, Hop, InternalError
from cluster_gateway_core.model.identity import External, PassThrough, Privileged, StaticMapping
from cluster_gateway_core.model.user import (
    ANONYMOUS_USER,
    AUTHENTICATED_GROUP,
    UserInfo,
    parse_service_account,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_gateway_core.model.http import Headers
    from cluster_gateway_core.model.identity import IdentityRule, IdentitySource

_RESERVED_PREFIX: Final = "system:"
_KUBEADM_ADMINS: Final = "kubeadm:cluster-admins"
"""What kubeadm binds to cluster-admin on every cluster that it makes, as it once did with system:masters."""
_CREDENTIAL_EXTRAS: Final = "authentication.kubernetes.io/"
"""Attributes of the credential that was shown to the hub, such as its id and the node of its pod. A cluster would take
them for its own.

Source: kubernetes/apiserver, pkg/authentication/serviceaccount/util.go and pkg/authentication/user/user.go.
"""
_RESERVED_EXTRA: Final = re.compile(r"(?:[^/]*\.)?(?:kubernetes|k8s)\.io/.*", re.DOTALL)
_UNTELLABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^[ ]|[ ]$")
"""What a header's value cannot hold, or loses on the way: RFC 9110 section 5.5."""
_ESCAPED_IN_NAMES: Final = re.compile(rb"[^!#$&'*+\-.^_`|~0-9A-Za-z]")
_ASKS: Final = re.compile(rb"(?:^|&)impersonate=([^&]*)")


def asks_impersonation(target: bytes) -> bool:
    """Whether a request asks that its caller's identity be passed on: the first `impersonate` is `true`.

    Source: oam-dev/cluster-gateway, pkg/apis/cluster/v1alpha1/clustergateway_proxy.go.
    """
    _, _, query = target.partition(b"?")
    found = _ASKS.search(query)
    return found is not None and found[1] == b"true"


def find_rule(user: UserInfo, cluster_name: str, *lists: Iterable[IdentityRule]) -> IdentityRule | None:
    """Return the first rule that applies, list by list; None when the default does."""
    return next((rule for rules in lists for rule in rules if _applies(rule.source, user, cluster_name)), None)


def _applies(source: IdentitySource, user: UserInfo, cluster_name: str) -> bool:
    return (
        source.user in (None, user.username)
        and (source.group is None or source.group in user.groups)
        and source.uid in (None, user.uid)
        and source.cluster in (None, cluster_name)
        and (source.user_pattern is None or source.user_pattern.matches(user.username))
        and (source.group_pattern is None or any(map(source.group_pattern.matches, user.groups)))
        and (source.cluster_pattern is None or source.cluster_pattern.matches(cluster_name))
    )


def exchange_identity(user: UserInfo, rule: IdentityRule | None) -> UserInfo | Privileged | External:
    """Say whom the cluster sees.

    Args:
        user: The caller, authorized on the hub.
        rule: The rule that applies; None for the default.

    Returns:
        A user to impersonate, the gateway's own credential, or whom to ask.

    Raises:
        AccessDeniedError: The caller's identity must not, or cannot wholly, be told to a cluster.
    """
    exchange = rule.exchange if rule is not None else PassThrough()
    match exchange:
        case StaticMapping():
            return UserInfo(username=exchange.user, groups=exchange.groups, uid=exchange.uid)
        case PassThrough():
            return _own_identity(user, exchange, by_rule=rule is not None)
        case _:
            return exchange


def _own_identity(user: UserInfo, exchange: PassThrough, *, by_rule: bool) -> UserInfo:
    account = parse_service_account(user.username)
    reserved = user.username.startswith(_RESERVED_PREFIX) and user.username != ANONYMOUS_USER
    if reserved and account is None and not by_rule:
        raise _refused(f'user "{user.username}" has a name that Kubernetes reserves')
    groups = tuple(group for group in user.groups if group in exchange.privileged_groups or not _is_privileged(group))
    if account is not None and not groups:
        # Without any group the cluster adds system:serviceaccounts itself (impersonation.go), with one it does not.
        groups = (AUTHENTICATED_GROUP,)
    extra = tuple((key, values) for key, values in user.extra if not key.startswith(_CREDENTIAL_EXTRAS))
    for key, _ in extra:
        if _RESERVED_EXTRA.fullmatch(key):
            raise _refused(f'the extra "{key}" has a key that Kubernetes reserves')
    return UserInfo(username=user.username, uid=user.uid, groups=groups, extra=extra)


def _is_privileged(group: str) -> bool:
    """Whether a group is not passed: those that Kubernetes reserves, and those that a cluster adds itself."""
    return group.startswith(_RESERVED_PREFIX) or group == _KUBEADM_ADMINS


def render_impersonation(identity: UserInfo) -> bytes:
    """Write the headers by which a cluster is told whom to see, each line with its end.

    Extra keys are escaped as client-go does it, so that kube-apiserver reads back what is meant.

    Source: kubernetes/client-go, transport/round_trippers.go, impersonatingRoundTripper and headerKeyEscape.

    Raises:
        AccessDeniedError: Something of it would arrive as something else.
        InternalError: It names no user, which would be the gateway's own credential.
    """
    if not identity.username:
        raise InternalError("an identity without a user name is never sent")
    lines = [_line(b"Impersonate-User", identity.username, "the user name")]
    if identity.uid:
        lines.append(_line(b"Impersonate-Uid", identity.uid, "the uid"))
    for group in identity.groups:
        if not group:
            raise _refused("a group has no name")
        lines.append(_line(b"Impersonate-Group", group, "a group"))
    for key, values in identity.extra:
        if not key or _UNTELLABLE.search(key) or key != _lower(key):
            raise _refused("the key of an extra is empty, or holds a capital letter or a control character")
        name = b"Impersonate-Extra-" + escape_extra_key(key)
        lines += [_line(name, value, "a value of an extra") for value in values]
    return b"".join(lines)


def escape_extra_key(key: str) -> bytes:
    """Write a key so that it can be part of a header's name."""
    return _ESCAPED_IN_NAMES.sub(lambda found: b"%%%02X" % found[0][0], key.encode())


def check_nothing_left(headers: Headers) -> None:
    """Make sure, before an identity is told, that the caller tells none beside it.

    Raises:
        InternalError: A header of the caller's would speak of an identity: removing them has failed.
    """
    for name, _ in headers:
        key = name.lower().replace(b"_", b"-")
        if key.startswith(b"impersonate") or key == b"authorization":
            raise InternalError("a header of the caller's that speaks of an identity was not removed")


def _line(name: bytes, value: str, what: str) -> bytes:
    if _UNTELLABLE.search(value):
        raise _refused(f"{what} holds a control character, or begins or ends with a blank")
    return b"%b: %b\r\n" % (name, value.encode())


def _lower(key: str) -> str:
    """Lower the letters that kube-apiserver lowers in a header's name; others are escaped and arrive as they are."""
    return "".join(character.lower() if character.isascii() else character for character in key)


def _refused(fault: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"the caller's identity is not passed to clusters: {fault}",
        hop=Hop.CORE,
        hint="An identity rule can say whom the cluster is to see instead.",
    )
