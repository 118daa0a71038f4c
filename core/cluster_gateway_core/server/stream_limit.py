"""How many streams one client may hold open that cost nothing to open and last for as long as the client likes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster_gateway_core.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Generator

    import grpc


class StreamLimit:
    """Counts streams by who holds them; nobody's are kept but those that are open."""

    def __init__(self, per_client: int) -> None:
        self._per_client = per_client
        self._held: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<StreamLimit: {sum(self._held.values())} streams of {len(self._held)} clients>"

    @contextmanager
    def hold(self, client: str) -> Generator[None, None, None]:
        """Count one stream for as long as the context lasts.

        Raises:
            OverloadedError: The client has as many as it may.
        """
        held = self._held.get(client, 0)
        if held >= self._per_client:
            raise OverloadedError(
                f"one client may hold {self._per_client} streams of this kind at once, and no more",
                hint="Share one, or ask again when others have ended; docs/limits.md has the bounds and their flags.",
                retry_after_seconds=1,
            )
        self._held[client] = held + 1
        try:
            yield
        finally:
            left = self._held[client] - 1
            if left:
                self._held[client] = left
            else:
                del self._held[client]


def host_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Where a client is that nobody asked who it is: its address without the port, or its unix socket."""
    peer = context.peer()
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]
