"""RI-*: the table of kubernetes/apiserver, pkg/endpoints/request/requestinfo_test.go, and what it leaves out."""

from __future__ import annotations

import pytest

from cluster_gateway_core.routing.request_info import parse_request_info, verb_of_method

# method, target, verb, group, version, namespace, resource, subresource, name
_READS = [  # RI-1
    ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
    ("GET", "/api/v1/namespaces/other", "get", "", "v1", "other", "namespaces", "", "other"),
    ("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("HEAD", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
]
_SPECIAL_VERBS = [  # RI-2
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo/sub/path", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=junk", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/watch/namespaces/other/pods", "watch", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods?watch=1", "watch", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods?watch=0", "list", "", "v1", "other", "pods", "", ""),
]
_SUBRESOURCES = [  # RI-3
    ("GET", "/api/v1/namespaces/other/pods/foo/status", "get", "", "v1", "other", "pods", "status", "foo"),
    ("GET", "/api/v1/namespaces/other/pods/foo/proxy/subpath", "get", "", "v1", "other", "pods", "proxy", "foo"),
    ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "v1", "other", "namespaces", "finalize", "other"),
    ("PUT", "/api/v1/namespaces/other/status", "update", "", "v1", "other", "namespaces", "status", "other"),
]
_WRITES = [  # RI-4
    ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch", "", "v1", "other", "pods", "", "foo"),
    ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "v1", "other", "pods", "", "foo"),
    ("POST", "/api/v1/namespaces/other/pods", "create", "", "v1", "other", "pods", "", ""),
    ("PUT", "/api/v1/namespaces/other/pods/foo", "update", "", "v1", "other", "pods", "", "foo"),
    ("DELETE", "/api/v1/nodes", "deletecollection", "", "v1", "", "nodes", "", ""),
    ("DELETE", "/api/v1/namespaces", "deletecollection", "", "v1", "", "namespaces", "", ""),
    ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", ""),
    ("DELETE", "/apis/extensions/v1/namespaces/o/pods", "deletecollection", "extensions", "v1", "o", "pods", "", ""),
    ("POST", "/apis/extensions/v1/namespaces/o/pods", "create", "extensions", "v1", "o", "pods", "", ""),
    ("POST", "/apis/extensions/v1beta3/namespaces/o/pods", "create", "extensions", "v1beta3", "o", "pods", "", ""),
    ("OPTIONS", "/api/v1/pods", "", "", "v1", "", "pods", "", ""),
    ("LIST", "/api/v1/pods", "", "", "v1", "", "pods", "", ""),
]
_GROUPS = [  # RI-5
    ("GET", "/api/version/resource", "list", "", "version", "", "resource", "", ""),
    ("GET", "/api/version/resource/name/sub", "get", "", "version", "", "resource", "sub", "name"),
    ("GET", "/apis/batch/v1/job", "list", "batch", "v1", "", "job", "", ""),
    ("GET", "/apis/batch/v1/job/foo", "get", "batch", "v1", "", "job", "", "foo"),
    ("GET", "/apis/batch/v1/job/foo/scale", "get", "batch", "v1", "", "job", "scale", "foo"),
]
_BEYOND = [
    ("POST", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/namespaces/o/pods/", "list", "", "v1", "o", "pods", "", ""),
    ("GET", "/api/v1/namespaces/o%2Fpods/f", "get", "", "v1", "o", "pods", "", "f"),
    ("GET", "/api/v1/namespaces/o/p%20q", "list", "", "v1", "o", "p q", "", ""),
]
RESOURCES = [*_READS, *_SPECIAL_VERBS, *_SUBRESOURCES, *_WRITES, *_GROUPS, *_BEYOND]
NON_RESOURCES = [
    "",
    "/",
    "/api",
    "/api/v1",
    "/api/v1/",
    "/apis",
    "/apis/group",
    "/apis/group/version",
    "/apis/group/version/",
    "/apis/version/resource",
    "/badprefix/version/resource",
    "/not-api/version/resource",
    "/api/v1/watch",
    "/healthz",
]
NAMED_BY_SELECTOR = [
    ("fieldSelector=metadata.name=name1", "name1", "list"),
    ("fieldSelector=metadata.name%3Dname1", "name1", "list"),
    ("watch=true&fieldSelector=metadata.name=name1", "name1", "watch"),
    ("fieldSelector=foo=bar&labelSelector=baz=qux", "", "list"),
    ("fieldSelector=metadata.name=name1,foo", "", "list"),
    ("fieldSelector=metadata.name=name1,foo&watch=true", "", "watch"),
    ("fieldSelector=metadata.name=name1,foo&watch=false", "", "list"),
    ("fieldSelector=metadata.name=foo&fieldSelector=metadata.name=bar", "foo", "list"),
    ("fieldSelector=metadata.name==two", "two", "list"),
    ("fieldSelector=metadata.name!=two", "", "list"),
    ("fieldSelector=metadata.name=!two", "!two", "list"),
    ("fieldSelector=a=b,metadata.name=x,", "x", "list"),
    ("fieldSelector=metadata.name=z,metadata.name=a", "a", "list"),  # Go sorts the terms
    (r"fieldSelector=metadata.name=a%5C,b", "a,b", "list"),
    (r"fieldSelector=metadata.name=a%5Cb", "", "list"),
    ("fieldSelector=metadata.name=a%5C", "", "list"),
    ("fieldSelector=metadata.name=a=b", "", "list"),
    ("fieldSelector=metadata.name=..", "", "list"),
    ("fieldSelector=metadata.name=a/b", "", "list"),
    ("fieldSelector=metadata.name=a%2525", "", "list"),
    ("fieldSelector=", "", "list"),
]
NOT_NAMED_BY_SELECTOR = [
    ("GET", "/apis/g/v/watch/resource?fieldSelector=metadata.name=foo", ""),
    ("GET", "/apis/g/v/watch/resource/name?fieldSelector=metadata.name=foo", "name"),
    ("GET", "/apis/g/v/resource/name?fieldSelector=metadata.name=foo", "name"),
    ("DELETE", "/apis/g/v/resource?fieldSelector=metadata.name=foo", ""),
]


def listed_requests() -> list[tuple[str, str]]:
    """Every request that this module lists, as method and target."""
    return [
        *((method, target) for method, target, *_ in RESOURCES),
        *(("GET", target) for target in NON_RESOURCES if target),
        *(("GET", f"/apis/group/version/resource?{query}") for query, *_ in NAMED_BY_SELECTOR),
        *((method, target) for method, target, _ in NOT_NAMED_BY_SELECTOR),
    ]


@pytest.mark.parametrize(
    ("method", "target", "verb", "group", "version", "namespace", "resource", "subresource", "name"), RESOURCES
)
def test_resource_request_is_read_as_kube_apiserver_reads_it(  # noqa: PLR0913, PLR0917
    method: str,
    target: str,
    verb: str,
    group: str,
    version: str,
    namespace: str,
    resource: str,
    subresource: str,
    name: str,
) -> None:
    info = parse_request_info(method, target)

    assert info.is_resource_request
    assert info.api_prefix == ("apis" if target.startswith("/apis") else "api")
    assert (info.verb, info.api_group, info.api_version) == (verb, group, version)
    assert (info.namespace, info.resource, info.subresource, info.name) == (namespace, resource, subresource, name)


@pytest.mark.parametrize("target", NON_RESOURCES)
def test_other_paths_are_no_resource_requests(target: str) -> None:
    """RI-5."""
    info = parse_request_info("GET", target)

    assert not info.is_resource_request
    assert (info.verb, info.path) == ("get", target)


@pytest.mark.parametrize(
    ("query", "verb"),
    [
        ("watch", "watch"),
        ("watch=", "watch"),
        ("watch=junk", "watch"),
        ("watch=True", "watch"),
        ("watch=FALSE", "list"),
        ("watch=0&watch=1", "list"),
        ("watch=1&watch=0", "watch"),
        ("w%61tch=1", "watch"),
        # net/url drops pairs with a semicolon or a bad escape.
        ("watch=1;limit=2", "list"),
        ("watch=%zz", "list"),
        ("watch=%zz&watch=1", "watch"),
        ("&&watch=1", "watch"),
        ("Watch=1", "list"),
    ],
)
def test_watch_parameter_is_read_as_by_go(query: str, verb: str) -> None:
    """RI-2."""
    assert parse_request_info("GET", f"/api/v1/pods?{query}").verb == verb


def test_watch_parameter_counts_for_get_without_name_alone() -> None:
    assert parse_request_info("GET", "/api/v1/nodes/n?watch=1").verb == "get"
    assert parse_request_info("DELETE", "/api/v1/nodes?watch=1").verb == "deletecollection"


@pytest.mark.parametrize(("query", "name", "verb"), NAMED_BY_SELECTOR)
def test_name_is_taken_from_the_field_selector_as_by_go(query: str, name: str, verb: str) -> None:
    """RI-6."""
    info = parse_request_info("GET", f"/apis/group/version/resource?{query}")

    assert (info.name, info.verb) == (name, verb)


@pytest.mark.parametrize(("method", "target", "name"), NOT_NAMED_BY_SELECTOR)
def test_field_selector_names_nothing_elsewhere(method: str, target: str, name: str) -> None:
    """RI-6."""
    assert parse_request_info(method, target).name == name


@pytest.mark.parametrize(
    ("method", "target", "long_running"),
    [
        ("GET", "/api/v1/pods?watch=1", True),
        ("GET", "/api/v1/watch/pods", True),
        ("GET", "/api/v1/proxy/nodes/n", True),
        ("POST", "/api/v1/namespaces/d/pods/p/exec", True),
        ("GET", "/api/v1/namespaces/d/pods/p/log?follow=true", True),
        ("GET", "/api/v1/namespaces/d/pods/p/portforward", True),
        ("GET", "/api/v1/namespaces/d/pods/p/attach", True),
        ("GET", "/api/v1/namespaces/d/services/s/proxy/x", True),
        ("GET", "/debug/pprof/profile?seconds=300", True),
        ("GET", "/api/v1/pods", False),
        ("GET", "/api/v1/namespaces/exec", False),
        ("POST", "/api/v1/namespaces/d/pods", False),
        ("GET", "/healthz", False),
    ],
)
def test_long_running_requests_are_those_of_kube_apiserver(method: str, target: str, long_running: bool) -> None:  # noqa: FBT001
    assert parse_request_info(method, target).is_long_running is long_running


def test_unknown_method_has_no_verb() -> None:
    assert (verb_of_method("GET"), verb_of_method("DELETE"), verb_of_method("TRACE")) == ("get", "delete", "")
