"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
