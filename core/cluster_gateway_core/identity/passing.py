"""Telling a cluster who is asking: from rules and a caller to the headers of one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster_gateway_core.model.identity import External, Privileged
from cluster_gateway_core.routing.identity_exchange import (
    asks_impersonation,
    check_nothing_left,
    exchange_identity,
    find_rule,
    render_impersonation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.model.http import Headers
    from cluster_gateway_core.model.identity import IdentityRule
    from cluster_gateway_core.model.user import UserInfo


class Rules(Protocol):
    """The rules of all clusters; `identity.rules_file.IdentityRulesFile` has them."""

    @property
    def rules(self) -> Sequence[IdentityRule]:
        """Those in force."""
        ...


class Exchanger(Protocol):
    """Services that name identities; `identity.external.ExternalExchanger` asks them."""

    async def exchange(self, url: str, user: UserInfo, *, rule_name: str, cluster_name: str) -> UserInfo:
        """Return whom the cluster is to see, or raise AccessDeniedError or IdentityExchangeFailedError."""
        ...


class IdentityPassing:
    """Decides for each request as whom its cluster sees it."""

    def __init__(self, *, always: bool, rules: Rules, exchanger: Exchanger) -> None:
        """Take the parts.

        Args:
            always: Whether identities are passed with every request (feature gate ClientIdentityPenetration); else
                only with those that ask for it.
            rules: The rules of all clusters, looked at behind a cluster's own.
            exchanger: Asks services.
        """
        self._always = always
        self._rules = rules
        self._exchanger = exchanger

    def is_wanted(self, target: bytes) -> bool:
        """Whether the caller's identity is passed with a request. Without the gate a request can only ask for less."""
        return self._always or (b"impersonate=" in target and asks_impersonation(target))

    async def headers_for(self, user: UserInfo, cluster: Cluster, headers: Headers) -> bytes:
        """Return the header lines that tell a cluster who is asking; empty for the gateway's own credential.

        Args:
            user: The caller, authorized on the hub.
            cluster: Where the request goes; its own rules come first.
            headers: The caller's headers that travel with these.

        Raises:
            AccessDeniedError: The caller's identity must not, or cannot wholly, be told.
            IdentityExchangeFailedError: A service did not say whom the cluster is to see.
            InternalError: Something of the caller's would travel beside it.
        """
        check_nothing_left(headers)
        rule = find_rule(user, cluster.name, cluster.identity_rules, self._rules.rules)
        identity = exchange_identity(user, rule)
        if isinstance(identity, Privileged):
            return b""
        if isinstance(identity, External):
            name = rule.name if rule is not None else ""
            identity = await self._exchanger.exchange(identity.url, user, rule_name=name, cluster_name=cluster.name)
        return render_impersonation(identity)
