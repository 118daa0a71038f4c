"""Opening connections to clusters."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from cluster_gateway_core.errors import ClusterUnreachableError, GatewayError, TLSFailedError
from cluster_gateway_core.upstream.connection import UpstreamConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_core.settings import UpstreamSettings

_AddressInfo: TypeAlias = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]

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


async def dial(destination: Destination, settings: UpstreamSettings) -> UpstreamConnection:
    """Open a connection, within the settings' limits.

    Cancellation closes whatever was opened. The caller owns the result and closes it.

    Raises:
        ClusterUnreachableError: Name resolution or TCP failed; the message holds `dial tcp`, by which KubeVela
            recognises a cluster that cannot be reached.
        TLSFailedError: The handshake failed.
    """
    if destination.server_name is not None:
        try:
            destination.server_name.encode("idna")
        except UnicodeError as error:  # uvloop would notice within the handshake and leave the connection open
            raise _tls_failed(destination, "the server name is none") from error
    sock = await _connect(destination, settings.connect_timeout_seconds)
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(
            lambda: UpstreamConnection(destination.cluster_name, settings.buffer_bytes),
            sock=sock,
            ssl=destination.tls,
            server_hostname=destination.server_name if destination.tls else None,
            ssl_handshake_timeout=settings.tls_timeout_seconds if destination.tls else None,
            ssl_shutdown_timeout=_CLOSE_NOTIFY_SECONDS if destination.tls else None,
        )
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
    return connection


async def _connect(destination: Destination, timeout_seconds: float) -> socket.socket:
    where = _address(destination.host, destination.port)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _connect_to_any(destination)
    except TimeoutError as error:
        raise _unreachable(destination, f"dial tcp {where}: i/o timeout") from error
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError for what no name can be
        raise _unreachable(destination, f"dial tcp: lookup {destination.host}: {_reason(error)}") from error


async def _connect_to_any(destination: Destination) -> socket.socket:
    """Try each address of the host in the resolver's order, and raise the last failure."""
    loop = asyncio.get_running_loop()
    failure: GatewayError | None = None
    for family, kind, protocol, _, address in await _resolve(destination.host, destination.port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            where = _address(str(address[0]), destination.port)
            # The loop puts words of its own into the error; people know the system's.
            reason = os.strerror(error.errno).lower() if error.errno else _reason(error)
            failure = _unreachable(destination, f"dial tcp {where}: connect: {reason}")
            failure.__cause__ = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or _unreachable(destination, f"dial tcp: lookup {destination.host}: no addresses")


async def _resolve(host: str, port: int) -> Sequence[_AddressInfo]:
    """Return a host's addresses; a literal address does not queue behind slow name servers in the thread pool."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _address(host: str, port: int) -> str:
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
