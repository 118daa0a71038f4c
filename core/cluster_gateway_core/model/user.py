"""Who is asking."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

ANONYMOUS_USER: Final = "system:anonymous"
AUTHENTICATED_GROUP: Final = "system:authenticated"
UNAUTHENTICATED_GROUP: Final = "system:unauthenticated"
SERVICE_ACCOUNTS_GROUP: Final = "system:serviceaccounts"
"""Group of every service account; with ":" and a namespace, of those there."""
SUPERUSER_GROUP: Final = "system:masters"
"""Members may do everything; Kubernetes never asks an authorizer about them.

Source: kubernetes/apiserver, pkg/apis/apiserver and pkg/authorization/authorizerfactory, privileged groups.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInfo:
    """An authenticated user of the hub, hashable so that decisions can be cached by it.

    Attributes:
        username: Never empty.
        uid: Empty where the authenticator knows none.
        groups: In the authenticator's order.
        extra: Pairs of lower-case key and values, sorted by key.
    """

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def is_superuser(self) -> bool:
        """Whether no authorizer need be asked."""
        return SUPERUSER_GROUP in self.groups


_SERVICE_ACCOUNT_PREFIX: Final = "system:serviceaccount:"
_DNS_LABEL: Final = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def parse_service_account(username: str) -> tuple[str, str] | None:
    """Return namespace and name of the service account that a user name stands for; None for any other user.

    Source: kubernetes/apiserver, pkg/authentication/serviceaccount/util.go, SplitUsername.
    """
    if not username.startswith(_SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, _, name = username.removeprefix(_SERVICE_ACCOUNT_PREFIX).partition(":")
    if _DNS_LABEL.fullmatch(namespace) is None or _DNS_SUBDOMAIN.fullmatch(name) is None:
        return None
    return namespace, name
