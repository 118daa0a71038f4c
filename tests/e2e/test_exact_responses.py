"""What a client gets is what the cluster sent, by each of the two ways."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.support.raw_client import LIMIT_SECONDS
from tests.support.scripted_cluster import (
    Answer,
    Close,
    Drop,
    Hold,
    Receive,
    ReceiveRequest,
    Reset,
    Send,
    Step,
)

if TYPE_CHECKING:
    from tests.support.received_request import ReceivedRequest
    from tests.support.routes import Route

_END = b"\r\n\r\n"
_PODS = "/api/v1/namespaces/default/pods"


def render(status: str, *headers: str, body: bytes = b"") -> bytes:
    """An answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", ""]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + body


def script(route: Route, *steps: Step) -> None:
    """What the cluster does once it has a request."""
    route.cluster.script((ReceiveRequest(), *steps))


async def test_no_cors_header_is_added_and_the_hub_takes_four_away(route: Route) -> None:
    """RT-6."""
    four = {f"access-control-allow-{name}" for name in ("credentials", "headers", "methods", "origin")}
    fifth = "access-control-expose-headers"
    script(route, Send(render("200 OK", *(f"{name}: x" for name in sorted({*four, fifth})))))
    response = await route.ask("GET", "/api", "Origin: https://elsewhere.example")
    names = {name.lower() for name, _ in response.headers if name.lower().startswith("access-control")}
    assert names == ({*four, fifth} if route.is_raw else {fifth})

    script(route, Send(render("200 OK")))
    plain = await route.ask("GET", "/api", "Origin: https://elsewhere.example")
    assert not [name for name, _ in plain.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_framing_and_encoding_of_a_body_stay(route: Route, chunked: bool, packed: bool) -> None:  # noqa: FBT001
    """RT-8."""
    data = os.urandom(200_000)
    body = gzip.compress(data) if packed else data
    headers = "Content-Encoding: gzip\r\n" if packed else ""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    script(route, Send(f"HTTP/1.1 200 OK\r\n{headers}{framing}\r\n\r\n".encode() + sent))
    response = await route.ask("GET", "/api", "Accept-Encoding: gzip")
    assert response.body == body
    assert response.values("Content-Encoding") == (["gzip"] if packed else [])
    assert response.values("Transfer-Encoding") == (["chunked"] if chunked else [])
    assert response.values("Content-Length") == ([] if chunked else [str(len(body))])


async def test_each_piece_is_forwarded_before_the_next_exists(route: Route) -> None:
    """RT-9, RT-10: the cluster sends each only after the client has had the one before."""
    had = [asyncio.Event() for _ in range(3)]
    script(
        route,
        Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Hold(had[0]),
        Send(b"2\r\na\n\r\n"),
        Hold(had[1]),
        Send(b"2\r\nb\n\r\n"),
        Hold(had[2]),
        Send(b"0\r\n\r\n"),
    )
    async with route.connect() as client:
        await client.send(route.head("GET", f"{_PODS}?watch=1"))
        assert (await client.head())[0] == 200
        had[0].set()
        assert await client.read(7) == b"2\r\na\n\r\n"
        had[1].set()
        assert await client.read(7) == b"2\r\nb\n\r\n"
        had[2].set()
        assert await client.read(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("end", [Close(), Drop(), Reset()], ids=["close", "drop", "reset"])
async def test_connection_that_ends_before_the_answer_is_one_status(route: Route, end: Step) -> None:
    """RT-11."""
    script(route, end)
    response = await route.ask("POST", "/api", body=b"x")
    assert response.status == 503
    status = response.json()
    assert (status["kind"], status["reason"]) == ("Status", "ServiceUnavailable")
    assert status["details"]["causes"][0]["reason"] == "CLUSTER_UNREACHABLE"
    assert len(route.cluster.connections) == 1  # what may have been done is not done twice


@pytest.mark.parametrize("began", [False, True], ids=["before the answer", "within the answer"])
async def test_client_that_goes_away_ends_the_clusters_work(route: Route, began: bool) -> None:  # noqa: FBT001
    """RT-14."""
    head = (Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"),) if began else ()
    script(route, *head, Hold())
    async with route.connect() as client:
        await client.send(route.head("GET", f"{_PODS}?watch=1"))
        await route.received()
        if began:
            await client.head()
    await route.cluster.connections[0].wait_ended()


@pytest.mark.parametrize(
    ("method", "answer", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200, ["1234"]),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, []),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, []),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, []),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, []),
    ],
)
async def test_answer_without_a_body_ends_with_its_head(
    route: Route, method: str, answer: bytes, status: int, length: list[str]
) -> None:
    """RT-15, RT-38."""
    script(route, Send(answer), ReceiveRequest(), Send(render("200 OK", body=b"next")), Hold())
    async with route.connect() as client:
        await client.send(route.head(method, "/api"))
        response = await client.response(bodiless=method == "HEAD")
        assert (response.status, response.values("Content-Length")) == (status, length)
        assert response.values("Link") == []
        await client.send(route.head("GET", "/next"))
        assert (await client.response()).body == b"next"


async def test_repeated_headers_stay_apart_and_ordered(route: Route) -> None:
    """RT-16."""
    lines = ("Warning: 299 - a", "Set-Cookie: a=1; Path=/", "Warning: 299 - b", "Set-Cookie: b=2", "X-Latin: caf\xe9")
    script(route, Send(render("200 OK", *lines)))
    response = await route.ask("GET", "/api")
    assert response.values("Warning") == ["299 - a", "299 - b"]
    assert response.values("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert response.values("X-Latin") == ["caf\xe9"]


async def test_nothing_is_told_twice_and_nothing_of_the_hop(route: Route) -> None:
    """RT-17."""
    hop = ("Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Trailer: X-T", "Upgrade: h2c")
    ends = ("Server: cluster/1", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "Audit-Id: theirs", "Alt-Svc: h3")
    script(route, Send(render("200 OK", *hop, *ends)))
    response = await route.ask("GET", "/api", "Audit-ID: 11111111-2222-3333-4444-555555555555")
    assert response.values("Server") == ["cluster/1"]
    assert response.values("Date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]
    for name in ("Connection", "X-Hop", "Keep-Alive", "Trailer", "Upgrade", "Alt-Svc"):
        assert response.values(name) == [], name
    if route.is_raw:
        assert response.headers == [
            ("Server", "cluster/1"),
            ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("Audit-Id", "theirs"),
            ("Content-Length", "0"),
        ]


@pytest.mark.parametrize("reason", ["OK", "Completely Fine", ""])
async def test_reason_phrase_is_the_clusters(facade_route: Route, reason: str) -> None:
    script(facade_route, Send(render(f"200 {reason}")))
    assert (await facade_route.ask("GET", "/api")).reason == reason


@pytest.mark.parametrize(
    "status", [200, 201, 202, 299, 400, 403, 404, 409, 410, 418, 422, 429, 500, 502, 503, 504, 599]
)
async def test_every_status_and_its_body_is_the_clusters(route: Route, status: int) -> None:
    """RT-34: also those that the gateway itself might give, told apart by their body."""
    body = json.dumps({"kind": "Status", "code": status, "message": "theirs"}).encode()
    script(route, Send(render(f"{status} Theirs", "Content-Type: application/json", "Retry-After: 7", body=body)))
    response = await route.ask("GET", "/api")
    assert (response.status, response.body) == (status, body)
    assert response.values("Retry-After") == ["7"]


async def test_gone_within_a_watch_is_an_event_like_any(route: Route) -> None:
    """RT-34."""
    events = [{"type": "ADDED", "object": {"a": 1}}, {"type": "ERROR", "object": {"kind": "Status", "code": 410}}]
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    script(route, Send(head + chunks + b"0\r\n\r\n"))
    response = await route.ask("GET", f"{_PODS}?watch=1&resourceVersion=1")
    assert response.body == b"".join(lines)


async def test_challenge_of_an_application_behind_a_proxy_is_its_own(route: Route) -> None:
    """RT-34."""
    script(route, Send(render("401 Unauthorized", 'WWW-Authenticate: Basic realm="app"', body=b"who?")))
    response = await route.ask("GET", "/api/v1/namespaces/default/services/web/proxy/")
    assert (response.status, response.body) == (401, b"who?")
    assert response.values("WWW-Authenticate") == ['Basic realm="app"']


async def test_refusal_of_the_gateways_credential_is_not_the_callers_login(route: Route) -> None:
    """RT-34."""
    script(route, Send(render("401 Unauthorized", 'WWW-Authenticate: Bearer realm="k"', body=b"{}")))
    response = await route.ask("GET", "/api")
    assert response.status == 503
    assert response.json()["details"]["causes"][0]["reason"] == "CREDENTIAL_REJECTED"
    assert response.values("WWW-Authenticate") == []


_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"


@pytest.mark.parametrize("end", [Close(), Drop(), Reset()], ids=["close", "drop", "reset"])
@pytest.mark.parametrize("sent", [_LENGTH, _CHUNKED, _CHUNKED + b"5\r\nmo"], ids=["length", "chunked", "cut chunk"])
async def test_cut_answer_is_cut_for_the_client(route: Route, sent: bytes, end: Step) -> None:
    """RT-35."""
    read = asyncio.Event()
    script(route, Send(sent), Hold(read), end)
    async with route.connect() as client:
        await client.send(route.head("GET", "/api"))
        assert (await client.head())[0] == 200
        read.set()
        rest = await client.rest()
    assert not rest.endswith(b"0\r\n\r\n")
    assert len(rest) < len(b"9\r\nhalf more\r\n0\r\n\r\n")


async def test_close_delimited_answer_without_close_notify_is_cut(route: Route) -> None:
    """RT-35: anybody on the way can end TCP."""
    read = asyncio.Event()
    script(route, Send(b"HTTP/1.1 200 OK\r\n\r\nhalf"), Hold(read), Drop())
    async with route.connect() as client:
        await client.send(route.head("GET", "/api"))
        assert (await client.head())[0] == 200
        read.set()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_close_delimited_answer_that_ends_in_order_is_whole(route: Route) -> None:
    script(route, Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\nwhole"), Close())
    assert (await route.ask("GET", "/api")).body == b"whole"


@pytest.mark.parametrize("status", [401, 413])
async def test_answer_before_the_upload_ends_is_delivered_and_stops_it(facade_route: Route, status: int) -> None:
    """RT-36. The path is of a service, where a 401 is the application's."""
    route = facade_route
    route.cluster.script((Receive(_END), Send(render(f"{status} No", body=b"no")), Hold()))
    async with route.connect() as client:
        await client.send(
            route.head("POST", "/api/v1/namespaces/default/services/web/proxy/", "Content-Length: 99999999")
        )
        response = await client.response()
        assert (response.status, response.body) == (status, b"no")
        assert response.values("Connection") == ["close"]
        assert await client.rest() == b""
    await route.cluster.connections[0].wait_ended()
    assert len(route.cluster.received) < 1000


async def test_early_answer_reaches_the_client_through_the_hub_too(route: Route) -> None:
    """RT-36. Go's proxy returns from a handler only once it has read what the client was about to send."""
    route.cluster.script((Receive(_END), Send(render("413 No", body=b"no")), Hold()))
    async with route.connect() as client:
        client.writer.write(route.head("POST", "/api", "Content-Length: 1000000") + b"x" * 1_000_000)
        response = await client.response()
    assert (response.status, response.body) == (413, b"no")


async def test_expected_continue_is_given_once_the_request_is_taken(route: Route) -> None:
    """RT-37: accepted. The cluster has the head before it has the body, and no Expect."""
    script(route, Send(render("201 Created", body=b"done")))
    async with route.connect() as client:
        await client.send(route.head("POST", "/api", "Expect: 100-continue", "Content-Length: 4"))
        assert (await client.head())[0] == 100
        await client.send(b"body")
        response = await client.response()
        if response.status == 100 and not route.is_raw:
            response = await client.response()  # Go's proxy gives one of its own and the gateway's
    assert (response.status, response.body) == (201, b"done")
    received = await route.received()
    assert (received.body, received.values(b"Expect")) == (b"body", [])


async def test_final_refusal_instead_of_continue_ends_the_connection(facade_route: Route) -> None:
    """RT-37: refused (Go CVE-2024-24791); what follows must not be read as a request."""
    route = facade_route
    async with route.connect() as client:
        await client.send(route.head("POST", "/api/../x", "Expect: 100-continue", "Content-Length: 60"))
        response = await client.response()
        assert response.status == 400
        assert response.values("Connection") == ["close"]
        await client.send(route.head("GET", "/smuggled"))
        assert await client.rest() == b""
    assert route.cluster.connections == []


async def test_cluster_that_keeps_silent_is_waited_for_and_left_with_the_client(route: Route) -> None:
    """RT-37: silence."""
    script(route, Hold())
    async with route.connect() as client:
        await client.send(route.head("POST", "/api", "Expect: 100-continue", "Content-Length: 4"))
        assert (await client.head())[0] == 100
        await client.send(b"body")
        assert (await route.received()).body == b"body"
    await route.cluster.connections[0].wait_ended()


@pytest.mark.parametrize(("count", "status"), [(1, 200), (10, 200), (11, 502)])
async def test_informational_answers_are_ignored_up_to_ten(route: Route, count: int, status: int) -> None:
    """RT-38."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Early: 1\r\n\r\n"
    script(route, Send(early * count + render("200 OK", body=b"ok")))
    response = await route.ask("GET", "/api")
    assert response.status == status
    assert response.values("X-Early") == []
    if status == 502:
        assert response.json()["details"]["causes"][0]["reason"] == "INVALID_RESPONSE"


async def test_trailers_of_a_request_are_dropped(route: Route) -> None:
    """RT-39."""
    script(route, Send(render("200 OK", body=b"ok")))
    trailers = b"X-Remote-User: root\r\nX-Trailer: 1\r\n"
    async with route.connect() as client:
        head = route.head("POST", "/api", "Transfer-Encoding: chunked", "Trailer: X-Trailer")
        await client.send(head + b"2\r\nhi\r\n0\r\n" + trailers + b"\r\n")
        assert (await client.response()).body == b"ok"
    received = await route.received()
    assert received.body == b"hi"
    assert b"railer" not in route.cluster.received
    assert b"root" not in route.cluster.received


async def test_trailers_of_an_answer_are_dropped(route: Route) -> None:
    """RT-39; that it is logged is proven beside the reader."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n"
    script(route, Send(head + b"2\r\nhi\r\n0\r\nX-Trailer: 1\r\nSet-Cookie: a=b\r\n\r\n"), Hold())
    async with route.connect() as client:
        await client.send(route.head("GET", "/api"))
        status, headers = await client.head()
        assert status == 200
        assert {name.lower() for name, _ in headers}.isdisjoint({"trailer", "x-trailer", "set-cookie"})
        assert await client.read(len(b"2\r\nhi\r\n0\r\n\r\n")) == b"2\r\nhi\r\n0\r\n\r\n"


async def test_large_list_and_long_watch_arrive_whole(route: Route) -> None:
    """RT-33, to a scale that runs in seconds: 32 MiB and 50,000 events instead of 100 MiB and a million."""
    body = os.urandom(1024 * 1024) * 32
    lines = [b'{"type":"ADDED","object":{"n":%d}}\n' % number for number in range(50_000)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)

    def answer(request: ReceivedRequest) -> bytes:
        if b"watch" not in request.target:
            return render("200 OK", "Content-Type: application/octet-stream", body=body)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + chunks + b"0\r\n\r\n"

    route.cluster.otherwise = (Answer(answer),)
    async with asyncio.timeout(3 * LIMIT_SECONDS):
        assert (await route.ask("GET", _PODS)).body == body
        assert (await route.ask("GET", f"{_PODS}?watch=1")).body == b"".join(lines)
