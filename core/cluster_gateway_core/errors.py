"""Every way in which the core itself fails a request.

One class a reason. Each says what happened, at which hop, and what the reader can do; none holds a
credential or a body. An HTTP error that a cluster answers is not an exception: it is relayed untouched.
`server/` turns these into messages of `clustergateway.errors.v1`; a test walks the classes and requires
a reason for each.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Hop(StrEnum):
    """The part of the way on which a request failed; names of `clustergateway.errors.v1.Hop`."""

    CALLER = "CALLER"
    CORE = "CORE"
    HUB = "HUB"
    NETWORK = "NETWORK"
    TLS = "TLS"
    CREDENTIAL = "CREDENTIAL"
    CLUSTER = "CLUSTER"


class GatewayError(Exception):
    """A request failed; base of all, never raised itself.

    Attributes:
        reason: Name of the `ErrorReason`, without its prefix.
        hop: Where it failed.
        message: One sentence for people.
        cluster_name: The cluster it was for; empty for none.
        hint: What to do about it: what the raiser says, else `default_hint`.
        retry_after_seconds: When another try may help; None when it will not.
    """

    reason: ClassVar[str]
    default_hop: ClassVar[Hop] = Hop.CORE
    default_hint: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        cluster_name: str = "",
        hint: str = "",
        hop: Hop | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cluster_name = cluster_name
        self.hint = hint or self.default_hint
        self.hop = hop or self.default_hop
        self.retry_after_seconds = retry_after_seconds


class InvalidRequestError(GatewayError):
    """The request breaks a rule of HTTP, Kubernetes or this API."""

    reason = "INVALID_REQUEST"
    default_hop = Hop.CALLER
    default_hint = "Correct the request."


class UnauthenticatedError(GatewayError):
    """The caller could not be identified."""

    reason = "UNAUTHENTICATED"
    default_hop = Hop.CALLER
    default_hint = "Use a certificate or token that the hub's API server accepts."


class AccessDeniedError(GatewayError):
    """The hub refuses the caller."""

    reason = "ACCESS_DENIED"
    default_hop = Hop.HUB
    default_hint = "Ask the hub's administrator for the right."


class ClusterNotFoundError(GatewayError):
    """No cluster of that name is registered."""

    reason = "CLUSTER_NOT_FOUND"
    default_hint = "Check the name with `kubectl get clustergateways`, or register the cluster."

    def __init__(self, cluster_name: str) -> None:
        # KubeVela recognises a cluster that is not joined by the words "no such cluster".
        super().__init__(
            f"no such cluster {cluster_name}",
            cluster_name=cluster_name,
            retry_after_seconds=5,
        )


class ClusterMisconfiguredError(GatewayError):
    """The cluster's registration cannot be used."""

    reason = "CLUSTER_MISCONFIGURED"
    default_hint = "Correct the cluster's Secret on the hub."


class RegistryNotSyncedError(GatewayError):
    """The first list of clusters has not arrived yet, so nothing can be said of any cluster."""

    reason = "REGISTRY_NOT_SYNCED"
    default_hint = "Try again shortly; if it lasts, look at the gateway's /readyz?verbose."

    def __init__(self, cluster_name: str = "") -> None:
        super().__init__(
            "the gateway has not read the registered clusters from the hub yet",
            cluster_name=cluster_name,
            hop=Hop.HUB,
            retry_after_seconds=1,
        )


class ClusterUnreachableError(GatewayError):
    """No connection to the cluster could be opened, or an open one failed before the answer began."""

    reason = "CLUSTER_UNREACHABLE"
    default_hop = Hop.NETWORK
    default_hint = "Check that the cluster is up and can be reached from the gateway."


class TLSFailedError(GatewayError):
    """The TLS handshake with the cluster failed."""

    reason = "TLS_FAILED"
    default_hop = Hop.TLS
    default_hint = "Check ca.crt, the endpoint's host name and the client certificate in the cluster's Secret."


class CredentialRejectedError(GatewayError):
    """The cluster refused the credential that the gateway holds for it."""

    reason = "CREDENTIAL_REJECTED"
    default_hop = Hop.CREDENTIAL
    default_hint = "Renew the token or certificate in the cluster's Secret; your own login is fine."


class InvalidResponseError(GatewayError):
    """The cluster's answer breaks HTTP, redirects, or switches protocol unasked."""

    reason = "INVALID_RESPONSE"
    default_hop = Hop.CLUSTER
    default_hint = "Check that the endpoint is a Kubernetes API server."


class ResponseTruncatedError(GatewayError):
    """The connection ended before the cluster's answer did."""

    reason = "RESPONSE_TRUNCATED"
    default_hop = Hop.NETWORK
    default_hint = "Ask again; if it lasts, look at the cluster's API server and the network to it."


class UpstreamTimeoutError(GatewayError):
    """The cluster did not answer in time."""

    reason = "TIMEOUT"
    default_hop = Hop.CLUSTER
    default_hint = "Look at the cluster's API server."


class OverloadedError(GatewayError):
    """A limit of the gateway is reached; nothing was forwarded."""

    reason = "OVERLOADED"
    default_hint = "Ask again a little later."


class ShuttingDownError(GatewayError):
    """The gateway is shutting down; nothing was forwarded."""

    reason = "SHUTTING_DOWN"
    default_hint = "Ask again; another replica answers."


class HubUnavailableError(GatewayError):
    """The hub's API failed a request of the gateway's own."""

    reason = "HUB_UNAVAILABLE"
    default_hop = Hop.HUB
    default_hint = "Look at the hub's API server, and at the gateway's /readyz?verbose."


class ConflictError(GatewayError):
    """The object changed since it was read."""

    reason = "CONFLICT"
    default_hop = Hop.HUB
    default_hint = "Read the object again, and repeat the change."


class ExpiredError(GatewayError):
    """The version that a watch wants to resume from is no longer kept."""

    reason = "EXPIRED"
    default_hint = "List again, and watch from there."


class IdentityExchangeFailedError(GatewayError):
    """The service that an identity rule names did not say whom the cluster is to see."""

    reason = "IDENTITY_EXCHANGE_FAILED"
    default_hint = "Look at that service, and at the core's log."


class InternalError(GatewayError):
    """A defect of the gateway."""

    reason = "INTERNAL"
    default_hint = "Look at the gateway's log, and report what it says."
