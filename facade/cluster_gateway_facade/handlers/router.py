"""From a request to its handler and to what the caller must be allowed to do.

Every path that is not proxied to a cluster is decided here, in one pure function, so that no handler can be
reached without the review that its path calls for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from cluster_gateway_facade import status
from cluster_gateway_facade.exchange import Answer, ApiRequest
from cluster_gateway_facade.handlers.discovery import API_VERSION, discovery_documents
from cluster_gateway_facade.handlers.objects import ClusterObjects, ClusterReader, is_watch
from cluster_gateway_facade.handlers.openapi import openapi_documents
from cluster_gateway_facade.handlers.probes import PING, Check, Probe
from cluster_gateway_facade.handlers.version import Version
from cluster_gateway_facade.status import API_GROUP, CLUSTER_RESOURCE
from clustergateway.access.v1.access_service_pb2 import NonResourceAttributes, ResourceAttributes

if TYPE_CHECKING:
    from collections.abc import Sequence

Handler = Callable[[ApiRequest], Awaitable[Answer]]
"""Answers one request; cancellation passes through it."""

_READ_METHODS: Final = ("GET", "HEAD")
# kubernetes/apiserver, pkg/endpoints/request/requestinfo.go; any other method has no verb, which no rule
# but "*" allows.
_VERBS: Final = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


class Review(Enum):
    """Who decides, where it is not the facade by `AccessService.Authorize`."""

    NONE = "none"
    """Nobody: anyone may ask."""
    BY_CORE = "by-core"
    """The core, within the call that the handler makes for the request's user."""


Access = Review | ResourceAttributes | NonResourceAttributes
"""What a caller must be allowed to do; attributes are to be authorized before the handler is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a request goes.

    Attributes:
        handler: Answers it.
        access: What must be allowed first.
    """

    handler: Handler
    access: Access


class Router:
    """Every handler of the facade save the proxy.

    Building one writes all documents, so it is done once at start.
    """

    def __init__(
        self,
        *,
        reader: ClusterReader,
        release: str,
        liveness: Sequence[Check] = (),
        readiness: Sequence[Check] = (),
        always_allow_paths: Sequence[str] = (),
    ) -> None:
        """Build the handlers.

        Args:
            reader: Where clusters are read from.
            release: The gateway's version, for example "0.1.0".
            liveness: Checks of /livez and /healthz, after "ping".
            readiness: Checks of /readyz, after "ping".
            always_allow_paths: Exact paths, or prefixes that end in "*", that need no review.
        """
        self._objects = ClusterObjects(reader=reader)
        self._documents: dict[str, Handler] = {
            **{path: document.answer for path, document in discovery_documents().items()},
            **{path: document.answer for path, document in openapi_documents().items()},
            "/version": Version(release=release).answer,
        }
        live, ready = (PING, *liveness), (PING, *readiness)
        named = {"livez": live, "readyz": ready, "healthz": live}
        self._probes = {name: Probe(name=name, checks=checks) for name, checks in named.items()}
        self._always_allow_paths = tuple(always_allow_paths)

    def resolve(self, request: ApiRequest) -> Route:
        """Find the handler of a request that is not proxied.

        Never fails: what is not served has a handler that says so, and it, too, is reached only by who may
        ask, since kube-apiserver authorizes before it looks.
        """
        parts = request.path.strip("/").split("/")
        attributes = _resource_attributes(request, parts)
        if attributes is None:
            return Route(handler=self._non_resource_handler(request, parts), access=self._access(request))
        if (attributes.group, attributes.version, attributes.resource) != _CLUSTERS or attributes.subresource:
            return Route(handler=_answer_not_served, access=attributes)
        if request.method not in _READ_METHODS or attributes.verb == "watch":
            return Route(handler=partial(_answer_unsupported, verb=attributes.verb), access=attributes)
        if attributes.name:
            return Route(handler=partial(self._objects.get, name=attributes.name), access=Review.BY_CORE)
        return Route(handler=self._objects.list, access=Review.BY_CORE)

    def _non_resource_handler(self, request: ApiRequest, parts: list[str]) -> Handler:
        probe = self._probes.get(parts[0])
        handler = probe.answer if probe else self._documents.get("/" + "/".join(parts))
        if handler is None:
            return _answer_not_served
        return handler if request.method in _READ_METHODS else _answer_read_only

    def _access(self, request: ApiRequest) -> Access:
        """Say what a request for a path that is no resource needs; authorized by the path as it was sent."""
        if any(_covers(allowed, request.path) for allowed in self._always_allow_paths):
            return Review.NONE
        return NonResourceAttributes(verb=request.method.lower(), path=request.path)


_CLUSTERS: Final = (API_GROUP, API_VERSION, CLUSTER_RESOURCE)


def _resource_attributes(request: ApiRequest, parts: list[str]) -> ResourceAttributes | None:
    """Classify a path as kube-apiserver does before it authorizes; None for what is no resource.

    Namespaces and the old /watch/ prefix are not told apart, because nothing here is served below them.

    Source:
        kubernetes/apiserver, pkg/endpoints/request/requestinfo.go, NewRequestInfo.
    """
    prefix_length = {"api": 1, "apis": 2}.get(parts[0])
    if prefix_length is None or len(parts) < prefix_length + 2:
        return None
    group = parts[1] if parts[0] == "apis" else ""
    version, resource, *below = parts[prefix_length:]
    # What lies below a subresource is told as part of it; none of it is served.
    name, _, subresource = "/".join(below).partition("/")
    return ResourceAttributes(
        verb=_verb(request, name),
        group=group,
        version=version,
        resource=resource,
        name=name,
        subresource=subresource,
    )


def _verb(request: ApiRequest, name: str) -> str:
    verb = _VERBS.get(request.method, "")
    if name:
        return verb
    if verb == "get":
        return "watch" if is_watch(request) else "list"
    return "deletecollection" if verb == "delete" else verb


def _covers(allowed: str, path: str) -> bool:
    """Match as kube-apiserver's path authorizer does (pkg/authorization/path/path.go)."""
    pattern, asked = allowed.lstrip("/"), path.lstrip("/")
    return asked.startswith(pattern[:-1]) if pattern.endswith("*") else asked == pattern


async def _answer_not_served(_request: ApiRequest) -> Answer:
    return status.not_served()


async def _answer_read_only(request: ApiRequest) -> Answer:
    return status.document_method_not_allowed(request.method, request.path)


async def _answer_unsupported(request: ApiRequest, *, verb: str) -> Answer:
    return status.method_not_allowed(verb or request.method, allow="GET, HEAD")
