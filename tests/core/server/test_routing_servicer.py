"""Exchanges through gRPC with a scripted cluster: the servicer, the relay and the client together."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.support.scripted_cluster import WAIT_SECONDS, Close, Hold, Receive, ScriptedCluster, Send

from cluster_gateway_client import CoreError
from cluster_gateway_core.settings import InFlightLimit, LimitSettings
from cluster_gateway_core.upstream.guard import Guard
from clustergateway.routing.v1.routing_service_pb2 import ExchangeRequest, Header, RequestHead

if TYPE_CHECKING:
    from tests.support.routing_core import RoutingCore

    from cluster_gateway_client import CoreClient

_END = b"\r\n\r\n"
_OK = (Receive(_END), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
_WATCH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def make_head(method: str = "GET", target: bytes = b"/api", **fields: object) -> RequestHead:
    return RequestHead(cluster_name="managed1", method=method, target=target, **fields)  # type: ignore[arg-type]


async def fail(client: CoreClient, head: RequestHead, body: bytes = b"", *, end: bool = True) -> CoreError:
    async with client.exchange() as exchange:
        await exchange.start(head, body, end=end)
        with pytest.raises(CoreError) as caught:  # noqa: PT012 - whichever piece brings it
            while True:
                await exchange.receive()
    return caught.value


async def test_request_and_answer_travel(cluster: ScriptedCluster, core: RoutingCore, client: CoreClient) -> None:
    cluster.script(_OK)
    headers = [("Accept", "x"), ("Authorization", "Bearer mine"), ("X-Remote-User", "admin")]

    async with client.request("managed1", "GET", "/api?x=%2F", headers=headers) as response:
        assert (response.status, await response.read()) == (200, b"ok")
        assert response.headers == [("Content-Length", "2")]
        assert response.header("content-length") == "2"

    received = bytes(cluster.connections[0].received)
    assert received.startswith(b"GET /api?x=%2F HTTP/1.1\r\n")
    assert b"mine" not in received
    assert b"admin" not in received
    assert core.authorizer.asked == [("get", "proxy", "managed1")]


@pytest.mark.parametrize(
    "headers", [[], [("Audit-Id", "theirs"), ("Connection", "audit-id")]], ids=["none", "removed by Connection"]
)
async def test_request_without_audit_id_gets_one(
    cluster: ScriptedCluster, client: CoreClient, headers: list[tuple[str, str]]
) -> None:
    """RT-18."""
    cluster.script((*_OK, *_OK))
    for _ in range(2):
        async with client.request("managed1", "GET", "/api", headers=headers) as response:
            await response.read()

    ids = re.findall(rb"\r\nAudit-Id: ([0-9a-f-]{36})\r\n", cluster.connections[0].received)
    assert len(set(ids)) == len(ids) == 2


@pytest.mark.parametrize("headers", [[], [("audit-id", "a\x85b" + "c" * 100)]], ids=["made", "sent"])
async def test_failure_is_logged_with_the_audit_id(
    core: RoutingCore, client: CoreClient, headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """RT-18; whoever chooses an id chooses no line of the log."""
    caplog.set_level("INFO")
    core.clusters.cluster = None
    with pytest.raises(CoreError):
        async with client.request("managed1", "GET", "/api", headers=headers):
            pass

    (message,) = [record.message for record in caplog.records if "CLUSTER_NOT_FOUND" in record.message]
    expected = r"'a\\x85b" + "c" * 61 + "'" if headers else "'[0-9a-f-]{36}'"
    assert re.search(rf"\(audit id {expected}\)$", message), message


@pytest.mark.parametrize("size", [0, 5, 3 * 1024 * 1024])
async def test_body_travels(cluster: ScriptedCluster, client: CoreClient, size: int) -> None:
    cluster.script((Receive(_END + b"x" * size), Send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")))

    async with client.request("managed1", "POST", "/api", body=b"x" * size) as response:
        assert (response.status, await response.read()) == (201, b"")

    assert b"Content-Length: %d\r\n" % size in cluster.connections[0].received


async def test_answer_that_comes_before_the_body_ends_is_delivered(
    cluster: ScriptedCluster, client: CoreClient
) -> None:
    """RT-36."""
    cluster.script((Receive(_END), Send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), Hold()))

    async with client.request("managed1", "POST", "/api", body=b"x" * 64 * 1024 * 1024) as response:
        assert (response.status, await response.read()) == (413, b"no")


async def test_large_answer_is_cut_into_messages(cluster: ScriptedCluster, client: CoreClient) -> None:
    body = b"0123456789abcdef" * 512 * 1024
    cluster.script((Receive(_END), Send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)), Send(body)))

    async with client.request("managed1", "GET", "/api") as response:
        assert await response.read() == body


@pytest.mark.parametrize(
    ("head", "body", "end"),
    [
        (make_head(target=b"/a/../b"), b"", True),
        (make_head("TRACE"), b"", True),
        (make_head("get"), b"", True),
        (RequestHead(method="GET", target=b"/api"), b"", True),
        (make_head(upgrade="h2c"), b"", False),
        (make_head(upgrade="websoc\u212aet"), b"", False),
        (make_head(upgrade="websocket"), b"early", False),
        (make_head(upgrade="websocket"), b"", True),
        (make_head(forwarded_for="1.2.3.4\r\nX: y"), b"", True),
        (make_head(headers=[Header(name=b"Transfer-Encoding ", value=b"chunked")]), b"", True),
        (make_head("POST", headers=[Header(name=b"Content-Length", value=b"x")]), b"abc", True),
    ],
    ids=["dots", "method", "case", "no cluster", "h2c", "kelvin", "early", "ended", "addresses", "header", "length"],
)
async def test_request_that_breaks_a_rule_is_refused(
    cluster: ScriptedCluster,
    client: CoreClient,
    head: RequestHead,
    body: bytes,
    end: bool,  # noqa: FBT001
) -> None:
    error = await fail(client, head, body, end=end)

    assert (error.reason, error.hop) == ("INVALID_REQUEST", "CALLER")
    assert cluster.connections == []


async def test_upgrade_needs_create_as_well(core: RoutingCore, client: CoreClient, cluster: ScriptedCluster) -> None:
    """Kubernetes issue 78741."""
    core.authorizer.denied = {"create"}

    error = await fail(client, make_head(upgrade="websocket"), end=False)

    assert error.reason == "ACCESS_DENIED"
    assert cluster.connections == []


async def test_denial_comes_before_whether_the_cluster_exists(core: RoutingCore, client: CoreClient) -> None:
    core.clusters.cluster = None
    assert (await fail(client, make_head())).reason == "CLUSTER_NOT_FOUND"

    core.authorizer.denied = {"get"}
    assert (await fail(client, make_head())).reason == "ACCESS_DENIED"


async def test_unknown_caller_fails_the_call_itself(core: RoutingCore, client: CoreClient) -> None:
    core.callers.known = False

    assert (await fail(client, make_head())).reason == "UNAUTHENTICATED"


async def test_addresses_are_believed_from_facades_only(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient
) -> None:
    cluster.script((*_OK, *_OK))
    for core.callers.facade in (True, False):
        async with client.exchange() as exchange:
            await exchange.start(make_head(forwarded_for="1.2.3.4"), end=True)
            await exchange.receive()

    assert cluster.connections[0].received.count(b"X-Forwarded-For: 1.2.3.4\r\n") == 1


async def test_defect_is_told_without_its_details(
    core: RoutingCore, client: CoreClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(core.directory, "resolve", lambda name: 1 / 0)

    error = await fail(client, make_head())

    assert error.reason == "INTERNAL"
    assert "division" not in error.message
    assert "ZeroDivisionError" in caplog.text


async def test_answer_cut_within_its_body_ends_with_an_error(cluster: ScriptedCluster, client: CoreClient) -> None:
    """RT-35."""
    cluster.script((Receive(_END), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), Close()))

    with pytest.raises(CoreError) as caught:
        async with client.request("managed1", "GET", "/api") as response:
            await response.read()

    assert (caught.value.reason, caught.value.cluster_name) == ("RESPONSE_TRUNCATED", "managed1")


async def test_redirect_and_refused_credential_are_not_relayed(cluster: ScriptedCluster, client: CoreClient) -> None:
    """RD-2, RD-8, RT-34."""
    cluster.script(
        (
            Receive(_END),
            Send(b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n"),
            Receive(_END),
            Send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
            Hold(),
        )
    )

    assert (await fail(client, make_head())).reason == "INVALID_RESPONSE"
    assert (await fail(client, make_head())).reason == "CREDENTIAL_REJECTED"
    assert len(cluster.connections) == 1


@pytest.mark.parametrize("second", [ExchangeRequest(head=make_head()), None], ids=["second head", "no end"])
async def test_messages_out_of_order_are_refused(
    cluster: ScriptedCluster, client: CoreClient, second: ExchangeRequest | None
) -> None:
    call = client.routing.Exchange()
    await call.write(ExchangeRequest(head=make_head("POST")))
    if second is not None:
        await call.write(second)
    await call.done_writing()

    answer = await call.read()

    assert "INVALID_REQUEST" in str(answer)
    assert await call.read() is grpc.aio.EOF
    await (await cluster.connection(0)).wait_ended()


async def test_first_message_must_carry_a_head(client: CoreClient) -> None:
    call = client.routing.Exchange()
    await call.write(ExchangeRequest(body=b"x"))

    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_body_is_asked_for_once_the_request_is_taken(cluster: ScriptedCluster, client: CoreClient) -> None:
    """RT-37."""
    cluster.script((Receive(b"1\r\nx\r\n0\r\n\r\n"), Send(b"HTTP/1.1 204 No Content\r\n\r\n")))
    async with client.exchange() as exchange:
        head = make_head("POST", expect_continue=True, headers=[Header(name=b"Expect", value=b"100-continue")])
        await exchange.start(head, end=False)
        assert (await exchange.receive()).proceed
        await exchange.send(b"x")
        await exchange.finish()
        assert (await exchange.receive()).head.status == 204

    assert b"xpect" not in cluster.connections[0].received


async def test_cancelled_client_cuts_the_cluster(
    cluster: ScriptedCluster, client: CoreClient, core: RoutingCore
) -> None:
    """RT-14."""
    async with client.exchange() as exchange:
        await exchange.start(make_head(), end=True)
        await (await cluster.connection(0)).wait_for_bytes(_END)

    await cluster.connections[0].wait_ended()
    assert await core.drain.wait_idle(WAIT_SECONDS)


async def test_tunnel_carries_both_directions(cluster: ScriptedCluster, client: CoreClient, core: RoutingCore) -> None:
    """UP-20, UP-27."""
    cluster.script((Receive(_END), Send(_SWITCH + b"hello"), Receive(b"ping"), Send(b"pong"), Hold(), Send(b"rest")))
    async with client.exchange() as exchange:
        await exchange.start(make_head(upgrade="websocket"), end=False)
        got = b""
        first = await exchange.receive()
        assert first.head.status == 101
        await exchange.send(b"ping")
        while b"pong" not in got:
            got += (await exchange.receive()).body
        await exchange.finish()
        while not (message := await exchange.receive()).HasField("end"):
            got += message.body
        got += message.body

    assert got == b"hellopongrest"
    assert core.authorizer.asked == [("create", "proxy", "managed1"), ("get", "proxy", "managed1")]


@pytest.mark.parametrize("rest", [b'"}\n', b""], ids=["within an event", "between events"])
async def test_watch_ends_between_two_events_when_draining(
    cluster: ScriptedCluster, client: CoreClient, core: RoutingCore, rest: bytes
) -> None:
    """GS-8: a chunk may end within an event, a line of JSON may not."""
    more = asyncio.Event()
    begun = b'{"a":"' if rest else b'{"a":1}\n'
    cluster.script(
        (
            Receive(_END),
            Send(_WATCH + b"%x\r\n%b\r\n" % (len(begun), begun)),
            Hold(more),
            Send(b"%x\r\n%b\r\n" % (len(rest), rest)),
            Hold(),
        )
    )
    async with client.request("managed1", "GET", "/api/v1/pods?watch=1") as response:
        chunks = response.chunks()
        assert await anext(chunks) == begun
        core.drain.begin()
        await core.drain.end_watches(1)
        if rest:
            more.set()
        assert b"".join([chunk async for chunk in chunks]) == rest

    assert await core.drain.wait_idle(WAIT_SECONDS)
    more.set()
    await cluster.connections[0].wait_ended()


async def test_draining_core_refuses_new_work_and_finishes_the_old(
    cluster: ScriptedCluster, client: CoreClient, core: RoutingCore
) -> None:
    answer = asyncio.Event()
    cluster.script((Receive(_END), Hold(answer), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Hold()))
    async with client.exchange() as exchange:
        await exchange.start(make_head(), end=True)
        await (await cluster.connection(0)).wait_for_bytes(_END)
        core.drain.begin()
        await core.drain.end_watches(1)

        assert (await fail(client, make_head())).reason == "SHUTTING_DOWN"
        assert not await core.drain.wait_idle(0)
        answer.set()
        assert (await exchange.receive()).body == b"ok"
    assert await core.drain.wait_idle(WAIT_SECONDS)


async def test_exchange_counts_as_work_before_it_has_a_connection(
    core: RoutingCore, client: CoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def require(*_: object) -> None:
        asked.set()
        await answer.wait()

    monkeypatch.setattr(core.authorizer, "require", require)
    async with client.exchange() as exchange:
        await exchange.start(make_head(), end=True)
        await asked.wait()
        core.drain.begin()
        await core.drain.end_watches(1)
        assert core.drain.active == 1
    assert await core.drain.wait_idle(WAIT_SECONDS)


async def test_more_requests_than_a_cluster_may_have_are_refused_and_nothing_is_forwarded(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient
) -> None:
    """GS-6."""
    room = InFlightLimit(total=100, per_cluster=2, per_user=100)  # of which one user gets one
    core.servicer._guard = Guard(LimitSettings(short=room, long_running=room))
    held = (Receive(_END), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), Receive(_END))
    cluster.script(held)

    async with client.request("managed1", "GET", "/api") as response:
        assert response.status == 200
        error = await fail(client, make_head())
        assert (error.reason, error.hop, error.retry_after_seconds) == ("OVERLOADED", "CORE", 1.0)
        assert len(cluster.connections) == 1

    cluster.script(_OK)
    assert await core.drain.wait_idle(WAIT_SECONDS)
    async with client.request("managed1", "GET", "/api") as response:
        assert await response.read() == b"ok"


@pytest.mark.parametrize(
    ("method", "target", "upgrade"),
    [
        ("GET", b"/api/v1/pods?watch=1", ""),
        ("GET", b"/api/v1/watch/pods", ""),
        ("GET", b"/api/v1/namespaces/a/pods/b/log?follow=true", ""),
        ("GET", b"/api/v1/namespaces/a/pods/b/exec", "websocket"),
        ("POST", b"/api/v1/namespaces/a/pods/b/attach", "SPDY/3.1"),
        ("POST", b"/api/v1/namespaces/a/pods/b/portforward", "SPDY/3.1"),
        ("GET", b"/api/v1/namespaces/a/services/b/proxy/", ""),
        ("GET", b"/anything", "websocket"),
    ],
)
async def test_long_running_requests_leave_the_room_of_short_ones_alone(
    cluster: ScriptedCluster, core: RoutingCore, client: CoreClient, method: str, target: bytes, upgrade: str
) -> None:
    """GS-5, GS-6."""
    none, some = (InFlightLimit(total=total, per_cluster=1, per_user=1) for total in (0, 1))
    core.servicer._guard = Guard(LimitSettings(short=none, long_running=some))
    cluster.script((Receive(_END), Send(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")))

    async with client.exchange() as exchange:
        await exchange.start(make_head(method, target, upgrade=upgrade), end=not upgrade)
        assert (await exchange.receive()).head.status == 500
    assert (await fail(client, make_head())).reason == "OVERLOADED"
