"""Our reading of requests against kube-apiserver's own code, on many made-up requests (RI)."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from tests.core.routing.test_request_info import listed_requests

from cluster_gateway_core.routing.request_info import parse_request_info
from cluster_gateway_facade.exchange import ApiRequest
from cluster_gateway_facade.handlers.router import _resource_attributes

_ORACLE = Path(__file__).parents[2] / "oracle"
_BUILD_SECONDS = 600
_REQUESTS = 20_000

_SEGMENTS = (
    *("api", "apis", "v1", "apps", "v1beta1", "namespaces", "ns1", "pods", "p1", "status", "finalize", "exec", "log"),
    *("proxy", "watch", "", "nodes", "%2e", "a%2fb", "%20", "deployments", "scale", "kube-system", "badprefix", "\xe9"),
)
_STARTS = ("", "/api/v1", "/apis/apps/v1", "/api/v1/watch", "/api/v1/namespaces/ns1", "/apis/apps/v1/namespaces/ns1")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO")
_QUERY = {
    # The name that a selector requires is forgotten where another parameter cannot be read; such lists are refused by
    # the API server itself, and are not among these.
    "watch": ("", "true", "1", "false", "0", "TRUE", "FALSE", "junk", "%zz", "a;b"),
    "%77atch": ("true", "false"),
    "fieldSelector": (
        *("metadata.name=x", "metadata.name%3Dx", "metadata.name!=x", "metadata.name==x", "", "a=b,c=d", "+"),
        *(
            "metadata.namespace=y,metadata.name=x",
            "metadata.name%3D%3Dx",
            "metadata.name=a%2Fb",
            "metadata.name=x%5C,y",
        ),
        *("metadata.name=x%5C,y", "metadata.name"),
        *("=x", "metadata.name=%2E", "metadata.name=x,metadata.name=y", "a;b", "%zz"),
    ),
    "labelSelector": ("a=b", "a", "!a"),
    "limit": ("10",),
    "pretty": ("true", ""),
}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks k8s.io/apiserver."""
    go = shutil.which("go")
    assert go is not None, "Go is needed to build the oracle: install it"
    program = tmp_path_factory.mktemp("oracle") / "oracle"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    subprocess.run([go, "build", "-o", program, "."], cwd=_ORACLE, env=environment, check=True, timeout=_BUILD_SECONDS)
    return program


def make_request(chance: random.Random) -> tuple[str, str]:
    path = chance.choice(_STARTS) + "/" + "/".join(chance.choices(_SEGMENTS, k=chance.randint(0, 6)))
    keys = chance.choices(tuple(_QUERY), k=chance.choice((0, 0, 1, 1, 2, 3)))
    pairs = [key if chance.random() < 0.1 else f"{key}={chance.choice(_QUERY[key])}" for key in keys]
    return chance.choice(_METHODS), path + ("?" + "&".join(pairs) if pairs else "")


def ask(oracle: Path, requests: list[tuple[str, str]]) -> list[dict[str, Any]]:
    lines = "\n".join(json.dumps({"method": method, "target": target}) for method, target in requests)
    answers = subprocess.run([oracle], input=lines, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in answers.stdout.splitlines()]


@pytest.mark.timeout(_BUILD_SECONDS + 60)
def test_requests_are_read_as_kube_apiserver_reads_them_ri(oracle: Path) -> None:
    """RI-1, RI-2, RI-3, RI-4, RI-5, RI-6: the listed examples, and many made up."""
    chance = random.Random(20261123)  # noqa: S311 - the same requests each time
    requests = [*listed_requests(), *(make_request(chance) for _ in range(_REQUESTS))]
    differences = [
        (request, expected, read)
        for request, expected in zip(requests, ask(oracle, requests), strict=True)
        if "error" not in expected and (read := dataclasses.asdict(parse_request_info(*request))) != expected
    ]
    assert differences[:5] == []


def read_by_facade(method: str, target: str) -> dict[str, Any] | None:
    """What the facade asks to be authorized before it answers; None for what is no resource."""
    raw_path, _, query = target.partition("?")
    request = ApiRequest(
        method=method, path=unquote(raw_path), query=[*parse_qsl(query, keep_blank_values=True)], headers={}
    )
    attributes = _resource_attributes(request, request.path.strip("/").split("/"))
    if attributes is None:
        return None
    return {
        "verb": attributes.verb,
        "api_group": attributes.group,
        "api_version": attributes.version,
        "resource": attributes.resource,
        "name": attributes.name,
        "subresource": attributes.subresource.partition("/")[0],
    }


@pytest.mark.timeout(_BUILD_SECONDS + 60)
def test_requests_for_the_gateway_itself_are_authorized_as_kube_apiserver_reads_them(oracle: Path) -> None:
    """RI-1, RI-4, RI-5 in the facade, which serves nothing in namespaces, behind `watch/` or to selectors by name."""
    chance = random.Random(20261125)  # noqa: S311 - the same requests each time
    made = (make_request(chance) for _ in range(_REQUESTS))
    apart = ("namespaces", "watch", "proxy", "fieldSelector", "%zz", ";")
    requests = [
        (method, target)
        for method, target in (*listed_requests(), *made)
        if not any(word in target.replace("watch=", "").replace("?watch", "?").replace("&watch", "&") for word in apart)
    ]
    assert len(requests) > 1000
    differences = []
    for request, expected in zip(requests, ask(oracle, requests), strict=True):
        if "error" in expected:
            continue
        read = read_by_facade(*request)
        wanted = {key: expected[key] for key in read or {}} if expected["is_resource_request"] else None
        if read != wanted:
            differences.append((request, expected, read))
    assert differences[:5] == []
