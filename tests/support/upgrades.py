"""Requests to switch protocols, and a gateway in front of a scripted cluster that answers them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.running_facade import ALICE
from tests.support.scripted_cluster import ScriptedCluster, serving_context
from tests.support.upstreams import SERVER, make_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.scripted_cluster import Step

PROTOCOLS = ("websocket", "SPDY/3.1")
EXEC = "/api/v1/namespaces/default/pods/p/exec?command=sh"


def switch(protocol: str = "SPDY/3.1", *headers: str, target: str = EXEC, method: str = "GET") -> bytes:
    """A request to switch protocols."""
    lines = "\r\n".join(("Host: gateway", *ALICE, "Connection: Upgrade", f"Upgrade: {protocol}", *headers))
    return f"{method} {GatewayPair.path(target)} HTTP/1.1\r\n{lines}\r\n\r\n".encode()


def switched(protocol: str = "SPDY/3.1", *headers: str) -> bytes:
    """A cluster's 101."""
    lines = "\r\n".join(("Connection: Upgrade", f"Upgrade: {protocol}", *headers))
    return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n\r\n".encode()


@asynccontextmanager
async def behind_gateway(
    folder: Path, *scripts: tuple[Step, ...], **settings: float
) -> AsyncIterator[tuple[GatewayPair, ScriptedCluster]]:
    """Run a gateway in front of a cluster over TLS; in the end nothing of any exchange may be left."""
    async with (
        ScriptedCluster(*scripts, tls=serving_context(SERVER)) as cluster,
        gateway_pair(folder, make_cluster(cluster.address), upstream=settings) as pair,
    ):
        yield pair, cluster
        await pair.until_idle()
