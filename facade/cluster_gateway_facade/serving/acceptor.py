"""Taking connections: counted from the first moment on, before anything is spent on a handshake."""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING, Final, cast

from cluster_gateway_facade.serving.admission import Admission
from cluster_gateway_facade.serving.response import reset
from cluster_gateway_transport import TLSConnection
from cluster_gateway_transport.peers import notice_dead_peer

if TYPE_CHECKING:
    import asyncio
    import ssl

    from cluster_gateway_facade.serving.connection import Connection
    from cluster_gateway_facade.serving.server import FacadeServer
    from cluster_gateway_facade.settings import ServingSettings

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_CLOSE_SECONDS: Final = 5.0
"""How long a client may take to answer the end of TLS, from the last byte that it took."""
_OWN_DESCRIPTORS: Final = 64
"""What the process needs besides clients: the cores, listeners, event loops, files that are read again."""


class ClientConnection(TLSConnection):
    """A client's connection, TLS and the count of it."""

    __slots__ = ("_admission", "_connection")

    def __init__(
        self, connection: Connection, context: ssl.SSLContext, settings: ServingSettings, admission: Admission
    ) -> None:
        super().__init__(
            connection,
            context,
            server_side=True,
            handshake_timeout_seconds=settings.tls_handshake_seconds,
            close_timeout_seconds=_CLOSE_SECONDS,
        )
        self._connection = connection
        self._admission = admission

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count, and begin the handshake; asyncio.BaseProtocol."""
        peer = transport.get_extra_info("peername")
        if peer is None or not self._admission.admit(self, peer[0]):
            # It is gone already, or every connection belongs to somebody known.
            cast("asyncio.Transport", transport).abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no longer; asyncio.BaseProtocol."""
        self._admission.release(self)
        super().connection_lost(exc)

    def recognise(self) -> None:
        """Take note that the client has shown a certificate."""
        self._admission.recognise(self)

    @property
    def busy(self) -> bool:
        """Whether a request is in progress."""
        return self._connection.busy

    def evict(self) -> None:
        """Reset the connection; serving.admission.Guest."""
        reset(self)


async def listen(
    loop: asyncio.AbstractEventLoop, server: FacadeServer, context: ssl.SSLContext, settings: ServingSettings
) -> asyncio.Server:
    """Take connections from now on. Raises OSError when the address cannot be bound."""
    admission = Admission(
        total=affordable_connections(settings.maximum_connections),
        strangers=settings.maximum_unauthenticated_connections,
        strangers_per_address=settings.maximum_unauthenticated_connections_per_address,
    )
    listener = await loop.create_server(
        lambda: ClientConnection(server(), context, settings, admission),
        settings.bind_address,
        settings.port,
        backlog=_BACKLOG,
    )
    for sock in listener.sockets:
        notice_dead_peer(sock, settings.client_dead_peer_seconds)
    return listener


def affordable_connections(wanted: int) -> int:
    """Return how many connections the limit of open files allows, after raising it as far as the system lets us.

    Without descriptors left nothing could be accepted, and no certificate be read again.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OWN_DESCRIPTORS
    if soft not in (resource.RLIM_INFINITY, hard) and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    affordable = max(1, soft - _OWN_DESCRIPTORS)
    _log.warning("the limit of %d open files allows %d connections, not the %d set", soft, affordable, wanted)
    return affordable
