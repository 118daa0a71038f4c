"""Schemas of the gateway's kinds, for OpenAPI v2 and v3 alike.

Names, required fields and formats are those of oam-dev/cluster-gateway, whose clients were generated from
them; only the fields that are really served are described, so credentials are described as their kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cluster_gateway_facade.handlers.discovery import API_VERSION
from cluster_gateway_facade.status import API_GROUP

Schema = dict[str, Any]
"""One JSON schema."""

_PACKAGE: Final = "com.github.oam-dev.cluster-gateway.pkg.apis.cluster.v1alpha1"
_META_PACKAGE: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"

CLUSTER_GATEWAY: Final = f"{_PACKAGE}.ClusterGateway"
"""Definition name of a cluster."""
CLUSTER_GATEWAY_LIST: Final = f"{_PACKAGE}.ClusterGatewayList"
"""Definition name of a list of clusters."""
PROXY_OPTIONS: Final = f"{_PACKAGE}.ClusterGatewayProxyOptions"
"""Definition name of the parameters of the proxy subresource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What the two versions of OpenAPI write differently.

    Attributes:
        prefix: Where definitions lie, for `$ref`.
        wrap: Whether a reference must be wrapped to carry a description: OpenAPI 3.0 ignores what stands
            beside `$ref`, while version 2 as Kubernetes reads it keeps it.
    """

    prefix: str
    wrap: bool

    def ref(self, name: str, description: str = "") -> Schema:
        """Refer to a definition."""
        reference = {"$ref": self.prefix + name}
        if not description:
            return reference
        return {"description": description, **({"allOf": [reference]} if self.wrap else reference)}


def definitions(dialect: Dialect) -> dict[str, Schema]:
    """Write all definitions, by name."""
    return {**_kinds(dialect), **_spec_parts(dialect), **_metadata()}


def kind_extension(kind: str) -> dict[str, str]:
    """Say which kind something is; value of the `x-kubernetes-group-version-kind` extension."""
    return {"group": API_GROUP, "version": API_VERSION, "kind": kind}


def text(description: str, **more: Any) -> Schema:
    """Describe a string."""
    return {"description": description, "type": "string", **more}


def _object(description: str, properties: dict[str, Schema], *required: str, kind: str = "") -> Schema:
    schema: Schema = {"description": description, "type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if kind:
        schema["x-kubernetes-group-version-kind"] = [kind_extension(kind)]
    return schema


def _typed(properties: dict[str, Schema]) -> dict[str, Schema]:
    return {
        "apiVersion": text("Group and version of this object's schema."),
        "kind": text("Kind of this object."),
        **properties,
    }


def _kinds(dialect: Dialect) -> dict[str, Schema]:
    cluster = {
        "metadata": dialect.ref(f"{_META_PACKAGE}.ObjectMeta", "Taken from the Secret of the same name."),
        "spec": dialect.ref(f"{_PACKAGE}.ClusterGatewaySpec", "How the gateway reaches the cluster."),
        "status": dialect.ref(f"{_PACKAGE}.ClusterGatewayStatus", "What was last reported of the cluster."),
    }
    clusters = {
        "metadata": dialect.ref(f"{_META_PACKAGE}.ListMeta", "Version of the list, and where it goes on."),
        "items": {
            "description": "The clusters, sorted by name.",
            "type": "array",
            "items": dialect.ref(CLUSTER_GATEWAY),
        },
    }
    options = {
        "path": text("Path at the cluster's API server, for example /api/v1/nodes."),
        "impersonate": {"description": "Whether the cluster sees the caller's identity.", "type": "boolean"},
    }
    return {
        CLUSTER_GATEWAY: _object(
            "A cluster that this gateway reaches. It is registered by a Secret and read-only here.",
            _typed(cluster),
            kind="ClusterGateway",
        ),
        CLUSTER_GATEWAY_LIST: _object("A list of clusters.", _typed(clusters), "items", kind="ClusterGatewayList"),
        PROXY_OPTIONS: _object(
            "Parameters of a request to a cluster through its proxy subresource.",
            _typed(options),
            "path",
            "impersonate",
            kind="ClusterGatewayProxyOptions",
        ),
    }


def _spec_parts(dialect: Dialect) -> dict[str, Schema]:
    endpoint = {
        "type": text("Const for an address, ClusterProxy for a tunnel through a konnectivity server."),
        "const": dialect.ref(f"{_PACKAGE}.ClusterEndpointConst", "The address, where the type is Const."),
    }
    const = {
        "address": text("URL of the cluster's API server; may have a base path."),
        "caBundle": text("PEM certificates that verify the server; none means system roots.", format="byte"),
        "insecure": {"description": "True where the server is not verified.", "type": "boolean"},
        "proxy-url": text("Forward proxy on the way to the server, without its user and password."),
    }
    access = {
        "endpoint": dialect.ref(f"{_PACKAGE}.ClusterEndpoint", "Where the cluster's API server is."),
        "credential": dialect.ref(f"{_PACKAGE}.ClusterAccessCredential", "What the gateway presents to the cluster."),
    }
    credential = {
        "type": text(
            "ServiceAccountToken, X509Certificate or Dynamic. The credential itself, be it a token or a"
            " private key, is never served."
        )
    }
    status = {
        "healthy": {"description": "Whether the cluster was last reported healthy.", "type": "boolean"},
        "healthyReason": text("Why the cluster is not healthy, or why its registration cannot be used."),
    }
    spec = {
        "provider": text("Provider of the cluster; always empty."),
        "access": dialect.ref(f"{_PACKAGE}.ClusterAccess", "Endpoint and credential."),
    }
    return {
        f"{_PACKAGE}.ClusterGatewaySpec": _object("How the gateway reaches a cluster.", spec, "provider", "access"),
        f"{_PACKAGE}.ClusterAccess": _object("Endpoint and credential of a cluster.", access, "endpoint"),
        f"{_PACKAGE}.ClusterEndpoint": _object("Where a cluster's API server is.", endpoint, "type"),
        f"{_PACKAGE}.ClusterEndpointConst": _object("A fixed address.", const, "address"),
        f"{_PACKAGE}.ClusterAccessCredential": _object("Kind of a credential.", credential, "type"),
        f"{_PACKAGE}.ClusterGatewayStatus": _object("Health of a cluster.", status, "healthy"),
    }


def _metadata() -> dict[str, Schema]:
    object_meta = {
        "name": text("Name of the cluster and of the Secret that registers it."),
        "uid": text("Unique id of the Secret."),
        "resourceVersion": text("Version of this entry; opaque, to be compared for equality only."),
        "creationTimestamp": text("When the Secret was created.", format="date-time"),
        "labels": {
            "description": "Labels of the Secret.",
            "type": "object",
            "additionalProperties": {"type": "string"},
        },
    }
    list_meta = {
        "resourceVersion": text("Version of the registry that the list was read from."),
        "continue": text("Value of the continue parameter for the next page; absent on the last."),
        "remainingItemCount": {
            "description": "How many clusters follow this page.",
            "type": "integer",
            "format": "int64",
        },
    }
    return {
        f"{_META_PACKAGE}.ObjectMeta": _object("Metadata of a cluster.", object_meta),
        f"{_META_PACKAGE}.ListMeta": _object("Metadata of a list.", list_meta),
    }
