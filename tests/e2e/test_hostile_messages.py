"""Messages made to be read two ways, by a client or by a cluster of a real gateway: nobody else is harmed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from tests.support.gateway import proxy_path
from tests.support.malformed_requests import SECRET, malformed_requests
from tests.support.routes import Route, scripted_route
from tests.support.scripted_cluster import Answer, Close, Dribble, Hold, ReceiveRequest, Send, Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.received_request import ReceivedRequest

_NEXT: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


@pytest.fixture(scope="module")
async def quiet_route(stage: Stage, gateway: Gateway) -> AsyncIterator[Route]:
    """Straight at the facade; its cluster must never hear of anything."""
    async with scripted_route(stage, gateway, "facade") as route:
        yield route


@pytest.mark.parametrize("name", malformed_requests("/", ()))
async def test_malformed_request_is_refused_whole(quiet_route: Route, name: str) -> None:
    """The threats of the table's part on framing: 400 as a Status, the connection closed, the cluster untouched."""
    route = quiet_route
    data = malformed_requests(proxy_path(route.cluster_name), route.identity)[name]
    async with route.connect() as client:
        await client.send(data + route.head("GET", "/next"))
        response = await client.response()
        assert await client.rest() == b""
    assert (response.status, response.values("Connection")) == (400, ["close"])
    assert response.json()["kind"] == "Status"
    assert SECRET.encode() not in response.body
    assert route.cluster.connections == []


async def test_bytes_that_the_client_sends_behind_a_body_are_its_next_request(facade_route: Route) -> None:
    route = facade_route
    route.cluster.otherwise = (Answer(lambda request: _NEXT),)
    async with route.connect() as client:
        await client.send(route.head("POST", "/first", "Content-Length: 3") + b"abc" + route.head("GET", "/second"))
        assert (await client.response()).body == b"next"
        assert (await client.response()).body == b"next"
    assert [(request.target, request.body) for request in route.cluster.requests] == [
        (b"/first", b"abc"),
        (b"/second", b""),
    ]


async def test_identity_headers_with_underscores_are_nobodys(facade_route: Route) -> None:
    """oauth2-proxy CVE-2025-64484, Traefik CVE-2026-54763."""
    route = facade_route
    route.cluster.otherwise = (Answer(lambda request: _NEXT),)
    forged = (
        "X_Remote_Group: system:masters",
        "X-Remote_User: root",
        "x_remote_extra_a: b",
        "Transfer_Encoding: chunked",
    )
    await route.ask("GET", "/api", *forged, "Content_Length: 5")
    received = await route.received()
    names = {name.lower() for name, _ in received.headers}
    assert names == {b"host", b"authorization", b"audit-id", b"x-forwarded-for"}


OK: Final = b"HTTP/1.1 200 OK\r\n"
LENGTH: Final = OK + b"Content-Length: 4\r\n\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: 1\r\n\r\nEVIL"
GOOD: Final = "good"
REFUSED: Final = "refused"
CUT: Final = "cut"

# What the cluster sends, whether it then closes, and what the client may see of it.
HOSTILE: Final[dict[str, tuple[bytes, bool, set[str]]]] = {
    "two-lengths": (OK + b"Content-Length: 4\r\nContent-Length: 8\r\n\r\ngoodEVIL", False, {REFUSED}),
    "equal-lengths": (OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "length-list": (OK + b"Content-Length: 4, 4\r\n\r\ngood", False, {REFUSED}),
    "signed-length": (OK + b"Content-Length: +4\r\n\r\ngood", False, {REFUSED}),
    "negative-length": (OK + b"Content-Length: -4\r\n\r\ngood", False, {REFUSED}),
    "huge-length": (OK + b"Content-Length: 99999999999999999999\r\n\r\ngood", False, {REFUSED}),
    "length-and-coding": (LENGTH[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL, False, {REFUSED}),
    "coding-and-length": (CHUNKED[:-2] + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + EVIL, False, {REFUSED}),
    "gzip-coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n", False, {REFUSED}),
    "two-codings": (CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False, {REFUSED}),
    "short-body": (LENGTH + b"go", True, {REFUSED, CUT}),
    "bad-chunk": (CHUNKED + b"4\r\ngood\r\nzz\r\nEVIL", False, {REFUSED, CUT}),
    "long-chunk": (CHUNKED + b"2\r\ngoodEVIL\r\n0\r\n\r\n", False, {REFUSED, CUT}),
    "huge-chunk": (CHUNKED + b"FFFFFFFFFFFFFFFFFF\r\ngood", False, {REFUSED, CUT}),
    "negative-chunk": (CHUNKED + b"-4\r\ngood\r\n0\r\n\r\n", False, {REFUSED, CUT}),
    "chunk-extension-with-lf": (CHUNKED + b"4;a\nb\r\ngood\r\n0\r\n\r\n", False, {REFUSED, CUT}),
    "cut-chunks": (CHUNKED + b"4\r\ngood\r\n", True, {REFUSED, CUT}),
    "body-of-204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL", False, {GOOD}),
    "body-of-304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL", False, {GOOD}),
    "answer-behind-a-204": (b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, False, {GOOD}),
    "bytes-behind-the-body": (LENGTH + b"goodEVIL", False, {GOOD}),
    "answer-behind-the-answer": (LENGTH + b"good" + EVIL, False, {GOOD}),
    "answer-behind-chunks": (CHUNKED + b"4\r\ngood\r\n0\r\n\r\n" + EVIL, False, {GOOD}),
    "trailers": (CHUNKED + b"4\r\ngood\r\n0\r\nX-Evil: 1\r\nHost: b\r\n\r\n", False, {GOOD}),
    "length-in-a-trailer": (CHUNKED + b"4\r\ngood\r\n0\r\nContent-Length: 9\r\n\r\n", False, {REFUSED, CUT}),
    "bare-lf": (LENGTH.replace(b"\r\n", b"\n") + b"good", False, {REFUSED}),
    "lf-in-a-header": (OK + b"A: b\nX-Evil: 1\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "cr-in-a-header": (OK + b"A: b\rX-Evil: 1\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "nul-in-a-header": (OK + b"A: b\0\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "space-before-the-colon": (OK + b"Content-Length : 4\r\n\r\ngood", False, {REFUSED}),
    "folded-header": (OK + b"A: b\r\n X-Evil: 1\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "no-colon": (OK + b"A b\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "cr-in-the-reason": (b"HTTP/1.1 200 O\rX-Evil: 1\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "flood-of-1xx": (b"HTTP/1.1 103 Early\r\nX-Evil: 1\r\n\r\n" * 10_000 + LENGTH + b"good", False, {REFUSED}),
    "1xx-with-a-body": (b"HTTP/1.1 103 Early\r\nContent-Length: 4\r\n\r\nEVIL" + LENGTH + b"good", False, {REFUSED}),
    "nothing-but-1xx": (b"HTTP/1.1 100 Continue\r\n\r\n", True, {REFUSED}),
    "huge-header": (OK + b"A: " + b"b" * 2 * 1024 * 1024 + b"\r\n\r\n", False, {REFUSED}),
    "flood-of-headers": (OK + b"A: b\r\n" * 400_000 + b"\r\n", False, {REFUSED}),
    "http-1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ngood", False, {GOOD}),
    "http-1.0-to-its-end": (b"HTTP/1.0 200 OK\r\n\r\ngood", True, {GOOD}),
    "http-1.0-keep-alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\ngoodEVIL",
        False,
        {GOOD},
    ),
    "http-0.9": (b"<html>EVIL</html>\r\n\r\n", True, {REFUSED}),
    "http-2": (b"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\ngood", False, {GOOD}),  # as Go's client reads it
    "http-2-settings": (b"\0\0\0\4\0\0\0\0\0", True, {REFUSED}),
    "another-protocol": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", False, {REFUSED}),
    "switch-unasked": (b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nEVIL", False, {REFUSED}),
    "status-of-two-digits": (b"HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "status-of-four-digits": (b"HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "status-0": (b"HTTP/1.1 000 OK\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "status-999": (b"HTTP/1.1 999 OK\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "no-status": (b"HTTP/1.1 OK\r\nContent-Length: 4\r\n\r\ngood", False, {REFUSED}),
    "nothing": (b"", True, {REFUSED}),
    "empty-lines": (b"\r\n\r\n\r\n\r\n", True, {REFUSED}),
}


HARMLESS: Final = {"trailers"}
"""After these the connection to the cluster is as good as before; after all others it is not used again."""


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_answer_harms_no_other_request(route: Route, name: str) -> None:
    """The client's connection stays in step or is closed, and the next answer is the next one."""
    answer, closes, allowed = HOSTILE[name]
    going_on = Answer(lambda request: _NEXT)  # a connection that were kept would show what it held back
    route.cluster.script((ReceiveRequest(), Send(answer), Close() if closes else going_on))
    route.cluster.otherwise = (going_on,)
    async with route.connect() as client:
        await client.send(route.head("POST", "/first", "Content-Length: 0"))
        outcome = CUT
        try:
            response = await client.response()
        except (asyncio.IncompleteReadError, ConnectionError):
            response = None
        if response is not None:
            outcome = REFUSED if response.status in (502, 503) else GOOD
            assert b"EVIL" not in response.body
            assert response.values("X-Evil") == []
            if outcome == REFUSED:
                assert response.json()["kind"] == "Status"
            else:
                assert (response.status, response.body) in ((200, b"good"), (204, b""), (304, b""))
            await client.send(route.head("GET", "/second"))
            assert (await client.response()).body == b"next"
        assert outcome in allowed, response
    assert len(route.cluster.connections) == (1 if outcome == CUT or name in HARMLESS else 2)


async def test_answer_that_nobody_asked_for_is_never_the_next_ones(route: Route) -> None:
    """Bytes on a connection at rest close it."""
    evil = asyncio.Event()
    script: tuple[Step, ...] = (ReceiveRequest(), Send(LENGTH + b"good"), Hold(evil), Send(EVIL), Hold())
    route.cluster.script(script)
    route.cluster.otherwise = (Answer(lambda request: _NEXT),)
    assert (await route.ask("GET", "/first")).body == b"good"
    evil.set()
    await route.cluster.connections[0].wait_ended()
    assert (await route.ask("GET", "/second")).body == b"next"


async def test_answer_before_the_request_is_told_at_once(route: Route) -> None:
    """A hasty cluster is at most heard by the request that made the connection; it never hangs until the time limit."""
    route.cluster.script((Send(EVIL), Hold()))
    response = await route.ask("POST", "/first", "Content-Length: 0")
    assert response.status in (200, 502)
    assert response.body == b"EVIL" or response.json()["details"]["causes"][0]["reason"] == "INVALID_RESPONSE"


async def test_dribbled_answer_is_whole(route: Route) -> None:
    answer = OK + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"
    route.cluster.script((ReceiveRequest(), Dribble(answer), Hold()))
    assert (await route.ask("GET", "/api")).body == b"good"


async def test_thousands_of_headers_that_fit_arrive(facade_route: Route) -> None:
    lines = [(f"X-{number}", str(number)) for number in range(4_000)]

    def answer(request: ReceivedRequest) -> bytes:
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return OK + head.encode() + b"Content-Length: 4\r\n\r\ngood"

    facade_route.cluster.otherwise = (Answer(answer),)
    response = await facade_route.ask("GET", "/api")
    assert response.headers == [*lines, ("Content-Length", "4")]
