"""The gateway's API described in OpenAPI, versions 2 and 3.

The hub merges the v2 document of every aggregated API server into its own and renames definitions that
differ from those it has, so nothing here can change what the hub says of its own kinds. Version 3 documents
are not merged: the hub relays this server's one group version untouched, `kubectl explain` reads that.

Source:
    kubernetes/kube-openapi, pkg/handler and pkg/handler3; kubernetes/kube-aggregator,
    pkg/controllers/openapi/aggregator.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from cluster_gateway_facade import status
from cluster_gateway_facade.handlers import schemas
from cluster_gateway_facade.handlers.discovery import GROUP_VERSION
from cluster_gateway_facade.handlers.rendering import Document
from cluster_gateway_facade.negotiation import JSON, parse_accept
from cluster_gateway_facade.status import CLUSTER_RESOURCE

if TYPE_CHECKING:
    from cluster_gateway_facade.exchange import Answer, ApiRequest
    from cluster_gateway_facade.handlers.schemas import Schema

_INFO: Final = {"title": "Cluster Gateway", "version": "1.0.0"}
_V2: Final = schemas.Dialect(prefix="#/definitions/", wrap=False)
_V3: Final = schemas.Dialect(prefix="#/components/schemas/", wrap=True)
_COLLECTION: Final = f"/apis/{GROUP_VERSION}/{CLUSTER_RESOURCE}"
_OBJECT_TYPES: Final = ("application/json", "application/yaml")
# The names that code generators give to the methods; kube-openapi's own for CONNECT resources.
_PROXY_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_LIST_PARAMETERS: Final = {
    "labelSelector": ("Only clusters whose labels match.", "string"),
    "fieldSelector": ("Only clusters whose metadata.name or metadata.namespace match.", "string"),
    "limit": ("Most clusters in one answer.", "integer"),
    "continue": ("Where the last answer left off.", "string"),
}
_TAG: Final = "clusterCoreOamDev_v1alpha1"
_OPERATION_SUFFIX: Final = "ClusterCoreOamDevV1alpha1ClusterGateway"
_UNAUTHORIZED: Final = {"description": "Unauthorized"}
# One year, the most that RFC 9111 suggests; what kube-openapi says of a document asked for by its hash.
_IMMUTABLE_SPAN: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAPIDocument:
    """One OpenAPI path.

    Attributes:
        document: The JSON.
        hashed: Whether its root names it by its hash, so that a caller may keep it for ever.
    """

    document: Document
    hashed: bool = False

    async def answer(self, request: ApiRequest) -> Answer:
        """Answer with the document.

        A caller that names the current hash may keep the answer for ever. One that names another is
        given the current document, to be kept by nobody: kube-openapi redirects it to the current hash,
        but the hub's aggregator refuses redirects (CVE-2022-3172). Parameters of Accept mean nothing here.
        """
        accept = request.headers.get("Accept") or "*/*"
        if not any(wanted.matches(JSON) for wanted in parse_accept(accept)):
            return status.not_acceptable((JSON,))
        if not self.hashed or request.parameter("hash") != self.document.hash:
            return self.document.answer(request, ("Cache-Control", "no-cache, private"))
        expires = format_datetime(datetime.now(UTC) + _IMMUTABLE_SPAN, usegmt=True)
        return self.document.answer(request, ("Cache-Control", "public, immutable"), ("Expires", expires))


def openapi_documents() -> dict[str, OpenAPIDocument]:
    """Write every OpenAPI document.

    Returns:
        By path.
    """
    group_path = f"apis/{GROUP_VERSION}"
    v3 = Document.of(_document_v3(), media_type=JSON)
    root = {"paths": {group_path: {"serverRelativeURL": f"/openapi/v3/{group_path}?hash={v3.hash}"}}}
    return {
        "/openapi/v2": OpenAPIDocument(document=Document.of(_document_v2(), media_type=JSON)),
        "/openapi/v3": OpenAPIDocument(document=Document.of(root, media_type=JSON)),
        f"/openapi/v3/{group_path}": OpenAPIDocument(document=v3, hashed=True),
    }


def _document_v2() -> Schema:
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": _paths(_V2Writer()),
        "definitions": schemas.definitions(_V2),
    }


def _document_v3() -> Schema:
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": _paths(_V3Writer()),
        "components": {"schemas": schemas.definitions(_V3)},
    }


class _V2Writer:
    """Operations as OpenAPI 2 writes them."""

    def parameter(self, where: str, name: str, description: str, kind: str = "string") -> Schema:
        required = {"required": True} if where == "path" else {}
        return {
            "name": name,
            "in": where,
            "description": description,
            "type": kind,
            "uniqueItems": True,
        } | required

    def operation(self, definition: str, media_types: tuple[str, ...]) -> Schema:
        schema = _V2.ref(definition) if definition else {"type": "string"}
        return {
            "schemes": ["https"],
            "consumes": ["*/*"],
            "produces": list(media_types),
            "responses": {"200": {"description": "OK", "schema": schema}, "401": _UNAUTHORIZED},
        }


class _V3Writer:
    """Operations as OpenAPI 3 writes them."""

    def parameter(self, where: str, name: str, description: str, kind: str = "string") -> Schema:
        required = {"required": True} if where == "path" else {}
        schema = {"type": kind, "uniqueItems": True}
        return {"name": name, "in": where, "description": description, "schema": schema} | required

    def operation(self, definition: str, media_types: tuple[str, ...]) -> Schema:
        schema = _V3.ref(definition) if definition else {"type": "string"}
        content = {media_type: {"schema": schema} for media_type in media_types}
        return {"responses": {"200": {"description": "OK", "content": content}, "401": _UNAUTHORIZED}}


def _paths(writer: _V2Writer | _V3Writer) -> dict[str, Schema]:
    name = writer.parameter("path", "name", "Name of the cluster.")
    below = writer.parameter("path", "path", "Path at the cluster's API server.")
    path = writer.parameter("query", "path", "Path at the cluster's API server.")
    proxy = f"{_COLLECTION}/{{name}}/proxy"
    return {
        _COLLECTION: {
            "get": _read(writer, "list", schemas.CLUSTER_GATEWAY_LIST),
            "parameters": [
                writer.parameter("query", key, description, kind)
                for key, (description, kind) in _LIST_PARAMETERS.items()
            ],
        },
        f"{_COLLECTION}/{{name}}": {
            "get": _read(writer, "read", schemas.CLUSTER_GATEWAY),
            "parameters": [name],
        },
        proxy: _proxy(writer, "Proxy", [name, path]),
        f"{proxy}/{{path}}": _proxy(writer, "ProxyWithPath", [name, below, path]),
    }


def _read(writer: _V2Writer | _V3Writer, word: str, definition: str) -> Schema:
    return writer.operation(definition, _OBJECT_TYPES) | {
        "description": f"{word} ClusterGateway objects" if word == "list" else f"{word} one ClusterGateway",
        "tags": [_TAG],
        "operationId": f"{word}{_OPERATION_SUFFIX}",
        "x-kubernetes-action": "list" if word == "list" else "get",
        "x-kubernetes-group-version-kind": schemas.kind_extension("ClusterGateway"),
    }


def _proxy(writer: _V2Writer | _V3Writer, suffix: str, parameters: list[Schema]) -> Schema:
    """Describe one proxy path.

    The action "connect" is what makes generic clients, kubectl's among them, pass it over.
    """
    operations: Schema = {
        method: writer.operation("", ("*/*",))
        | {
            "description": f"connect {method.upper()} requests to the cluster",
            "tags": [_TAG],
            "operationId": f"connect{method.capitalize()}{_OPERATION_SUFFIX}{suffix}",
            "x-kubernetes-action": "connect",
            "x-kubernetes-group-version-kind": schemas.kind_extension("ClusterGatewayProxyOptions"),
        }
        for method in _PROXY_METHODS
    }
    return operations | {"parameters": parameters}
