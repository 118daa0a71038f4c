"""What the facade knows of its own readiness and of the cores'."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc

from clustergateway.access.v1.access_service_pb2 import GetReadinessRequest

if TYPE_CHECKING:
    from cluster_gateway_client.client import CoreClient
    from clustergateway.access.v1.access_service_pb2 import Condition

_INTERVAL_SECONDS: Final = 1.0
_DEADLINE_SECONDS: Final = 5.0


class CoreReadiness:
    """Asks a core for its conditions every second, so that a probe asks nobody."""

    def __init__(self, core: CoreClient) -> None:
        self._core = core
        self._conditions: dict[str, Condition] = {}
        self._fault = "no routing core has answered yet"

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._ask()
            await asyncio.sleep(_INTERVAL_SECONDS)

    def reachable(self) -> str | None:
        """Say why no core answers; None when one does."""
        return self._fault or None

    def condition(self, name: str) -> str | None:
        """Say what is wrong with one of the core's conditions; None when nothing is, or nothing is known."""
        condition = self._conditions.get(name)
        if condition is None or condition.ready:
            return None
        return condition.detail or "not ready yet"

    def note(self, name: str) -> str:
        """Say what is degraded though ready; empty when nothing is."""
        condition = self._conditions.get(name)
        return condition.detail if condition is not None else ""

    async def _ask(self) -> None:
        try:
            answer = await self._core.access.GetReadiness(GetReadinessRequest(), timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._fault = f"no routing core answers: {error.code().name}: {error.details()}"
        else:
            self._fault = ""
            self._conditions = {condition.name: condition for condition in answer.conditions}
