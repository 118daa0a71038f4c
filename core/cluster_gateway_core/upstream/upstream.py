"""The way to one cluster: its address, credential and connections, for as long as its registration is unchanged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import ClusterMisconfiguredError, ClusterUnreachableError, TLSFailedError
from cluster_gateway_core.model.cluster import EndpointType
from cluster_gateway_core.upstream.breaker import Breaker
from cluster_gateway_core.upstream.dial import Destination, dial, join_address, split_address
from cluster_gateway_core.upstream.pool import ConnectionPool
from cluster_gateway_core.upstream.tls import make_client_context

if TYPE_CHECKING:
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.settings import UpstreamSettings
    from cluster_gateway_core.upstream.connection import UpstreamConnection
    from cluster_gateway_core.upstream.context import UpstreamContext
    from cluster_gateway_core.upstream.deadline import Deadlines

_REFUSAL_SECONDS: Final = 0.01
"""Time between two refusals of requests that have waited for their turn to connect: twenty times what one costs."""


class Upstream:
    """One cluster with one credential; a changed registration gets a new one.

    Raises:
        ClusterMisconfiguredError: The registration has a fault, or its TLS material cannot be used.
    """

    def __init__(self, cluster: Cluster, context: UpstreamContext) -> None:
        if cluster.fault or cluster.endpoint is None or cluster.endpoint.type is not EndpointType.CONST:
            fault = cluster.fault or "its endpoint type is not supported by this gateway"
            raise ClusterMisconfiguredError(
                f"the registration of cluster {cluster.name} cannot be used: {fault}",
                cluster_name=cluster.name,
                hint="Correct the cluster's Secret on the hub.",
            )
        secure = cluster.endpoint.address.startswith("https:")
        try:
            host, port, base_path = split_address(cluster.endpoint.address)
            self.base_path = base_path.encode("ascii")
            self.own_headers = _own_headers(cluster, host, port, secure=secure)
        except ValueError:
            raise ClusterMisconfiguredError(
                f"the registration of cluster {cluster.name} cannot be used: its endpoint or token is malformed",
                cluster_name=cluster.name,
                hint="Correct the cluster's Secret on the hub.",
            ) from None  # the cause would hold the token
        self.cluster = cluster
        settings = context.settings
        self._context = context
        self._destination = Destination(
            cluster_name=cluster.name,
            host=host,
            port=port,
            tls=make_client_context(cluster.name, cluster.endpoint, cluster.credential) if secure else None,
            server_name=cluster.endpoint.tls_server_name or host,
        )
        self._pool: ConnectionPool[UpstreamConnection] = ConnectionPool(
            capacity=settings.idle_connections_per_cluster,
            idle_seconds=settings.idle_seconds,
            budget=context.idle_budget,
        )
        self._busy: set[UpstreamConnection] = set()
        self._dials = asyncio.Semaphore(settings.dials_per_cluster)
        self._refusals = asyncio.Lock()
        self._breaker = Breaker(
            cluster.name,
            join_address(host, port),
            failures=settings.breaker_failures,
            delay_seconds=settings.breaker_seconds,
        )
        self._cut = False

    def __repr__(self) -> str:
        return f"<Upstream {self.cluster.name}: {len(self._busy)} busy, {self._pool!r}>"

    @property
    def settings(self) -> UpstreamSettings:
        """Limits."""
        return self._context.settings

    @property
    def deadlines(self) -> Deadlines:
        """Where an exchange notes down its waits."""
        return self._context.deadlines

    def take_idle(self) -> UpstreamConnection | None:
        """Return a connection that has served before, or None; the caller releases it."""
        self.expire()
        connection = self._pool.take()
        if connection is not None:
            self._busy.add(connection)
        return connection

    async def open(self) -> UpstreamConnection:
        """Open a new connection; the caller releases it. Waits while too many are being opened.

        Raises:
            ClusterUnreachableError: As `dial`, or the last attempts failed and it is too soon for another, or the
                cluster was removed in the meantime.
            GatewayError: As `dial`.
        """
        loop = asyncio.get_running_loop()
        self._breaker.check(loop.time())  # who would be refused need not wait for it
        async with self._dials:
            connection = await self._attempt(loop)
        if connection is None:
            # It waited among a crowd. Refused all at once, they would keep the callers of other clusters waiting.
            async with self._refusals:
                await asyncio.sleep(_REFUSAL_SECONDS)
            raise self._breaker.refusal(loop.time())
        if self._cut:
            connection.abort()
            raise ClusterUnreachableError(
                f"cluster {self.cluster.name} was removed while it was being connected to",
                cluster_name=self.cluster.name,
                retry_after_seconds=1,
            )
        self._busy.add(connection)
        return connection

    async def _attempt(self, loop: asyncio.AbstractEventLoop) -> UpstreamConnection | None:
        """Connect, or return None when nothing is to be tried any more."""
        try:
            probe = self._breaker.enter(loop.time())
        except ClusterUnreachableError:
            return None
        try:
            connection = await dial(self._destination, self._context)
        except (ClusterUnreachableError, TLSFailedError) as error:
            self._breaker.fail(error, loop.time(), probe=probe)
            raise
        except BaseException:  # nothing is known of the cluster then
            self._breaker.abandon(probe=probe)
            raise
        self._breaker.succeed()
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection: one whose exchange is whole is kept, any other is cut."""
        connection.end_exchange()
        self._busy.discard(connection)
        for surplus in self._pool.give(connection, asyncio.get_running_loop().time()):
            surplus.abort()

    def expire(self) -> None:
        """Close the connections that have been unused too long."""
        for connection in self._pool.expire(asyncio.get_running_loop().time()):
            connection.close()

    def retire(self, *, cut: bool) -> None:
        """Keep no connection from now on; `cut` ends the running exchanges too."""
        for connection in self._pool.retire():
            connection.close()
        if cut:
            self._cut = True
            for connection in tuple(self._busy):
                connection.abort()


def _own_headers(cluster: Cluster, host: str, port: int, *, secure: bool) -> bytes:
    """Host and credential lines.

    RFC 9112 section 3.2: Host is the authority of the target, without the scheme's default port.
    """
    name = f"[{host}]" if ":" in host else host
    authority = name if port == (443 if secure else 80) else f"{name}:{port}"
    lines = f"Host: {authority}\r\n"
    if cluster.credential is not None and cluster.credential.token:
        if not cluster.credential.token.isprintable():
            raise ValueError("a token with a control character would add header lines")
        lines += f"Authorization: Bearer {cluster.credential.token}\r\n"
    return lines.encode("ascii")
