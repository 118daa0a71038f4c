"""The flags of `apiserver`, `core` and `facade`.

`apiserver` takes every flag of the original: those that mean something here are wired, those that cannot are
either without effect (a warning names them) or refused. The line between the two: when ignoring a flag would
leave out a check, a protection, a record or a route that the operator asked for, it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_gateway.flags import Effect, Flag, Kind
from cluster_gateway.limit_flags import FACADE_LIMIT_FLAGS, IDLE_FLAGS, LIMIT_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVING = "Serving"
_HUB = "Hub"
_REVIEWS = "Authentication and authorization"
_CLUSTERS = "Clusters"
_IDENTITY = "Identity of callers at clusters"
_CORE = "Way to the cores"
_GRPC = "gRPC serving"
_PROCESS = "Process"
_REFUSED = "Known to the original and not implemented here: refused at start"
_WITHOUT_EFFECT = "Known to the original and without effect here: a warning names them"

_BIND_ADDRESS = Flag(
    name="bind-address", kind=Kind.IP, group=_SERVING, default="0.0.0.0", help="IP address to listen on."
)
_HTTPS = (
    _BIND_ADDRESS,
    Flag(
        name="secure-port",
        kind=Kind.INT,
        group=_SERVING,
        default="443",
        help="Port that serves HTTPS; 0 chooses a free one.",
    ),
    Flag(
        name="cert-dir",
        kind=Kind.STRING,
        group=_SERVING,
        default="apiserver.local.config/certificates",
        help="Directory of the self-signed certificate apiserver.crt and its key apiserver.key, which "
        "are made here "
        "when no --tls-cert-file is given. Must be writable then.",
    ),
    Flag(
        name="tls-cert-file",
        kind=Kind.STRING,
        group=_SERVING,
        help="Serving certificate, PEM, followed by its intermediates. Read again when the file changes.",
    ),
    Flag(
        name="tls-private-key-file",
        kind=Kind.STRING,
        group=_SERVING,
        help="Key of --tls-cert-file, PEM, unencrypted.",
    ),
    Flag(
        name="authorization-always-allow-paths",
        kind=Kind.STRINGS,
        group=_SERVING,
        default="/healthz,/readyz,/livez",
        help="Paths that need no authorization; one that ends in * is a prefix.",
    ),
    Flag(
        name="shutdown-delay-duration",
        kind=Kind.DURATION,
        group=_SERVING,
        default="0s",
        help="How long to keep serving after SIGTERM has turned readiness red.",
    ),
)
_HUB_FLAGS = (
    Flag(
        name="kubeconfig",
        kind=Kind.STRING,
        group=_HUB,
        help="kubeconfig of the hub. Without it the pod's service account is used.",
    ),
    Flag(
        name="authentication-kubeconfig",
        kind=Kind.STRING,
        group=_HUB,
        help="kubeconfig for token reviews and the front proxy's trust anchors; --kubeconfig if not given.",
    ),
    Flag(
        name="authorization-kubeconfig",
        kind=Kind.STRING,
        group=_HUB,
        help="kubeconfig for access reviews; --kubeconfig if not given.",
    ),
    Flag(
        name="secret-namespace",
        kind=Kind.STRING,
        group=_HUB,
        default="vela-system",
        help="Namespace of the Secrets that register clusters.",
    ),
    Flag(name="user-agent", kind=Kind.STRING, group=_HUB, help="User-Agent of requests to the hub."),
    Flag(
        name="authentication-token-webhook-cache-ttl",
        kind=Kind.DURATION,
        group=_REVIEWS,
        default="10s",
        help="How long the user of a bearer token is believed.",
    ),
    Flag(
        name="authorization-webhook-cache-authorized-ttl",
        kind=Kind.DURATION,
        group=_REVIEWS,
        default="10s",
        help="How long a yes of the hub's authorizer is believed.",
    ),
    Flag(
        name="authorization-webhook-cache-unauthorized-ttl",
        kind=Kind.DURATION,
        group=_REVIEWS,
        default="10s",
        help="How long a no of the hub's authorizer is believed.",
    ),
    Flag(
        name="reauthorization-interval",
        kind=Kind.DURATION,
        group=_REVIEWS,
        default="5m",
        help="How often the hub is asked whether an open watch, shell, log or port-forward is still allowed, which is "
        "cut when it is not; 0 asks never.",
    ),
    Flag(
        name="reauthorization-patience",
        kind=Kind.DURATION,
        group=_REVIEWS,
        default="30m",
        help="How long one goes on while the hub cannot be asked.",
    ),
    Flag(
        name="feature-gates",
        kind=Kind.STRINGS,
        group=_CLUSTERS,
        help="Comma-separated name=bool. HealthinessCheck shows the health that was reported for each "
        "cluster (off). "
        "ClientIdentityPenetration tells each cluster who is asking, by impersonation (off). "
        "The other gates of the original and of kube-apiserver's library are accepted without effect.",
    ),
    Flag(
        name="cluster-gateway-proxy-config",
        kind=Kind.STRING,
        group=_IDENTITY,
        help="File of the identity rules of all clusters, YAML: whom a cluster is to see. Read again when it changes; "
        "a broken one is refused, at start and later. Without the gate it applies to requests with impersonate=true.",
    ),
    Flag(
        name="identity-exchanger-ca-file",
        kind=Kind.STRING,
        group=_IDENTITY,
        help="CA of the services that rules of type ExternalIdentityExchanger name, PEM; the system's roots if not "
        "given.",
    ),
    Flag(
        name="identity-exchanger-timeout",
        kind=Kind.DURATION,
        group=_IDENTITY,
        default="5s",
        help="How long such a service may take to say whom a cluster is to see.",
    ),
    Flag(
        name="identity-exchanger-cache-ttl",
        kind=Kind.DURATION,
        group=_IDENTITY,
        default="10s",
        help="How long its answer is believed.",
    ),
    Flag(
        name="allow-insecure-endpoints",
        kind=Kind.BOOL,
        group=_CLUSTERS,
        help="Dial clusters whose Secret names no CA without verifying them, as the original does.",
    ),
)
_PROCESS_FLAGS = (
    Flag(
        name="shutdown-grace-duration",
        kind=Kind.DURATION,
        group=_PROCESS,
        default="30s",
        help="How long open requests may last after SIGTERM.",
    ),
    Flag(
        name="v",
        shorthand="v",
        kind=Kind.INT,
        group=_PROCESS,
        default="0",
        help="Log level: 4 and above log each step, below that only what an operator should know.",
    ),
)


def _refused(kind: Kind, names: str, reason: str, *harmless: str) -> Iterator[Flag]:
    for name in names.split():
        yield Flag(name=name, kind=kind, group=_REFUSED, effect=Effect.REFUSED, help=reason, harmless=harmless)


# Reasons complete the sentence "--name: ...".
REFUSED_FLAGS = (
    *_refused(
        Kind.BOOL,
        "ocm-integration",
        "clusters are read from Secrets alone, not from Open Cluster Management.",
    ),
    *_refused(Kind.STRING, "proxy-host", "the konnectivity entry point is not dialled by this version."),
    *_refused(
        Kind.BOOL,
        "authorize-proxy-subpath",
        "the hub is asked about clustergateways/proxy, not about the request inside.",
    ),
    *_refused(Kind.BOOL, "standalone-debug-mode", "serving without authorization is not offered."),
    *_refused(
        Kind.STRING,
        "client-ca-file requestheader-client-ca-file",
        "trust anchors are those of the hub's ConfigMap kube-system/extension-apiserver-authentication.",
    ),
    *_refused(
        Kind.STRINGS,
        "requestheader-allowed-names requestheader-username-headers requestheader-uid-headers "
        "requestheader-group-headers requestheader-extra-headers-prefix",
        "the front proxy's names and headers are those of the hub's ConfigMap "
        "kube-system/extension-apiserver-authentication.",
    ),
    *_refused(
        Kind.BOOL,
        "authentication-skip-lookup",
        "trust anchors are always read from the hub; there is no other source.",
    ),
    *_refused(
        Kind.STRING,
        "tls-min-version",
        "the lowest version served is TLS 1.2 and cannot be raised.",
        "VersionTLS10",
        "VersionTLS11",
        "VersionTLS12",
    ),
    *_refused(Kind.STRINGS, "tls-cipher-suites", "cipher suites cannot be chosen."),
    *_refused(Kind.STRINGS, "tls-sni-cert-key", "one certificate is served for every name."),
    *_refused(
        Kind.STRING,
        "audit-policy-file audit-log-path audit-webhook-config-file",
        "no audit log is written here; the hub's records every request that comes through it.",
    ),
    *_refused(Kind.STRINGS, "enable-admission-plugins", "no admission runs here; that of the cluster itself does."),
    *_refused(
        Kind.STRING,
        "admission-control-config-file",
        "no admission runs here; that of the cluster itself does.",
    ),
    *_refused(Kind.STRING, "egress-selector-config-file", "the hub is dialled directly."),
)

_BATCH_FLAGS = {
    Kind.INT: "batch-buffer-size batch-max-size batch-throttle-burst truncate-max-batch-size truncate-max-event-size",
    Kind.FLOAT: "batch-throttle-qps",
    Kind.DURATION: "batch-max-wait",
    Kind.BOOL: "batch-throttle-enable truncate-enabled",
    Kind.STRING: "mode version",
}
_AUDIT_BATCH_FLAGS = {
    kind: " ".join(f"audit-{backend}-{name}" for backend in ("log", "webhook") for name in names.split())
    for kind, names in _BATCH_FLAGS.items()
}
# k8s.io/apiserver, pkg/server/options (etcd.go, serving.go, authentication.go, audit.go, feature.go,
# admission.go, tracing.go); k8s.io/klog, klog.go; and the original's pkg/config.
_INERT_FLAGS = (
    (Kind.INT, "proxy-port"),
    (Kind.STRING, "proxy-ca-cert proxy-cert proxy-key"),
    (Kind.BOOL, "virtual-clutser-with-control-plane virtual-cluster-with-control-plane"),
    (Kind.BOOL, "logtostderr alsologtostderr one-output add-dir-header skip-headers skip-log-headers"),
    (Kind.STRING, "vmodule stderrthreshold log-dir log-file log-backtrace-at"),
    (Kind.INT, "log-file-max-size"),
    (Kind.BOOL, "disable-http2-serving permit-address-sharing permit-port-sharing"),
    (Kind.INT, "http2-max-streams-per-connection"),
    (Kind.BOOL, "authentication-tolerate-lookup-failure"),
    (Kind.BOOL, "profiling contention-profiling enable-priority-and-fairness"),
    (Kind.STRING, "debug-socket-path tracing-config-file"),
    (Kind.STRINGS, "disable-admission-plugins emulated-version"),
    (Kind.BOOL, "emulation-forward-compatible runtime-config-emulation-forward-compatible"),
    (Kind.BOOL, "audit-log-compress"),
    (Kind.INT, "audit-log-maxage audit-log-maxbackup audit-log-maxsize"),
    (Kind.STRING, "audit-log-format"),
    (Kind.DURATION, "audit-webhook-initial-backoff"),
    *_AUDIT_BATCH_FLAGS.items(),
    (Kind.STRINGS, "etcd-servers etcd-servers-overrides watch-cache-sizes"),
    (Kind.STRING, "etcd-cafile etcd-certfile etcd-keyfile etcd-prefix storage-backend storage-media-type"),
    (Kind.DURATION, "etcd-compaction-interval etcd-count-metric-poll-period etcd-db-metric-poll-interval"),
    (Kind.DURATION, "etcd-healthcheck-timeout etcd-readycheck-timeout storage-initialization-timeout"),
    (Kind.STRING, "encryption-provider-config"),
    (Kind.BOOL, "encryption-provider-config-automatic-reload enable-garbage-collector watch-cache"),
    (Kind.INT, "default-watch-cache-size delete-collection-workers lease-reuse-duration-seconds"),
)
INERT_FLAGS = tuple(
    Flag(name=name, kind=kind, group=_WITHOUT_EFFECT, effect=Effect.NONE, help="")
    for kind, names in _INERT_FLAGS
    for name in names.split()
)


def _grpc_port(*, default: str, clients: str) -> Flag:
    return Flag(
        name="grpc-port",
        kind=Kind.INT,
        group=_GRPC,
        default=default,
        help=f"Port of gRPC with mutual TLS, {clients}; 0 serves none.",
    )


_TOKEN_PORT = Flag(
    name="grpc-token-port",
    kind=Kind.INT,
    group=_GRPC,
    default="0",
    help="Port of gRPC with TLS for clients with a bearer token; 0 serves none.",
)
# Services may speak gRPC with the core beside a facade too; both ports show the HTTPS certificate.
_DIRECT = (_grpc_port(default="0", clients="for clients with a certificate of the hub"), _TOKEN_PORT)

APISERVER_FLAGS = (
    *_HTTPS,
    *_DIRECT,
    *_HUB_FLAGS,
    *LIMIT_FLAGS,
    *FACADE_LIMIT_FLAGS,
    *_PROCESS_FLAGS,
    *REFUSED_FLAGS,
    *INERT_FLAGS,
)

CORE_FLAGS = (
    Flag(name="bind-address", kind=Kind.IP, group=_GRPC, default="0.0.0.0", help="IP address to listen on."),
    _grpc_port(default="9444", clients="for facades and for clients with a certificate of the hub"),
    _TOKEN_PORT,
    Flag(
        name="tls-cert-file",
        kind=Kind.STRING,
        group=_GRPC,
        help="Serving certificate of both ports, PEM, followed by its intermediates. Read again when the file changes.",
    ),
    Flag(
        name="tls-private-key-file",
        kind=Kind.STRING,
        group=_GRPC,
        help="Key of --tls-cert-file, PEM, unencrypted.",
    ),
    Flag(
        name="facade-ca-file",
        kind=Kind.STRING,
        group=_GRPC,
        help="CA that signs the client certificates of facades, PEM.",
    ),
    Flag(
        name="facade-allowed-names",
        kind=Kind.STRINGS,
        group=_GRPC,
        default="cluster-gateway-facade",
        help="Common names of those certificates that are believed to be facades, which may say who is asking.",
    ),
    Flag(
        name="unix-socket",
        kind=Kind.STRING,
        group=_GRPC,
        help="Path of a socket on which every client is believed to be a facade; its directory must be private.",
    ),
    *_HUB_FLAGS,
    *LIMIT_FLAGS,
    Flag(
        name="shutdown-delay-duration",
        kind=Kind.DURATION,
        group=_PROCESS,
        default="1s",
        help="How long to keep serving after SIGTERM has told facades, by the health service, to send nothing new.",
    ),
    *_PROCESS_FLAGS,
)

FACADE_FLAGS = (
    *_HTTPS,
    Flag(
        name="core-target",
        kind=Kind.STRING,
        group=_CORE,
        help="gRPC target of the cores, for example dns:///cores.cluster-gateway-system.svc:9444, or unix:/path.",
    ),
    Flag(
        name="core-ca-file",
        kind=Kind.STRING,
        group=_CORE,
        help="CA that signs the cores' serving certificates, PEM.",
    ),
    Flag(
        name="core-client-cert-file",
        kind=Kind.STRING,
        group=_CORE,
        help="Certificate that tells cores this is a facade.",
    ),
    Flag(
        name="core-client-key-file",
        kind=Kind.STRING,
        group=_CORE,
        help="Key of --core-client-cert-file, PEM, unencrypted.",
    ),
    Flag(
        name="core-server-name",
        kind=Kind.STRING,
        group=_CORE,
        help="Name that the cores' certificates must carry; the host of --core-target if not given.",
    ),
    *FACADE_LIMIT_FLAGS,
    *IDLE_FLAGS,
    *_PROCESS_FLAGS,
)
