"""Opening connections to clusters."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cluster_gateway_core.errors import (
    ClusterMisconfiguredError,
    ClusterUnreachableError,
    OverloadedError,
    TLSFailedError,
)
from cluster_gateway_core.upstream.connection import UpstreamConnection
from cluster_gateway_core.upstream.tcp import ConnectError, connect_to_any
from cluster_gateway_transport import TLSConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_core.settings import UpstreamSettings
    from cluster_gateway_core.upstream.address_policy import AddressPolicy
    from cluster_gateway_core.upstream.context import UpstreamContext
    from cluster_gateway_core.upstream.resolver import AddressInfo

_CLOSE_NOTIFY_SECONDS: Final = 1.0
"""How long a closed connection waits for the cluster's close_notify, where asyncio would wait half a minute."""
_UNREACHABLE_HINT: Final = "Check that the cluster is up, and that its endpoint can be reached from the gateway."


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where to connect to.

    Attributes:
        cluster_name: For error messages.
        host: Name or address.
        port: TCP port.
        tls: None for plain HTTP.
        server_name: Name that the certificate must carry; None without TLS.
    """

    cluster_name: str
    host: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str | None


def split_address(address: str) -> tuple[str, int, str]:
    """Return host, port and base path (without a trailing slash) of an endpoint's URL."""
    url = urlsplit(address)
    port = url.port or (80 if url.scheme == "http" else 443)
    return url.hostname or "", port, url.path.rstrip("/")


async def dial(destination: Destination, context: UpstreamContext) -> UpstreamConnection:
    """Open a connection, within the settings' limits.

    Cancellation closes whatever was opened. The caller owns the result and closes it.

    Raises:
        ClusterMisconfiguredError: The endpoint has no address but forbidden ones.
        OverloadedError: The gateway has no descriptor for a socket or no room for a lookup.
        ClusterUnreachableError: Name resolution or TCP failed; the message holds `dial tcp`, by which KubeVela
            recognises a cluster that cannot be reached.
        TLSFailedError: The handshake failed.
    """
    if destination.server_name is not None:
        try:
            destination.server_name.encode("idna")
        except UnicodeError as error:  # uvloop would notice within the handshake and leave the connection open
            raise _tls_failed(destination, "the server name is none") from error
    settings = context.settings
    sock = await _connect(destination, context)
    try:
        return await _open(destination, settings, sock)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise _tls_failed(destination, f"certificate: {error.verify_message}") from error
    # ConnectionAbortedError when the handshake takes too long, ValueError for a server name that OpenSSL refuses
    except (ssl.SSLError, OSError, ValueError) as error:
        sock.close()
        raise _tls_failed(destination, _reason(error)) from error
    except BaseException:
        sock.close()
        raise


async def _open(destination: Destination, settings: UpstreamSettings, sock: socket.socket) -> UpstreamConnection:
    """Make a connection of a connected socket, after the handshake where there is TLS."""
    loop = asyncio.get_running_loop()
    connection = UpstreamConnection(destination.cluster_name, settings.buffer_bytes)
    if destination.tls is None:
        await loop.create_connection(lambda: connection, sock=sock)
        return connection
    tls = TLSConnection(
        connection,
        destination.tls,
        server_side=False,
        server_hostname=destination.server_name,
        handshake_timeout_seconds=settings.tls_timeout_seconds,
        close_timeout_seconds=_CLOSE_NOTIFY_SECONDS,
    )
    try:
        await loop.create_connection(lambda: tls, sock=sock)
        await tls.shake_hands()
    except BaseException:
        tls.abort()
        raise
    return connection


async def _connect(destination: Destination, context: UpstreamContext) -> socket.socket:
    host, port = destination.host, destination.port
    where = f"dial tcp: lookup {host}"
    try:
        async with asyncio.timeout(context.settings.connect_timeout_seconds):
            found = await context.resolver.resolve(host, port)
            where = f"dial tcp {join_address(host, port)}"
            return await connect_to_any(
                _permitted(destination, found, context.policy),
                dead_peer_seconds=context.settings.dead_peer_seconds,
            )
    except TimeoutError as error:
        if context.resolver.is_waiting(host, port):  # that says nothing about the cluster
            raise OverloadedError(
                f"the gateway has no room to look up cluster {destination.cluster_name}: too many lookups are waiting",
                cluster_name=destination.cluster_name,
                hint="Look at the name servers of the gateway's hosts.",
                retry_after_seconds=1,
            ) from error
        raise _unreachable(destination, f"{where}: i/o timeout") from error
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError for what no name can be
        raise _unreachable(destination, f"dial tcp: lookup {host}: {_reason(error)}") from error
    except ConnectError as error:
        address = join_address(str(error.address[4][0]), port)
        raise _unreachable(destination, f"dial tcp {address}: connect: {error.cause}") from error


def _permitted(destination: Destination, found: Sequence[AddressInfo], policy: AddressPolicy) -> Sequence[AddressInfo]:
    """Leave out the addresses that are forbidden.

    Raises:
        ClusterMisconfiguredError: None is left; the message names the rule, and nothing that was looked up.
    """
    rules = {policy.rule_against(str(info[4][0])) for info in found}
    if rules == {""}:
        return found
    permitted = [info for info in found if not policy.rule_against(str(info[4][0]))]
    if permitted:
        return permitted
    raise ClusterMisconfiguredError(
        f"the endpoint of cluster {destination.cluster_name} is forbidden by {', '.join(sorted(rules))} "
        "of --denied-endpoint-cidrs",
        cluster_name=destination.cluster_name,
        hint="Correct the endpoint in the cluster's Secret, or the gateway's flag.",
    )


def join_address(host: str, port: int) -> str:
    """Write an address for people, an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _unreachable(destination: Destination, cause: str) -> ClusterUnreachableError:
    return ClusterUnreachableError(
        f"cluster {destination.cluster_name} cannot be reached: {cause}",
        cluster_name=destination.cluster_name,
        hint=_UNREACHABLE_HINT,
        retry_after_seconds=5,
    )


def _tls_failed(destination: Destination, cause: str) -> TLSFailedError:
    return TLSFailedError(
        f"the TLS handshake with cluster {destination.cluster_name} failed: {cause}",
        cluster_name=destination.cluster_name,
        hint="Check ca.crt and the endpoint's host name in the cluster's Secret.",
    )
