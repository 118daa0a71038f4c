"""The gRPC endpoints of a core: the private socket, mutual TLS, and TLS for clients with a bearer token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cluster_gateway_core.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_gateway_core.model.trust import TrustAnchors
    from cluster_gateway_core.settings import ServingSettings

_NEVER: Final = 2**31 - 1
"""INT_MAX, which gRPC takes for no limit."""


def server_options(settings: ServingSettings) -> list[tuple[str, int]]:
    """Options of the gRPC server; the counterpart of the client's channel options."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.maximum_streams),
        ("grpc.max_allowed_incoming_connections", settings.maximum_connections),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_seconds * 1000)),
        # With a GOAWAY that leaves open streams alone: their grace is without end.
        ("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000) or _NEVER),
        ("grpc.max_connection_age_grace_ms", _NEVER),
        # HTTP headers travel in messages. Above the first, calls fail at random; the second also bounds what a client
        # can send in CONTINUATION frames.
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        ("grpc.max_receive_message_length", 4 * 1024 * 1024),
        ("grpc.max_send_message_length", 4 * 1024 * 1024),
        # With bandwidth probing on, a stalled stream holds 4 to 6 MiB; with it off, 32 to 96 KiB.
        ("grpc.http2.bdp_probe", 0),
        # What a stream holds that nobody reads; whoever waits for a message is sent all of it.
        ("grpc.http2.lookahead_bytes", 32 * 1024),
        # Clients ping every 10 s; a frozen client is noticed as soon.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def add_endpoints(server: grpc.aio.Server, settings: ServingSettings, trust: Callable[[], TrustAnchors]) -> list[str]:
    """Bind everything that the settings ask for; returns the addresses, with the ports that were chosen.

    Raises:
        OSError: A certificate file cannot be read.
        RuntimeError: An address is in use or not this host's.
    """
    bound: list[str] = []
    if settings.unix_socket is not None:
        # The socket itself carries no credential: its directory, which only this user may enter, does.
        previous = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{settings.unix_socket}")
        finally:
            os.umask(previous)
        bound.append(f"unix:{settings.unix_socket}")
    if settings.address is not None:
        bound.append(_add_tls(server, settings, settings.address, trust))
    if settings.token_address is not None:
        bound.append(_add_tls(server, settings, settings.token_address, None))
    return bound


def serving_fault(settings: ServingSettings) -> str:
    """Say what is wrong with the files of the network endpoints, in which case older ones are in force.

    Returns:
        One line, empty when nothing is wrong or no network is served; it shows no material.
    """
    if settings.address is None and settings.token_address is None:
        return ""
    if settings.certificate_file is None or settings.private_key_file is None:
        return ""
    try:
        leaf, *_ = x509.load_pem_x509_certificates(Path(settings.certificate_file).read_bytes())
        key = load_pem_private_key(Path(settings.private_key_file).read_bytes(), password=None)
        if settings.facade_ca_file is not None:
            x509.load_pem_x509_certificates(Path(settings.facade_ca_file).read_bytes())
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"a certificate or key cannot be used: {type(error).__name__}"
    return "" if key.public_key() == leaf.public_key() else "the private key is another certificate's"


def _add_tls(
    server: grpc.aio.Server, settings: ServingSettings, address: str, trust: Callable[[], TrustAnchors] | None
) -> str:
    """Bind one TLS address; with `trust`, clients must show a certificate of the hub's or of the facades' CA."""
    certificates = _Certificates(settings, trust)
    credentials = grpc.dynamic_ssl_server_credentials(
        certificates.configuration,
        certificates.fetch,  # type: ignore[arg-type]  # None keeps the last one
        require_client_authentication=trust is not None,
    )
    port = server.add_secure_port(address, credentials)
    return f"{address.rpartition(':')[0]}:{port}"


class _Certificates:
    """What a handshake uses; gRPC asks at each, from a thread of its own."""

    def __init__(self, settings: ServingSettings, trust: Callable[[], TrustAnchors] | None) -> None:
        self._settings = settings
        self._trust = trust
        self._material = self._read()
        self.configuration = _configuration(self._material)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a new configuration when something changed, else None; broken files leave the last in force."""
        try:
            material = self._read()
        except OSError:
            return None  # `serving_fault` tells it
        if material == self._material:
            return None
        self._material = material
        return _configuration(material)

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        settings = self._settings
        if settings.certificate_file is None or settings.private_key_file is None:
            raise InternalError("a core that serves the network needs a certificate and its key")
        roots: bytes | None = None
        if self._trust is not None:
            roots = self._trust().client_ca_pem
            if settings.facade_ca_file is not None:
                roots += b"\n" + Path(settings.facade_ca_file).read_bytes()
        return Path(settings.private_key_file).read_bytes(), Path(settings.certificate_file).read_bytes(), roots


def _configuration(material: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    key, chain, roots = material
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots or None)
