"""What a Kubernetes request asks for: verb and resource, as kube-apiserver would say.

Source: kubernetes/apiserver, pkg/endpoints/request/requestinfo.go, RequestInfoFactory.NewRequestInfo.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote, unquote_plus

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
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_TERM: Final = re.compile(r"(?:\\.|[^,\\])*\\?", re.DOTALL)
_OPERATOR: Final = re.compile("!=|==?")
_VALUE: Final = re.compile(r"(?:\\[\\,=]|[^\\,=])*", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
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

        Source: kubernetes/apiserver, pkg/server/filters/longrunning.go, BasicLongRunningRequestCheck, with the verbs
        watch and proxy and the subresources below, as kube-apiserver calls it.
        """
        if self.verb in _SPECIAL_VERBS or self.subresource in _LONG_RUNNING_SUBRESOURCES:
            return True
        return not self.is_resource_request and self.path.startswith("/debug/pprof/")


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
    parts = path.strip("/").split("/")
    plain = RequestInfo(is_resource_request=False, verb=method.lower(), path=path)
    if len(parts) < _RESOURCE_START or parts[0] not in ("api", "apis"):
        return plain
    prefix, rest, group = parts[0], parts[1:], ""
    if prefix == "apis":
        if len(rest) < _RESOURCE_START:
            return replace(plain, api_prefix=prefix)
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
    watch = _parameter(query, "watch")
    name = parse_selected_name(_parameter(query, "fieldSelector") or "")
    # strconv.ParseBool is not used: everything but "false" and "0" turns a watch on.
    watching = watch is not None and watch.lower() not in ("false", "0")
    return name, "watch" if watching else "list"


def _parameter(query: str, name: str) -> str | None:
    """First value of a query parameter, as net/url reads it: pairs with a semicolon or a bad escape do not count."""
    for pair in query.split("&"):
        if not pair or ";" in pair or _BAD_ESCAPE.search(pair):
            continue
        key, _, value = pair.partition("=")
        if unquote_plus(key) == name:
            return unquote_plus(value)
    return None


def parse_selected_name(field_selector: str) -> str:
    """Name that a field selector requires; empty for none, or where the selector is not valid.

    Other parameters that the API server cannot read make it forget the name too; it then refuses the list itself.

    Source: kubernetes/apimachinery, pkg/fields/selector.go, ParseSelector and RequiresExactMatch.
    """
    names: list[str] = []
    for term in sorted(_TERM.findall(field_selector)):
        match = _OPERATOR.search(term)
        if match is None:
            if term:
                return ""
            continue
        value = term[match.end() :]
        if _VALUE.fullmatch(value) is None:
            return ""
        if term[: match.start()] == "metadata.name" and match[0] != "!=":
            names.append(_ESCAPED.sub(r"\1", value))
    return names[0] if names and _is_path_segment_name(names[0]) else ""


def _is_path_segment_name(name: str) -> bool:
    """Source: kubernetes/apimachinery, pkg/api/validate/content, IsPathSegmentName."""
    return name not in (".", "..") and "/" not in name and "%" not in name
