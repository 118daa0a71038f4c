"""gRPC channels to cores: addressing, balancing, health checking and credentials."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_SERVICE_CONFIG: Final[dict[str, object]] = {
    # Every core serves every cluster. A core that drains says so by its health and gets nothing new.
    # No retryPolicy: a request that may have reached a cluster must not be sent twice.
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "clustergateway.routing.v1.RoutingService"},
}

CHANNEL_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    # With bandwidth probing on, a stalled stream holds 4 to 6 MiB; with it off, 32 to 96 KiB.
    ("grpc.http2.bdp_probe", 0),
    # What a stream holds that nobody reads; whoever waits for a message is sent all of it.
    ("grpc.http2.lookahead_bytes", 32 * 1024),
    # A frozen peer is noticed within 20 s; the server allows pings this often. keepalive_timeout alone does not do it.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreEndpoint:
    """Where the cores are and how to be known to them.

    Attributes:
        target: gRPC target: "dns:///host:port" for a pool behind a headless Service, or "unix:/path".
        ca_file: CA that signs the cores' serving certificates, PEM; not needed for a unix socket. Read again when it
            changes, like the next two.
        certificate_file: Client certificate chain, PEM: who the client is.
        private_key_file: Its key, PEM.
        token_file: Bearer token of the hub, instead of a certificate; read for every call, so it may rotate.
        server_name: Name that the cores' certificates must carry; None means the target's host.
    """

    target: str
    ca_file: str | None = None
    certificate_file: str | None = None
    private_key_file: str | None = None
    token_file: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSMaterial:
    """What the files of an endpoint hold, as PEM; never shown by `repr`.

    Attributes:
        ca_pem: Verifies cores.
        chain_pem: The client's certificate chain; None for none.
        key_pem: Its key; None for none.
    """

    ca_pem: bytes = field(repr=False)
    chain_pem: bytes | None = field(repr=False)
    key_pem: bytes | None = field(repr=False)


def read_material(endpoint: CoreEndpoint) -> TLSMaterial | None:
    """Read an endpoint's files; None for a unix socket, which needs none.

    Raises:
        OSError: A file cannot be read.
        ValueError: The endpoint is neither a unix socket nor has a CA.
    """
    if endpoint.target.startswith("unix:"):
        return None
    if endpoint.ca_file is None:
        raise ValueError("a core over the network is reached by TLS only: ca_file is needed")
    return TLSMaterial(
        ca_pem=Path(endpoint.ca_file).read_bytes(),
        chain_pem=_content(endpoint.certificate_file),
        key_pem=_content(endpoint.private_key_file),
    )


def check_material(material: TLSMaterial) -> None:
    """See that files fit together before a channel is opened with them: gRPC notices at the handshake only.

    Raises:
        ValueError: The CA or the chain is no PEM, or the key is another certificate's; the text shows no material.
    """
    x509.load_pem_x509_certificates(material.ca_pem)
    if material.chain_pem is None or material.key_pem is None:
        return
    leaf, *_ = x509.load_pem_x509_certificates(material.chain_pem)
    try:
        key = load_pem_private_key(material.key_pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the private key is encrypted or of an unknown kind") from error
    if key.public_key() != leaf.public_key():
        raise ValueError("the private key is another certificate's")


def open_channel(endpoint: CoreEndpoint, material: TLSMaterial | None = None) -> grpc.aio.Channel:
    """Open a channel, which connects when first used; the caller closes it.

    Args:
        endpoint: Where the cores are.
        material: What `read_material` returned for it; read now if not given.

    Raises:
        OSError: A certificate file cannot be read.
        ValueError: The endpoint is neither a unix socket nor has a CA.
    """
    options: list[tuple[str, int | str]] = list(CHANNEL_OPTIONS)
    material = material or read_material(endpoint)
    if material is None:
        return grpc.aio.insecure_channel(endpoint.target, options=options)
    if endpoint.server_name:
        options.append(("grpc.ssl_target_name_override", endpoint.server_name))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=material.ca_pem,
        private_key=material.key_pem,
        certificate_chain=material.chain_pem,
    )
    if endpoint.token_file is not None:
        token = grpc.metadata_call_credentials(_TokenFile(Path(endpoint.token_file)), name="token file")
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.aio.secure_channel(endpoint.target, credentials, options=options)


def _content(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


class _TokenFile(grpc.AuthMetadataPlugin):
    """Adds the token of a file to each call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        del context
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except OSError as error:
            callback((), error)
        else:
            callback((("authorization", f"Bearer {token}"),), None)
