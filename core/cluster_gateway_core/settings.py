"""What an operator may set on a core, read once at start and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """The hub's API as the core uses it."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; None uses the pod's service account."""
    authentication_kubeconfig: str | None = None
    """Path of a kubeconfig for token reviews and trust anchors; None uses `kubeconfig`."""
    authorization_kubeconfig: str | None = None
    """Path of a kubeconfig for access reviews; None uses `kubeconfig`."""
    secret_namespace: str = "vela-system"  # noqa: S105 - a namespace
    """Namespace of the Secrets that register clusters. The default is the original's."""
    user_agent: str = "cluster-gateway"
    """User-Agent of requests to the hub."""
    request_timeout_seconds: float = 10.0
    """Limit of one review or read, as kube-apiserver's delegated authorizer sets it."""
    allow_insecure_endpoints: bool = False
    """Whether a Secret without any CA key turns verification off, as the original does."""
    copy_health: bool = False
    """Feature gate HealthinessCheck: whether reported health is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSettings:
    """Caching of the hub's access and token reviews; defaults are kube-apiserver's."""

    allowed_ttl_seconds: float = 10.0
    """How long a yes is believed."""
    denied_ttl_seconds: float = 10.0
    """How long a no is believed."""
    token_ttl_seconds: float = 10.0
    """How long a token's user is believed."""
    capacity: int = 8192
    """Most decisions kept, each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Connections to clusters."""

    connect_timeout_seconds: float = 5.0
    """Limit of name resolution and TCP; below the ten seconds after which people give up."""
    tls_timeout_seconds: float = 10.0
    """Limit of the TLS handshake."""
    response_timeout_seconds: float = 65.0
    """Limit from a request to the head of its answer, long-running requests exempt: above the 60 s after which
    kube-apiserver itself answers 504, so that the cluster's own answer wins."""
    idle_seconds: float = 80.0
    """How long an unused connection is kept: below the 90 s after which Go servers close theirs."""
    idle_connections_per_cluster: int = 64
    """Most unused connections kept for one cluster."""
    buffer_bytes: int = 128 * 1024
    """Bytes of a response held for a slow reader before the cluster's socket is no longer read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """The core's own gRPC endpoints. Paths of certificates are read again when the files change."""

    unix_socket: str | None = None
    """Path of the private socket on which every client is a trusted facade; None serves none."""
    address: str | None = None
    """host:port for mutual TLS; None serves none."""
    token_address: str | None = None
    """host:port for clients with a bearer token instead of a certificate; None serves none."""
    certificate_file: str | None = None
    """Serving certificate chain, PEM."""
    private_key_file: str | None = None
    """Its key, PEM."""
    facade_ca_file: str | None = None
    """CA that signs facades' client certificates, PEM."""
    facade_names: tuple[str, ...] = ("cluster-gateway-facade",)
    """Common names of that CA's certificates that are believed to be facades."""
    grace_seconds: float = 30.0
    """How long open exchanges may last after SIGTERM."""
    maximum_streams: int = 10_000
    """Most concurrent calls on one connection; gRPC queues silently above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Everything a core is told."""

    hub: HubSettings = field(default_factory=HubSettings)
    reviews: ReviewSettings = field(default_factory=ReviewSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
