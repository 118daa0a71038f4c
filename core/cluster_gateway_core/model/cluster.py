"""A registered cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cluster_gateway_core.model.identity import IdentityRule


class EndpointType(StrEnum):
    """Values of the label `cluster.core.oam.dev/cluster-endpoint-type`."""

    CONST = "Const"
    CLUSTER_PROXY = "ClusterProxy"


class CredentialType(StrEnum):
    """Values of the label `cluster.core.oam.dev/cluster-credential-type`."""

    SERVICE_ACCOUNT_TOKEN = "ServiceAccountToken"  # noqa: S105 - the name of a kind, not a token
    X509_CERTIFICATE = "X509Certificate"
    DYNAMIC = "Dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a cluster's API server is.

    Attributes:
        type: How it is reached.
        address: URL with scheme and host; empty for a tunnel.
        ca_bundle_pem: CA that verifies the server; None means the system's roots.
        insecure: True turns verification off.
        proxy_url: Forward proxy on the way; None for none. May hold a password, hence not shown.
        tls_server_name: Name that the certificate must carry; None means the address' host.
    """

    type: EndpointType
    address: str = ""
    ca_bundle_pem: bytes | None = None
    insecure: bool = False
    proxy_url: str | None = field(default=None, repr=False)
    tls_server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the gateway presents to a cluster; never shown by `repr`, in errors or over any API.

    Attributes:
        type: The kind.
        token: Bearer token; empty for the other kinds.
        certificate_pem: Client certificate chain; empty for the other kinds.
        private_key_pem: Its key; empty for the other kinds.
    """

    type: CredentialType
    token: str = field(default="", repr=False)
    certificate_pem: bytes = field(default=b"", repr=False)
    private_key_pem: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What was last reported of a cluster's health."""

    healthy: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One registered cluster, immutable: a change makes a new value.

    Attributes:
        name: Name of the registering object and of the cluster.
        uid: Unique id of the registering object.
        resource_version: Version of the registering object; opaque.
        creation_timestamp: When the registering object was created; None where unknown.
        labels: Labels of the registering object.
        credential_type: The label's value, also when it is none of `CredentialType`.
        endpoint: None when `fault` says why.
        credential: None when `fault` says why.
        health: Last reported health.
        identity_rules: The cluster's own rules, before those of all clusters; empty when `fault` says why.
        fault: Why the registration cannot be used; empty when it can.
    """

    name: str
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    credential_type: str = ""
    endpoint: Endpoint | None = None
    credential: Credential | None = None
    health: Health = Health()
    identity_rules: tuple[IdentityRule, ...] = ()
    fault: str = ""
