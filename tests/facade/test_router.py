"""From a request to its handler and the review that it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.cluster_reader import FakeClusterReader, make_cluster

from cluster_gateway_facade.exchange import ApiRequest
from cluster_gateway_facade.handlers.probes import Check
from cluster_gateway_facade.handlers.router import Review, Router
from clustergateway.access.v1.access_service_pb2 import NonResourceAttributes, ResourceAttributes

if TYPE_CHECKING:
    from cluster_gateway_facade.exchange import Answer

GROUP = "cluster.core.oam.dev"
GROUP_VERSION = f"/apis/{GROUP}/v1alpha1"
COLLECTION = f"{GROUP_VERSION}/clustergateways"


@pytest.fixture
def router() -> Router:
    return Router(
        reader=FakeClusterReader(make_cluster("a")),
        release="0.1.0",
        liveness=(Check(name="loop", probe=lambda: None),),
        readiness=(Check(name="core", probe=lambda: "no core answers"),),
        always_allow_paths=("/healthz", "/readyz", "/livez", "/public/*"),
    )


def asked(path: str, method: str = "GET", *query: tuple[str, str]) -> ApiRequest:
    return ApiRequest(method=method, path=path, query=query)


async def answer(router: Router, request: ApiRequest) -> Answer:
    return await router.resolve(request).handler(request)


def clusters(verb: str, name: str = "", subresource: str = "") -> ResourceAttributes:
    return ResourceAttributes(
        verb=verb,
        group=GROUP,
        version="v1alpha1",
        resource="clustergateways",
        name=name,
        subresource=subresource,
    )


@pytest.mark.parametrize(
    ("method", "path", "query", "access", "code"),
    [
        ("GET", COLLECTION, [], Review.BY_CORE, 200),
        ("GET", f"{COLLECTION}/", [], Review.BY_CORE, 200),
        ("HEAD", COLLECTION, [], Review.BY_CORE, 200),
        ("GET", f"{COLLECTION}/a", [], Review.BY_CORE, 200),
        ("GET", f"{COLLECTION}/a", [("watch", "1")], Review.BY_CORE, 200),
        ("GET", f"{COLLECTION}/z", [], Review.BY_CORE, 404),
        ("GET", COLLECTION, [("watch", "false")], Review.BY_CORE, 200),
        ("GET", COLLECTION, [("watch", "0")], Review.BY_CORE, 200),
        ("GET", COLLECTION, [("watch", "true")], clusters("watch"), 405),
        ("GET", COLLECTION, [("watch", "")], clusters("watch"), 405),
        ("POST", COLLECTION, [], clusters("create"), 405),
        ("DELETE", COLLECTION, [], clusters("deletecollection"), 405),
        ("DELETE", f"{COLLECTION}/a", [], clusters("delete", "a"), 405),
        ("PUT", f"{COLLECTION}/a", [], clusters("update", "a"), 405),
        ("PATCH", f"{COLLECTION}/a", [], clusters("patch", "a"), 405),
        ("OPTIONS", f"{COLLECTION}/a", [], clusters("", "a"), 405),
        ("GET", f"{COLLECTION}/a/health", [], clusters("get", "a", "health"), 404),
        ("GET", f"{COLLECTION}/a/x/y", [], clusters("get", "a", "x/y"), 404),
        ("GET", f"{COLLECTION}/a//y", [], clusters("get", "a", "/y"), 404),
        ("GET", f"{COLLECTION}//a", [], clusters("list", "", "a"), 404),
        (
            "GET",
            f"{GROUP_VERSION}/virtualclusters",
            [],
            ResourceAttributes(verb="list", group=GROUP, version="v1alpha1", resource="virtualclusters"),
            404,
        ),
        (
            "GET",
            "/api/v1/pods",
            [],
            ResourceAttributes(verb="list", version="v1", resource="pods"),
            404,
        ),
    ],
)
async def test_resource_path(
    router: Router,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    access: Review | ResourceAttributes,
    code: int,
) -> None:
    request = asked(path, method, *query)
    assert router.resolve(request).access == access
    assert (await answer(router, request)).status == code


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/apis",
        "/apis/",
        f"/apis/{GROUP}",
        GROUP_VERSION,
        "/openapi/v2",
        "/openapi/v3",
        f"/openapi/v3{GROUP_VERSION}",
        "/version",
        "/version/",
    ],
)
async def test_document_needs_leave_for_its_path(router: Router, path: str) -> None:
    assert router.resolve(asked(path)).access == NonResourceAttributes(verb="get", path=path)
    assert (await answer(router, asked(path))).status == 200
    assert (await answer(router, asked(path, "HEAD"))).status == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/apis/other", "/apis/other/v1", "/api/v1", "/readyzz"])
async def test_unknown_path_is_not_found_and_yet_needs_leave(router: Router, path: str) -> None:
    assert router.resolve(asked(path)).access == NonResourceAttributes(verb="get", path=path)
    found = await answer(router, asked(path))
    assert (found.status, json.loads(found.body)["reason"]) == (404, "NotFound")


async def test_document_can_only_be_read(router: Router) -> None:
    request = asked("/apis", "POST")
    assert router.resolve(request).access == NonResourceAttributes(verb="post", path="/apis")
    found = await answer(router, request)
    assert (found.status, dict(found.headers)["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "access"),
    [
        ("/healthz", Review.NONE),
        ("/livez", Review.NONE),
        ("/readyz", Review.NONE),
        ("/public/x", Review.NONE),
        ("/readyz/core", NonResourceAttributes(verb="get", path="/readyz/core")),
        ("/readyz/", NonResourceAttributes(verb="get", path="/readyz/")),
    ],
)
def test_allowed_paths_need_no_review_and_others_do(
    router: Router, path: str, access: Review | NonResourceAttributes
) -> None:
    assert router.resolve(asked(path)).access == access


def test_allowed_paths_never_cover_resources() -> None:
    router = Router(reader=FakeClusterReader(), release="0.1.0", always_allow_paths=("/*",))
    assert router.resolve(asked(COLLECTION, "POST")).access == clusters("create")
    assert router.resolve(asked(COLLECTION)).access is Review.BY_CORE


@pytest.mark.parametrize(
    ("path", "code", "checks"),
    [
        ("/livez", 200, ["[+]ping ok", "[+]loop ok", "livez check passed"]),
        ("/healthz", 200, ["[+]ping ok", "[+]loop ok", "healthz check passed"]),
        ("/readyz", 500, ["[+]ping ok", "[-]core failed: no core answers", "readyz check failed"]),
    ],
)
async def test_each_probe_has_its_own_checks(router: Router, path: str, code: int, checks: list[str]) -> None:
    found = await answer(router, asked(path, "GET", ("verbose", "")))
    assert (found.status, found.body.decode().splitlines()) == (code, checks)


async def test_watch_is_refused_in_kubernetes_words(router: Router) -> None:
    found = await answer(router, asked(COLLECTION, "GET", ("watch", "true")))
    document: dict[str, Any] = json.loads(found.body)
    assert document["reason"] == "MethodNotAllowed"
    assert document["message"] == ('watch is not supported on resources of kind "clustergateways.cluster.core.oam.dev"')
    assert dict(found.headers)["Allow"] == "GET, HEAD"


async def test_version_is_semantic_and_the_gateways_own(router: Router) -> None:
    document = json.loads((await answer(router, asked("/version"))).body)
    assert document["gitVersion"] == "v0.1.0+cluster-gateway"
    assert (document["major"], document["minor"]) == ("0", "1")
