"""What this API server serves, as clients, the aggregator and the namespace controller ask for it.

Every document is written once at start and answered from memory: availability of the gateway's
APIService hangs on `/apis/<group>/<version>`, which must not wait for a core, the hub or a cluster.

Source:
    kubernetes/apiserver, pkg/endpoints/discovery (legacy) and pkg/endpoints/discovery/aggregated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cluster_gateway_facade import status
from cluster_gateway_facade.handlers.rendering import Document
from cluster_gateway_facade.negotiation import JSON, YAML, Target, negotiate
from cluster_gateway_facade.status import API_GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_gateway_facade.exchange import Answer, ApiRequest

API_VERSION: Final = "v1alpha1"
"""The only version of the group, hence the preferred one."""
GROUP_VERSION: Final = f"{API_GROUP}/{API_VERSION}"
"""Value of `apiVersion` in the group's objects."""

_DISCOVERY_GROUP: Final = "apidiscovery.k8s.io"
_DISCOVERY_KIND: Final = "APIGroupDiscoveryList"
_LEGACY_MEDIA_TYPES: Final = (JSON, YAML)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subresource:
    """One subresource, for example "proxy"."""

    name: str
    kind: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One cluster-scoped resource with its subresources."""

    name: str
    singular_name: str
    kind: str
    verbs: tuple[str, ...]
    subresources: tuple[Subresource, ...] = ()


RESOURCES: Final = (
    Resource(
        name="clustergateways",
        singular_name="clustergateway",
        kind="ClusterGateway",
        verbs=("get", "list"),
        subresources=(
            # HEAD and OPTIONS are served, too: discovery has no verbs for them.
            Subresource(
                name="proxy",
                kind="ClusterGatewayProxyOptions",
                verbs=("create", "delete", "get", "patch", "update"),
            ),
        ),
    ),
)
"""What is served, sorted by name; discovery names nothing else, because clients act upon it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryDocument:
    """One discovery path: its ordinary forms and, where there are any, its aggregated ones."""

    legacy: Mapping[str, Document]
    aggregated: Mapping[Target, Document]

    async def answer(self, request: ApiRequest) -> Answer:
        """Answer in the form that the Accept header asks for.

        An acceptable aggregated form wins whatever its place in the header, as in kube-apiserver
        (aggregated/wrapper.go): clients list the legacy form only as a fallback.
        """
        accept = request.headers.get("Accept")
        choice = negotiate(accept, (JSON,), self.aggregated)
        if choice is not None and choice.target is not None:
            return self.aggregated[choice.target].answer(request, ("Cache-Control", "public"))
        choice = negotiate(accept, _LEGACY_MEDIA_TYPES)
        if choice is None:
            return status.not_acceptable(_LEGACY_MEDIA_TYPES)
        return self.legacy[choice.media_type].answer(request, ("Cache-Control", "no-cache, private"))


def discovery_documents() -> dict[str, DiscoveryDocument]:
    """Write every discovery document.

    Returns:
        By path, without trailing slash.
    """
    return {
        # The core group is not served. Clients ask all the same, and take a 404 for an old server.
        "/api": _document(
            {"kind": "APIVersions", "versions": [], "serverAddressByClientCIDRs": []}, aggregated_items=[]
        ),
        "/apis": _document(
            {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]},
            aggregated_items=[_aggregated_group()],
        ),
        f"/apis/{API_GROUP}": _document({"kind": "APIGroup", "apiVersion": "v1", **_group()}),
        f"/apis/{GROUP_VERSION}": _document(
            {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": GROUP_VERSION,
                "resources": [entry for resource in RESOURCES for entry in _legacy_entries(resource)],
            }
        ),
    }


def _document(legacy: Mapping[str, Any], aggregated_items: list[dict[str, Any]] | None = None) -> DiscoveryDocument:
    aggregated: dict[Target, Document] = {}
    for version in ("v2", "v2beta1") if aggregated_items is not None else ():
        target = Target(group=_DISCOVERY_GROUP, version=version, kind=_DISCOVERY_KIND)
        value: dict[str, Any] = {
            "kind": _DISCOVERY_KIND,
            "apiVersion": f"{_DISCOVERY_GROUP}/{version}",
            "metadata": {},
            "items": aggregated_items,
        }
        # The aggregator and client-go read the form from the Content-Type; both take this spelling.
        content_type = f"{JSON};g={_DISCOVERY_GROUP};v={version};as={_DISCOVERY_KIND}"
        aggregated[target] = Document.of(value, media_type=JSON, content_type=content_type)
    forms = {media_type: Document.of(legacy, media_type=media_type) for media_type in _LEGACY_MEDIA_TYPES}
    return DiscoveryDocument(legacy=forms, aggregated=aggregated)


def _group() -> dict[str, Any]:
    version = {"groupVersion": GROUP_VERSION, "version": API_VERSION}
    return {"name": API_GROUP, "versions": [version], "preferredVersion": version}


def _legacy_entries(resource: Resource) -> list[dict[str, Any]]:
    entry = {
        "name": resource.name,
        "singularName": resource.singular_name,
        "namespaced": False,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    below = [
        {
            "name": f"{resource.name}/{subresource.name}",
            "singularName": "",
            "namespaced": False,
            "kind": subresource.kind,
            "verbs": list(subresource.verbs),
        }
        for subresource in resource.subresources
    ]
    return [entry, *below]


def _aggregated_group() -> dict[str, Any]:
    version = {
        "version": API_VERSION,
        "resources": [_aggregated_resource(resource) for resource in RESOURCES],
        "freshness": "Current",
    }
    return {"metadata": {"name": API_GROUP}, "versions": [version]}


def _aggregated_resource(resource: Resource) -> dict[str, Any]:
    return {
        "resource": resource.name,
        "responseKind": _kind(resource.kind),
        "scope": "Cluster",
        "singularResource": resource.singular_name,
        "verbs": list(resource.verbs),
        # client-go 0.26.0 to 0.26.3 panics at a subresource without responseKind (kubernetes/kubernetes
        # issue 119840), so it is always there.
        "subresources": [
            {
                "subresource": subresource.name,
                "responseKind": _kind(subresource.kind),
                "verbs": list(subresource.verbs),
            }
            for subresource in resource.subresources
        ],
    }


def _kind(kind: str) -> dict[str, str]:
    return {"group": API_GROUP, "version": API_VERSION, "kind": kind}
