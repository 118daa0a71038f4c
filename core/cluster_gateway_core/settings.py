"""What an operator may set on a core, read once at start and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


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
    read_identity_rules: bool = False
    """Feature gate ClientIdentityPenetration: whether the annotation with a cluster's identity rules is read."""


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
    reauthorization_seconds: float = 300.0
    """How often it is asked whether a watch, shell or other long-running exchange is still allowed; 0 asks never. Equal
    ones are one question, so that five thousand watches of one controller cost what one does."""
    reauthorization_patience_seconds: float = 1800.0
    """How long such an exchange goes on while the hub cannot be asked: an outage must not end every shell at once."""
    pending: int = 1000
    """Most different questions that wait for the hub, each kind: whoever shows made-up tokens asks one with each."""


DENIED_ENDPOINT_CIDRS: Final = (
    *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
    *("::/128", "fe80::/10", "ff00::/8"),
    *("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd20:ce::254/128"),
)
"""Unspecified, link-local, multicast and broadcast addresses, and the metadata services of clouds (Alibaba, Azure,
Oracle, AWS and Google over IPv6) that are not link-local. IPv4 addresses inside IPv6 ones are meant as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Telling clusters who is asking."""

    always: bool = False
    """Feature gate ClientIdentityPenetration: whether every request tells; else those with `impersonate=true` do."""
    rules_file: str | None = None
    """Path of the identity rules of all clusters, read again when it changes; None for none."""
    exchanger_ca_file: str | None = None
    """CA of the services that rules name, PEM, read for each question; None for the system's roots."""
    exchanger_timeout_seconds: float = 5.0
    """Limit of one question to such a service, which delays a request: half of a review's at the hub."""
    exchanger_ttl_seconds: float = 10.0
    """How long an answer is believed, as long as one of the hub's authorizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Connections to clusters."""

    connect_timeout_seconds: float = 5.0
    """Limit of name resolution and TCP, all addresses of a name together; below the ten seconds after which people
    give up."""
    tls_timeout_seconds: float = 10.0
    """Limit of the TLS handshake."""
    request_idle_seconds: float = 60.0
    """How long a caller may send nothing of a body it has begun: as long as kube-apiserver gives a short request in
    all. Long-running requests are exempt, here and in the next."""
    response_idle_seconds: float = 60.0
    """How long a cluster may send nothing of an answer it has begun; likewise."""
    reader_idle_seconds: float = 60.0
    """How long a caller may read nothing of an answer that waits for it; likewise."""
    long_running_reader_idle_seconds: float = 4 * 3600.0
    """The same for long-running requests, such as `kubectl logs -f` in a terminal that was stopped: the four hours
    after which a kubelet ends an idle stream. 0 for as long as it likes."""
    response_timeout_seconds: float = 65.0
    """Limit from a request to the head of its answer, long-running requests exempt: above the 60 s after which
    kube-apiserver itself answers 504, so that the cluster's own answer wins."""
    idle_seconds: float = 80.0
    """How long an unused connection is kept: below the 90 s after which Go servers close theirs."""
    idle_connections_per_cluster: int = 64
    """Most unused connections kept for one cluster."""
    idle_connections: int = 2000
    """Most unused connections kept in all: as many as there may be short requests."""
    buffer_bytes: int = 128 * 1024
    """Bytes of a response held for a slow reader before the cluster's socket is no longer read."""
    dials_per_cluster: int = 64
    """Most connections to one cluster that are being opened at once; the rest wait. Enough for two hundred new
    connections a second over a way of 100 ms, and a cluster that hangs holds no more half-open sockets than these."""
    lookups: int = 64
    """Most names looked up at once, each once and on a thread of its own; the rest wait. So many names would have to
    hang before a healthy one must wait."""
    denied_endpoint_cidrs: tuple[str, ...] = DENIED_ENDPOINT_CIDRS
    """Networks whose addresses no endpoint may have. Loopback is not among them: control planes on the gateway's own
    host are a use."""
    dead_peer_seconds: float = 60.0
    """After how much silence, in spite of TCP's probes, a cluster's host is given up, so that a watch on a cluster that
    has vanished ends within a minute. Tunnels may leave bytes unread for longer, as long as the host answers."""
    breaker_failures: int = 5
    """Failed attempts to connect, one after another, after which a cluster is answered for without trying."""
    breaker_seconds: float = 3.0
    """How long it is answered for so, before one request tries again: with an attempt that takes its whole time, a
    cluster that has come back is served within eight seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlightLimit:
    """Most requests of one kind in progress at once."""

    total: int
    """Of all."""
    per_cluster: int
    """To one cluster. One user never gets more than half of them."""
    per_user: int
    """Of one user, to all clusters together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Requests in progress. The hub limits none of them: to it they are all long-running."""

    short: InFlightLimit = InFlightLimit(total=2000, per_cluster=800, per_user=1000)
    """Requests that kube-apiserver bounds in time: a cluster's share is what kube-apiserver reads at once by default
    (400, and as many waiting), two of them may hang at once, and each takes some 100 KB."""
    long_running: InFlightLimit = InFlightLimit(total=10_000, per_cluster=2500, per_user=5000)
    """Watches, logs, exec, attach, port-forward and proxy: each takes some 130 KB and two descriptors, so 1.3 GB."""


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
    head_seconds: float = 10.0
    """How long a client may take from opening an exchange to its first message; until then nobody knows who it is."""
    shutdown_delay_seconds: float = 0.0
    """How long to keep serving after balancers were told, by the health service, to send nothing new."""
    grace_seconds: float = 30.0
    """How long open exchanges may last after SIGTERM."""
    handshake_seconds: float = 10.0
    """How long a client may take from TCP to HTTP/2; gRPC's own limit is two minutes."""
    connection_age_seconds: float = 300.0
    """After how long a client is asked to connect anew, so that new cores get their share; streams that are open then
    are left alone, however long they last. 0 for never."""
    maximum_connections: int = 1000
    """Most connections of one endpoint; each takes a descriptor before anybody knows whose it is."""
    pending_streams: int = 1000
    """Most streams of strangers on which nothing has come, and most errors that clients do not read."""
    maximum_calls: int = 20_000
    """Most calls of all clients at once, the last line behind all other bounds: above the requests in progress (12,000)
    by what waits for the hub, watches clusters or asks for health."""
    watches_per_client: int = 100
    """Most streams of one kind (clusters, health, reflection) that one client holds; facades are exempt."""
    maximum_streams: int = 10_000
    """Most concurrent calls on one connection; gRPC queues silently above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Everything a core is told."""

    hub: HubSettings = field(default_factory=HubSettings)
    reviews: ReviewSettings = field(default_factory=ReviewSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
