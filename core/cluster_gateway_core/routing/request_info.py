"""What a Kubernetes request asks for: verb and resource, as kube-apiserver would say.

Source: kubernetes/apiserver, pkg/endpoints/request/requestinfo.go, RequestInfoFactory.NewRequestInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

_VERBS: Final = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_SPECIAL_VERBS: Final = frozenset({"proxy", "watch"})
_NAMESPACE_SUBRESOURCES: Final = frozenset({"status", "finalize"})
_LONG_RUNNING_SUBRESOURCES: Final = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_RESOURCE_START: Final = 3
"""Fewest path segments of a resource request: `api/v1/pods`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """One request's attributes; the resource fields are empty where `is_resource_request` is false."""

    is_resource_request: bool
    verb: str
    path: str
    api_prefix: str = ""
    api_group: str = ""
    api_version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""

    @property
    def is_long_running(self) -> bool:
        """Whether it may last for ever, so that no time limit applies.

        Source: kubernetes/kubernetes, cmd/kube-apiserver/app/options, BasicLongRunningRequestCheck with the verbs
        watch and proxy and the subresources below.
        """
        return self.verb in _SPECIAL_VERBS or self.subresource in _LONG_RUNNING_SUBRESOURCES


def verb_of_method(method: str) -> str:
    """Return the verb of a method on a named object; empty for a method that has none."""
    return _VERBS.get(method, "")


def parse_request_info(method: str, target: str) -> RequestInfo:
    """Classify one request.

    Args:
        method: HTTP method in upper case.
        target: Path and query as on the wire.

    Returns:
        Its attributes. An unknown method has the verb "" on a resource, which no rule allows.
    """
    raw_path, _, query = target.partition("?")
    path = unquote(raw_path)
    parts = [part for part in path.strip("/").split("/")] if path.strip("/") else []
    plain = RequestInfo(is_resource_request=False, verb=method.lower(), path=path)
    if len(parts) < _RESOURCE_START or parts[0] not in ("api", "apis"):
        return plain
    prefix, rest, group = parts[0], parts[1:], ""
    if prefix == "apis":
        if len(rest) < _RESOURCE_START:
            return plain
        group, rest = rest[0], rest[1:]
    version, rest = rest[0], rest[1:]
    verb = _VERBS.get(method, "")
    special = rest[0] in _SPECIAL_VERBS
    if special:
        if len(rest) == 1:  # "/api/v1/watch" names no resource
            return plain
        verb, rest = rest[0], rest[1:]
    namespace, rest = _split_namespace(rest)
    resource = rest[0] if rest else ""
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 and verb != "proxy" else ""  # noqa: PLR2004 - resource/name/subresource
    if not name and not special:
        name, verb = _collection_verb(verb, query)
    return RequestInfo(
        is_resource_request=True,
        verb=verb,
        path=path,
        api_prefix=prefix,
        api_group=group,
        api_version=version,
        namespace=namespace,
        resource=resource,
        subresource=subresource,
        name=name,
    )


def _split_namespace(parts: list[str]) -> tuple[str, list[str]]:
    """Take `namespaces/<name>` off where it is a scope and not the object itself."""
    if parts[0] != "namespaces" or len(parts) == 1:
        return "", parts
    namespace = parts[1]
    if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:  # noqa: PLR2004
        return namespace, parts[2:]
    return namespace, parts


def _collection_verb(verb: str, query: str) -> tuple[str, str]:
    """Name and verb of a request without a name: lists, watches and deletions of a collection."""
    if verb == "delete":
        return "", "deletecollection"
    if verb != "get":
        return "", verb
    parameters = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    watch = parameters.get("watch")
    name = _selected_name(parameters.get("fieldSelector", ""))
    # strconv.ParseBool is not used: everything but "false" and "0" turns a watch on.
    watching = watch is not None and watch.lower() not in ("false", "0")
    return name, "watch" if watching else "list"


def _selected_name(field_selector: str) -> str:
    for requirement in field_selector.split(","):
        key, separator, value = requirement.partition("=")
        if separator and key == "metadata.name" and not value.startswith("!"):
            return value.removeprefix("=")
    return ""
