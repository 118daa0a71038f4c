"""Opening connections to clusters."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster_gateway_core.errors import ClusterUnreachableError, GatewayError, TLSFailedError
from cluster_gateway_core.upstream.connection import UpstreamConnection

if TYPE_CHECKING:
    from cluster_gateway_core.settings import UpstreamSettings

_UNREACHABLE_HINT = "Check that the cluster is up, and that its endpoint can be reached from the gateway."


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
    sock = await _connect(destination, settings.connect_timeout_seconds)
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(
            lambda: UpstreamConnection(destination.cluster_name, settings.buffer_bytes),
            sock=sock,
            ssl=destination.tls,
            server_hostname=destination.server_name if destination.tls else None,
            ssl_handshake_timeout=settings.tls_timeout_seconds if destination.tls else None,
        )
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise _tls_failed(destination, f"certificate: {error.verify_message}") from error
    except (ssl.SSLError, OSError) as error:  # ConnectionAbortedError when the handshake takes too long
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
    except socket.gaierror as error:
        raise _unreachable(destination, f"dial tcp: lookup {destination.host}: {error.strerror}") from error


async def _connect_to_any(destination: Destination) -> socket.socket:
    """Try each address of the host in the resolver's order, and raise the last failure."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    failure: GatewayError | None = None
    for family, kind, protocol, _, address in infos:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            where = _address(str(address[0]), destination.port)
            failure = _unreachable(destination, f"dial tcp {where}: connect: {_reason(error)}")
            failure.__cause__ = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or _unreachable(destination, f"dial tcp: lookup {destination.host}: no addresses")


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
