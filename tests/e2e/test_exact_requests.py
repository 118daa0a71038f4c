"""What a cluster gets is what the client sent, by each of the two ways."""

from __future__ import annotations

import gzip
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import pytest
from tests.support.routes import CLUSTER_TOKEN, scripted_route
from tests.support.scripted_cluster import Answer

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage
    from tests.support.received_request import ReceivedRequest
    from tests.support.routes import Route

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer_ok(request: ReceivedRequest) -> bytes:
    return _OK


@pytest.fixture(autouse=True)
def _answers(request: pytest.FixtureRequest) -> None:
    for name in ("route", "facade_route"):
        if name in request.fixturenames:
            request.getfixturevalue(name).cluster.otherwise = (Answer(answer_ok),)


# The hub parses the query and writes it anew, sorted by key; these are in that form already (AG-10).
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        pytest.param("GET", "/", b"", id="RT-1"),
        pytest.param("GET", "/a/very/deep/path/of/nine/or/ten/segments", b"", id="RT-2"),
        pytest.param("POST", "/some/path/?param1=value%2F1&param2=value%252", b"some body", id="RT-3"),
        pytest.param("PUT", "/some/path?a=1&a=2&b=&c=x+y", b"\x00\xff\r\n", id="RT-4 and bytes"),
        pytest.param("PATCH", "/api/v1/namespaces/default?fieldManager=e2e", b"[]", id="PATCH"),
        pytest.param("DELETE", "/api/v1/namespaces/default/pods", b"{}", id="DELETE with a body"),
        pytest.param("DELETE", "/api/v1/namespaces/default/pods/a%20b%22%3C%3E%E2%82%AC", b"", id="escapes"),
        pytest.param("OPTIONS", "/api", b"", id="OPTIONS"),
    ],
)
async def test_method_target_and_body_arrive_as_sent(route: Route, method: str, target: str, body: bytes) -> None:
    """RT-1, RT-2, RT-3, RT-4."""
    headers = ("X-Custom: first", "X-Custom: second", "X-Other: caf\xe9\tx")
    response = await route.ask(method, target, *headers, body=body)
    received = await route.received()
    assert (response.status, response.body) == (200, b"ok")
    assert (received.method, received.target, received.body) == (method.encode(), target.encode(), body)
    assert received.values(b"X-Custom") == [b"first", b"second"]
    assert received.values(b"X-Other") == [b"caf\xe9\tx"]
    assert len(route.cluster.requests) == 1


@pytest.mark.parametrize(
    "target", ["/some/path/?param1=value/1&param2=value%2", "/a?b=%zz&;x=1", "/?", "/a?b?c=d//..", "/a?z=1&a=2&z"]
)
async def test_query_is_nobodys_business_at_the_facade(facade_route: Route, target: str) -> None:
    """RT-3 as upstream has it: the hub would drop the malformed pair."""
    assert (await facade_route.ask("GET", target)).status == 200
    assert (await facade_route.received()).target == target.encode()


async def test_every_header_line_arrives_in_order_and_as_spelled(facade_route: Route) -> None:
    """RT-4. Go's servers, and so the hub, sort and respell them."""
    headers = (
        "aCCept: a",
        "X-One: 1",
        "x-one: 2",
        "X-Empty:",
        "User-Agent: me/1 (x)",
        "X-ONE: 3",
        "!#$%&'*+-.^_`|~: x",
    )
    await facade_route.ask("GET", "/api", *headers, "Audit-Id: mine")
    received = await facade_route.received()
    port = facade_route.cluster.port
    assert received.headers == [
        (b"Host", b"127.0.0.1:%d" % port),
        (b"Authorization", b"Bearer " + CLUSTER_TOKEN),
        (b"aCCept", b"a"),
        (b"X-One", b"1"),
        (b"x-one", b"2"),
        (b"X-Empty", b""),
        (b"User-Agent", b"me/1 (x)"),
        (b"X-ONE", b"3"),
        (b"!#$%&'*+-.^_`|~", b"x"),
        (b"Audit-Id", b"mine"),
        (b"X-Forwarded-For", b"127.0.0.1"),
    ]


@pytest.mark.parametrize("base_path", ["/base", "/base/"])
@pytest.mark.parametrize("target", ["/api", "/api/", "/"])
async def test_the_endpoints_path_comes_first_once(stage: Stage, gateway: Gateway, base_path: str, target: str) -> None:
    """RT-5."""
    async with scripted_route(stage, gateway, "facade", base_path=base_path) as route:
        route.cluster.otherwise = (Answer(answer_ok),)
        await route.ask("GET", target)
        assert (await route.received()).target == b"/base" + target.encode()


@pytest.mark.parametrize("path", ["/apis/~!$&'()*+,;=:@-._", "/a%3A%3b%20%e2%82%ac/%41", "/a%3F%23b"])
async def test_escapes_stay_at_the_facade_and_keep_their_meaning_at_the_hub(route: Route, path: str) -> None:
    """AG-10: the hub decodes the path and encodes it in its own way."""
    assert (await route.ask("GET", path)).status == 200
    target = (await route.received()).target
    assert unquote_to_bytes(target) == unquote_to_bytes(path)
    assert target == path.encode() or not route.is_raw


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("query", ["", "?a=b"])
async def test_an_empty_path_is_the_clusters_root(route: Route, method: str, query: str) -> None:
    """RT-7: nothing is redirected."""
    response = await route.ask(method, query)
    assert response.status == 200
    assert (await route.received()).target == b"/" + query.encode()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("size", [1, 300_000])
async def test_framing_and_encoding_of_a_body_stay(route: Route, chunked: bool, packed: bool, size: int) -> None:  # noqa: FBT001
    """RT-8."""
    data = os.urandom(size)
    body = gzip.compress(data) if packed else data
    headers = ["Content-Type: application/octet-stream", *(["Content-Encoding: gzip"] if packed else [])]
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    async with route.connect() as client:
        await client.send(route.head("POST", "/api", *headers, framing) + sent)
        assert (await client.response()).status == 200
    received = await route.received()
    assert received.body == body
    assert received.chunked is chunked
    assert received.values(b"Content-Encoding") == ([b"gzip"] if packed else [])
    assert received.values(b"Content-Length") == ([] if chunked else [b"%d" % len(body)])
    assert received.values(b"TE") == []


async def test_an_empty_body_has_the_length_that_it_was_given(facade_route: Route) -> None:
    """RT-8: a length only when known."""
    await facade_route.ask("POST", "/a")
    await facade_route.ask("POST", "/b", "Content-Length: 0")
    first, second = await facade_route.received(0), await facade_route.received(1)
    assert (first.values(b"Content-Length"), first.chunked) == ([], False)
    assert second.values(b"Content-Length") == [b"0"]


async def test_addresses_are_one_line_and_nothing_else_of_the_hop_is_told(route: Route) -> None:
    """RT-13: X-Forwarded-{Uri,Host,Proto} are the hub's to the gateway, and end there."""
    forged = (
        "X-Forwarded-Uri: /evil?<script>",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: gopher",
        "Forwarded: for=x",
    )
    await route.ask("GET", "/api", *forged, "X-Forwarded-For: 192.0.2.1")
    received = await route.received()
    names = {name.lower() for name, _ in received.headers}
    assert names.isdisjoint({b"x-forwarded-uri", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded"})
    (addresses,) = received.values(b"X-Forwarded-For")
    assert addresses.endswith(b", 127.0.0.1") or addresses == b"127.0.0.1"
    if route.is_raw:
        assert addresses == b"192.0.2.1, 127.0.0.1"


async def test_the_audit_id_is_one_and_the_hubs(route: Route) -> None:
    """RT-18: as kube-apiserver's WithAuditInit, which takes the caller's and makes one only where there is none."""
    response = await route.ask("GET", "/api", "Audit-ID: 11111111-2222-3333-4444-555555555555")
    received = await route.received()
    assert received.values(b"Audit-Id") == [b"11111111-2222-3333-4444-555555555555"]
    assert response.status == 200


async def test_a_request_without_audit_id_gets_one(route: Route) -> None:
    """RT-18."""
    await route.ask("GET", "/api")
    await route.ask("GET", "/api")
    first, second = await route.received(0), await route.received(1)
    ids = first.values(b"Audit-Id") + second.values(b"Audit-Id")
    assert len(set(ids)) == 2
    assert all(re.fullmatch(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value) for value in ids)


async def test_the_trace_goes_on(route: Route) -> None:
    """RT-18, AG-8: the trace's id stays; the hub may put a span of its own in between."""
    await route.ask("GET", "/api", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    (traceparent,) = (await route.received()).values(b"traceparent")
    assert re.fullmatch(rb"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-0[01]", traceparent)


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("dryRun=All", "dryRun=All"),
        ("__dryRun=All", "dryRun=All"),
        ("__dryRun=All&fieldManager=x", "dryRun=All&fieldManager=x"),
        ("dryRun=All&dryRun=All", "dryRun=All&dryRun=All"),
        ("__dryRun=All&__dryRun=Some", "dryRun=All&dryRun=Some"),
        ("__dryRun=All&dryRun=", "dryRun=All&dryRun="),
        ("%5F%5FdryRun=All", "dryRun=All"),
        ("_%5fdryRu%6E=All", "dryRun=All"),
        ("a=__dryRun&x__dryRun=All", "a=__dryRun&x__dryRun=All"),
    ],
)
async def test_a_dry_run_stays_one(route: Route, sent: str, arrives: str) -> None:
    """RT-19. `__dryRun` is how clients of the original carry it; lost, the cluster would write for real."""
    await route.ask("POST", f"/api/v1/namespaces/default/pods?{sent}", body=b"{}")
    target = (await route.received()).target
    assert target == f"/api/v1/namespaces/default/pods?{arrives}".encode()


_SERVICE = "/api/v1/namespaces/default/services/web/proxy"


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/api/../apis", id="RT-20"),
        pytest.param("/api/./v1", id="RT-20 single"),
        pytest.param("/api/..", id="RT-20 end"),
        pytest.param("/api/%2e%2e/apis", id="RT-21"),
        pytest.param("/api/%2E./apis", id="RT-21 mixed"),
        pytest.param("/api/%252e%252e/apis", id="RT-22"),
        pytest.param(f"{_SERVICE}/a/../../../secrets", id="RT-20 behind proxy"),
        pytest.param(f"{_SERVICE}/%252e%252e/a", id="RT-22 behind proxy"),
        pytest.param("/api/%5c/apis", id="RT-24"),
        pytest.param("/api/\\/apis", id="RT-24 plain"),
        pytest.param("/api/v1/a%00b", id="RT-25"),
        pytest.param("/api/v1/a%0d%0ab", id="RT-26"),
        pytest.param("/api//v1", id="RT-27"),
    ],
)
async def test_path_that_can_be_read_two_ways_is_refused(route: Route, target: str) -> None:
    """RT-20, RT-21, RT-22, RT-24, RT-25, RT-26, RT-27."""
    response = await route.ask("GET", target)
    assert response.status == 400, response
    assert route.cluster.connections == []
    if route.is_raw:
        assert response.json()["reason"] == "BadRequest"


async def test_encoded_slash_never_reaches_the_api(route: Route) -> None:
    """RT-23: refused at the facade. The hub decodes it before it authorizes and sends, so there it is a plain one."""
    response = await route.ask("GET", "/api%2fv1/namespaces%2Fdefault")
    if route.is_raw:
        assert response.status == 400
        assert route.cluster.connections == []
    else:
        assert (await route.received()).target == b"/api/v1/namespaces/default"


@pytest.mark.parametrize("target", [f"{_SERVICE}//a//b", f"{_SERVICE}/a%2Fb%5C", f"{_SERVICE}/a/", f"{_SERVICE}/"])
async def test_application_behind_a_services_proxy_gets_its_path_as_sent(facade_route: Route, target: str) -> None:
    """RT-23, RT-24, RT-27, RT-28."""
    assert (await facade_route.ask("GET", target)).status == 200
    assert (await facade_route.received()).target == target.encode()


@pytest.mark.parametrize("target", ["/api/", "/apis/apps/v1/", f"{_SERVICE}/a/", "/api/v1/?a=b"])
async def test_trailing_slash_stays(route: Route, target: str) -> None:
    """RT-28."""
    assert (await route.ask("GET", target)).status == 200
    assert (await route.received()).target == target.encode()


@pytest.mark.parametrize("size", [8, 64, 250])
async def test_long_targets_arrive_whole(route: Route, size: int) -> None:
    """RT-29."""
    target = "/api/v1/pods?labelSelector=" + "a" * size * 1024
    assert (await route.ask("GET", target)).status == 200
    assert (await route.received()).target == target.encode()


async def test_longer_targets_are_refused(route: Route) -> None:
    """RT-29."""
    response = await route.ask("GET", "/api/v1/pods?labelSelector=" + "a" * 256 * 1024)
    assert response.status in (400, 414, 431)
    assert response.json()["kind"] == "Status"
    assert route.cluster.connections == []


async def test_absent_headers_stay_absent(route: Route) -> None:
    """RT-30. Through the hub Go's transport asks for gzip by itself, and unpacks it by itself."""
    await route.ask("POST", "/api", body=b"x")
    received = await route.received()
    names = {name.lower() for name, _ in received.headers}
    assert names.isdisjoint({b"accept", b"content-type", b"content-encoding", b"te", b"connection"})
    if route.is_raw:
        assert names == {b"host", b"authorization", b"audit-id", b"x-forwarded-for", b"content-length"}


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.kubernetes.protobuf",
        "application/vnd.kubernetes.protobuf;stream=watch",
        "application/cbor",
        "application/cbor-seq",
        "application/apply-patch+yaml",
        "application/octet-stream",
    ],
)
async def test_bodies_are_opaque_both_ways(route: Route, media_type: str) -> None:
    """RT-31."""
    sent, returned = bytes(range(256)) * 40, b"k8s\0" + bytes(range(255, -1, -1)) * 40

    def answer(request: ReceivedRequest) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        return head % (media_type.encode(), len(returned)) + returned

    route.cluster.otherwise = (Answer(answer),)
    headers = (f"Content-Type: {media_type}", f"Accept: {media_type}, */*;q=0.1")
    response = await route.ask("POST", "/api/v1/namespaces/default/pods", *headers, body=sent)
    received = await route.received()
    assert received.body == sent
    assert received.values(b"Content-Type") == [media_type.encode()]
    assert received.values(b"Accept") == [f"{media_type}, */*;q=0.1".encode()]
    assert response.values("Content-Type") == [media_type]
    assert response.body == returned


async def test_several_requests_on_one_connection_stay_apart(route: Route) -> None:
    async with route.connect() as client:
        for number in range(20):
            body = b"%d" % number * (number * 1000)
            await client.send(
                route.head("POST", f"/{number}", f"Content-Length: {len(body)}", f"X-Number: {number}") + body
            )
            assert (await client.response()).body == b"ok"
    for number, received in enumerate(route.cluster.requests):
        assert received.target == b"/%d" % number
        assert received.body == b"%d" % number * (number * 1000)
        assert received.values(b"X-Number") == [b"%d" % number]


async def test_pipelined_requests_are_answered_in_order(facade_route: Route) -> None:
    route = facade_route
    route.cluster.otherwise = (
        Answer(
            lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.target), request.target)
        ),
    )
    async with route.connect() as client:
        await client.send(b"".join(route.head("GET", f"/{number}") for number in range(5)))
        assert [(await client.response()).body for _ in range(5)] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
