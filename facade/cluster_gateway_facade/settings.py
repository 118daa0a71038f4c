"""What an operator may set on a facade, read once at start and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """The HTTPS endpoint."""

    bind_address: str = "0.0.0.0"
    """Address to listen on."""
    port: int = 443
    """Port to listen on; 0 chooses a free one."""
    certificate_file: str = ""
    """Serving certificate chain, PEM; read again when it changes."""
    private_key_file: str = ""
    """Its key, PEM."""
    header_timeout_seconds: float = 20.0
    """Limit from the first byte of a request to the end of its head; kube-apiserver allows 32 s."""
    tls_handshake_seconds: float = 10.0
    """Limit of the TLS handshake; Go's transports, the hub's among them, give up after as long."""
    maximum_connections: int = 10_000
    """Most connections: some 60 KB each. Lowered at start to what the limit of open files allows."""
    maximum_unauthenticated_connections: int = 1000
    """Most connections without a verified client certificate, those within the handshake included; the oldest idle
    one makes room for a new one."""
    maximum_unauthenticated_connections_per_address: int = 200
    """Most of them from one address: clients with tokens behind one NAT gateway, and five such addresses."""
    request_idle_seconds: float = 60.0
    """How long a client may send nothing of a body it has begun; kube-apiserver gives a short request as long in
    all."""
    reader_idle_seconds: float = 60.0
    """How long a client may read nothing of an answer to a short request that waits for it."""
    long_running_reader_idle_seconds: float = 4 * 3600.0
    """The same for watches, logs and tunnels, as a stopped terminal needs it; 0 for as long as they like."""
    client_dead_peer_seconds: float = 60.0
    """After how much silence, in spite of TCP's probes, a client's host is given up."""
    keepalive_seconds: float = 120.0
    """How long an idle connection is kept: above the 90 s after which Go clients close theirs."""
    maximum_header_count: int = 4096
    """A user in many groups arrives with a header a group."""
    maximum_header_bytes: int = 256 * 1024
    """Longest header line and request line."""
    grace_seconds: float = 30.0
    """How long open requests may last after SIGTERM."""
    shutdown_delay_seconds: float = 0.0
    """How long to keep serving after readiness turned red."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """The way to the cores."""

    target: str = ""
    """gRPC target, for example "unix:/run/gateway/core.sock" or "dns:///cores.ns.svc:9444"."""
    ca_file: str | None = None
    """CA that signs the cores' serving certificates, PEM; None only with a unix socket."""
    certificate_file: str | None = None
    """The facade's client certificate, PEM."""
    private_key_file: str | None = None
    """Its key, PEM."""
    server_name: str | None = None
    """Name that the cores' certificates must carry; None means the target's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationSettings:
    """Which paths need no authorization."""

    always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")
    """Exact paths, or prefixes that end in "*"; defaults are kube-apiserver's delegated ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FacadeSettings:
    """Everything a facade is told."""

    serving: ServingSettings = field(default_factory=ServingSettings)
    core: CoreSettings = field(default_factory=CoreSettings)
    authorization: AuthorizationSettings = field(default_factory=AuthorizationSettings)
