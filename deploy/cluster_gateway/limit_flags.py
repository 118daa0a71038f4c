"""The flags of the bounds of core and facade; docs/limits.md has their reasons."""

from __future__ import annotations

from cluster_gateway.flags import Flag, Kind
from cluster_gateway_core.settings import DENIED_ENDPOINT_CIDRS

_LIMITS = "Limits"


def _limit(name: str, kind: Kind, default: str, help_text: str) -> Flag:
    return Flag(name=name, kind=kind, group=_LIMITS, default=default, help=help_text)


IDLE_FLAGS = (
    _limit(
        "request-idle-timeout",
        Kind.DURATION,
        "1m",
        "How long the caller of a short request may send nothing of a body it has begun.",
    ),
    _limit(
        "reader-idle-timeout",
        Kind.DURATION,
        "1m",
        "How long the caller of a short request may read nothing of an answer that waits for it.",
    ),
    _limit(
        "long-running-reader-idle-timeout",
        Kind.DURATION,
        "4h",
        "The same for long-running requests; 0 for as long as they like.",
    ),
)
"""Both processes watch for callers that stand still."""

LIMIT_FLAGS = (
    _limit("max-requests", Kind.INT, "2000", "Most short requests in progress at once."),
    _limit("max-requests-per-cluster", Kind.INT, "800", "Most of them to one cluster; one user gets at most half."),
    _limit("max-requests-per-user", Kind.INT, "1000", "Most of them of one user."),
    _limit(
        "max-long-running-requests",
        Kind.INT,
        "10000",
        "Most long-running requests (watch, log, exec, attach, port-forward, proxy) in progress at once.",
    ),
    _limit(
        "max-long-running-requests-per-cluster",
        Kind.INT,
        "2500",
        "Most of them to one cluster; one user gets at most half.",
    ),
    _limit("max-long-running-requests-per-user", Kind.INT, "5000", "Most of them of one user."),
    _limit("cluster-connect-timeout", Kind.DURATION, "5s", "Limit of name resolution and TCP with a cluster."),
    _limit("cluster-tls-timeout", Kind.DURATION, "10s", "Limit of the TLS handshake with a cluster."),
    _limit(
        "cluster-response-timeout",
        Kind.DURATION,
        "1m5s",
        "Limit from a short request to the head of the cluster's answer.",
    ),
    *IDLE_FLAGS,
    _limit(
        "response-idle-timeout",
        Kind.DURATION,
        "1m",
        "How long a cluster may send nothing of an answer to a short request that it has begun.",
    ),
    _limit(
        "cluster-dead-peer-timeout",
        Kind.DURATION,
        "1m",
        "After how much silence, in spite of TCP's probes, the host of a cluster is given up.",
    ),
    _limit("max-dials-per-cluster", Kind.INT, "64", "Most connections to one cluster that are opened at once."),
    _limit("max-name-lookups", Kind.INT, "64", "Most clusters' names that are looked up at once."),
    _limit(
        "breaker-failures",
        Kind.INT,
        "5",
        "Failed attempts to connect, in a row, after which a cluster is answered for without trying.",
    ),
    _limit("breaker-delay", Kind.DURATION, "3s", "How long that lasts before one request tries again."),
    _limit("max-idle-connections", Kind.INT, "2000", "Most unused connections that are kept in all."),
    _limit(
        "max-idle-connections-per-cluster", Kind.INT, "64", "Most unused connections that are kept for one cluster."
    ),
    _limit(
        "grpc-max-connections",
        Kind.INT,
        "1000",
        "Most connections of gRPC clients to each port and the socket.",
    ),
    _limit("grpc-max-streams", Kind.INT, "10000", "Most concurrent calls on one connection of a gRPC client."),
    _limit(
        "grpc-max-pending-streams",
        Kind.INT,
        "1000",
        "Most streams of strangers on which nothing has come, and most errors that gRPC clients do not read.",
    ),
    _limit("max-pending-reviews", Kind.INT, "1000", "Most different reviews that wait for the hub, each kind."),
    _limit("grpc-max-calls", Kind.INT, "20000", "Most concurrent calls of all gRPC clients."),
    _limit(
        "grpc-max-watches-per-client",
        Kind.INT,
        "100",
        "Most watches of clusters that one user holds, and of health, and reflections, that one host holds.",
    ),
    _limit("grpc-handshake-timeout", Kind.DURATION, "10s", "Limit of a gRPC client's TLS and HTTP/2 handshake."),
    _limit("grpc-head-timeout", Kind.DURATION, "10s", "Limit from opening an exchange to its first message."),
    _limit(
        "grpc-max-connection-age",
        Kind.DURATION,
        "5m",
        "After how long a gRPC client is asked to connect anew; open streams are left alone. 0 for never.",
    ),
    _limit(
        "denied-endpoint-cidrs",
        Kind.STRINGS,
        ",".join(DENIED_ENDPOINT_CIDRS),
        "Networks whose addresses no cluster's endpoint may resolve to, IPv4 inside IPv6 included. Give it empty to "
        "allow all.",
    ),
)

FACADE_LIMIT_FLAGS = (
    _limit(
        "max-connections",
        Kind.INT,
        "10000",
        "Most connections of clients; lowered at start to what the limit of open files allows.",
    ),
    _limit(
        "max-unauthenticated-connections",
        Kind.INT,
        "1000",
        "Most of them without a verified client certificate, handshakes included; the oldest idle one has to go for a "
        "new one.",
    ),
    _limit("max-unauthenticated-connections-per-address", Kind.INT, "200", "Most of those from one address, likewise."),
    _limit("tls-handshake-timeout", Kind.DURATION, "10s", "Limit of a client's TLS handshake."),
    _limit("request-header-timeout", Kind.DURATION, "20s", "Limit of the head of a request, from its first byte."),
    _limit(
        "keep-alive-timeout",
        Kind.DURATION,
        "2m",
        "How long an unused connection is kept: above the 90 s after which Go's clients, the hub among them, close "
        "theirs.",
    ),
    _limit(
        "client-dead-peer-timeout",
        Kind.DURATION,
        "1m",
        "After how much silence, in spite of TCP's probes, the host of a client is given up.",
    ),
)
