"""What the ways to all clusters share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_gateway_core.upstream.address_policy import AddressPolicy
from cluster_gateway_core.upstream.deadline import Deadlines
from cluster_gateway_core.upstream.pool import IdleBudget
from cluster_gateway_core.upstream.resolver import Resolver

if TYPE_CHECKING:
    from cluster_gateway_core.settings import UpstreamSettings


class UpstreamContext:
    """Shared parts, of one event loop.

    Attributes:
        settings: Limits.
        resolver: Looks names up.
        policy: Which addresses are forbidden.
        deadlines: The waits that may not last for ever.
        idle_budget: How many unused connections may be kept.
    """

    __slots__ = ("deadlines", "idle_budget", "policy", "resolver", "settings")

    def __init__(self, settings: UpstreamSettings) -> None:
        self.settings = settings
        self.resolver = Resolver(capacity=settings.lookups)
        self.policy = AddressPolicy(settings.denied_endpoint_cidrs)
        self.idle_budget = IdleBudget(settings.idle_connections)
        self.deadlines = Deadlines(
            shortest_seconds=min(
                settings.response_timeout_seconds,
                settings.request_idle_seconds,
                settings.response_idle_seconds,
                settings.reader_idle_seconds,
            )
        )
