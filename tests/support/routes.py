"""The two ways to a scripted cluster behind a real gateway: straight at its facade, and through the hub."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.gateway import proxy_path
from tests.support.raw_client import LIMIT_SECONDS, RawClient, raw_client
from tests.support.scripted_cluster import ScriptedCluster, serving_context
from tests.support.upstreams import AUTHORITY, SERVER

from cluster_gateway.control_planes import KeyPair

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from tests.support.gateway import Gateway, Stage
    from tests.support.raw_client import RawResponse
    from tests.support.received_request import ReceivedRequest

CLUSTER_TOKEN: Final = b"scripted-cluster-token"
"""The credential that the gateway presents to scripted clusters."""

ADMINISTRATOR: Final = ("X-Remote-User: kubernetes-admin", "X-Remote-Group: system:masters")
"""How the front proxy names an administrator of the hub."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way from a client that writes bytes to a cluster that keeps them.

    Attributes:
        name: "facade", where the client stands for the hub's front proxy, or "hub", where it is a user of the hub.
        cluster: The cluster.
        cluster_name: The name under which it is registered.
        port: Where the client connects to.
        tls: How.
        identity: Header lines with which the client says who asks.
    """

    name: str
    cluster: ScriptedCluster
    cluster_name: str
    port: int
    tls: ssl.SSLContext
    identity: tuple[str, ...]

    @property
    def is_raw(self) -> bool:
        """Whether the client's bytes reach the gateway as they are; the hub reads and writes them anew (AG-10)."""
        return self.name == "facade"

    def connect(self) -> AbstractAsyncContextManager[RawClient]:
        """Open a connection."""
        return raw_client(self.port, self.tls)

    def head(self, method: str, target: str, *headers: str) -> bytes:
        """A request's head; `target` is the cluster's own."""
        lines = (
            f"{method} {proxy_path(self.cluster_name, target)} HTTP/1.1",
            "Host: gateway",
            *self.identity,
            *headers,
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")

    async def ask(self, method: str, target: str, *headers: str, body: bytes = b"") -> RawResponse:
        """Send one request on a connection of its own and read the response; a body gets a Content-Length."""
        if body:
            headers = (*headers, f"Content-Length: {len(body)}")
        async with self.connect() as client:
            await client.send(self.head(method, target, *headers) + body)
            return await client.response(bodiless=method == "HEAD")

    async def received(self, index: int = 0) -> ReceivedRequest:
        """Wait for a request at the cluster, by its place in the order of arrival."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.cluster.requests) <= index:
                await self.cluster.changed()
        return self.cluster.requests[index]


@contextlib.asynccontextmanager
async def scripted_route(stage: Stage, gateway: Gateway, name: str, *, base_path: str = "") -> AsyncIterator[Route]:
    """Register a new scripted cluster, reached by the route of that name.

    Args:
        stage: Where it is registered.
        gateway: The gateway that reaches it.
        name: "facade" or "hub".
        base_path: Path of its endpoint's URL.
    """
    cluster_name = f"scripted{next(_numbers)}"
    async with ScriptedCluster(tls=serving_context(SERVER)) as cluster:
        data = {
            "endpoint": f"{cluster.address}{base_path}".encode(),
            "ca.crt": AUTHORITY.certificate_pem,
            "token": CLUSTER_TOKEN,
        }
        await stage.register(cluster_name, data, credential="ServiceAccountToken")
        try:
            await stage.wait_known(cluster_name)
            port, tls, identity = way_in(stage, gateway, name)
            yield Route(name=name, cluster=cluster, cluster_name=cluster_name, port=port, tls=tls, identity=identity)
        finally:
            await stage.unregister(cluster_name)


def way_in(stage: Stage, gateway: Gateway, name: str) -> tuple[int, ssl.SSLContext, tuple[str, ...]]:
    """Port, TLS and identity of a client that takes the route of that name as an administrator."""
    if name == "hub":
        return stage.hub.port, stage.hub.ssl_context(), ()
    pair = KeyPair(
        certificate=stage.hub.front_proxy_client_certificate.read_bytes(),
        key=stage.hub.front_proxy_client_key.read_bytes(),
    )
    return gateway.port, stage.ssl_context(gateway.ca_path, pair), ADMINISTRATOR
