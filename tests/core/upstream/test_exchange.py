"""One exchange on the wire: bytes out, replay, time limits, cancellation, back-pressure and tunnels."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.hub_certificates import make_identity
from tests.support.scripted_cluster import (
    WAIT_SECONDS,
    Close,
    Hold,
    Receive,
    ScriptedCluster,
    Send,
    Step,
    StopReading,
    serving_context,
)
from tests.support.upstreams import (
    SERVER,
    fetch,
    make_cluster,
    make_request,
    make_settings,
    make_upstream,
    read_rest,
)

from cluster_gateway_core.errors import (
    ClusterUnreachableError,
    GatewayError,
    InvalidRequestError,
    ResponseTruncatedError,
    TLSFailedError,
    UpstreamTimeoutError,
)
from cluster_gateway_core.routing.target import check_target
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.exchange import UpstreamExchange
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cluster_gateway_core.model.http import RequestHead

_END = b"\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_TIMES = (Receive(_END), Send(_OK))
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


@pytest.fixture
async def cluster() -> AsyncIterator[ScriptedCluster]:
    async with ScriptedCluster() as cluster:
        yield cluster


@pytest.fixture
async def upstream(cluster: ScriptedCluster) -> AsyncIterator[Upstream]:
    upstream = make_upstream(cluster.address)
    yield upstream
    upstream.retire(cut=True)
    await cluster.wait_all_ended()


def enter(upstream: Upstream, request: RequestHead) -> UpstreamExchange:
    return UpstreamExchange(upstream, request, [h for h in request.headers if h[0].lower() != b"content-length"])


async def send_all(upstream: Upstream, request: RequestHead, pieces: Sequence[bytes]) -> bytes:
    async with asyncio.timeout(WAIT_SECONDS), enter(upstream, request) as exchange:
        for piece in pieces:
            await exchange.send(piece)
        exchange.finish()
        await exchange.response_head(limited=True)
        return await read_rest(exchange)


async def test_request_arrives_as_given(cluster: ScriptedCluster, upstream: Upstream) -> None:
    """RT-3, RT-4, RT-30: nothing is added but Host, credential and framing."""
    cluster.script(_TIMES)
    target = b"/some/path/?param1=value/1&param2=value%2&%7E=%2C"

    await fetch(upstream, make_request(target=target, headers=[(b"aCCept", b"x"), (b"X-A", b"1"), (b"x-a", b"2")]))

    expected = (
        b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer s3cret\r\n"
        b"aCCept: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    )
    assert cluster.connections[0].received == expected % (target, cluster.port)


async def test_base_path_of_the_endpoint_goes_first(cluster: ScriptedCluster) -> None:
    """RT-5."""
    cluster.script(_TIMES)
    upstream = make_upstream(cluster.address + "/k8s/clusters/c-1/")

    await fetch(upstream, make_request(target=b"/api/"))

    assert cluster.connections[0].received.startswith(b"GET /k8s/clusters/c-1/api/ HTTP/1.1\r\n")
    upstream.retire(cut=True)
    await cluster.wait_all_ended()


@pytest.mark.parametrize(
    ("headers", "pieces", "wire"),
    [
        pytest.param([], [b"ab", b"", b"c"], b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", id="chunked, empty piece no end"),
        pytest.param([], [], b"0\r\n\r\n", id="chunked and empty"),
        pytest.param([(b"content-LENGTH", b" 3 ")], [b"ab", b"c"], b"abc", id="length"),
        pytest.param([(b"Content-Length", b"3"), (b"Content-Length", b"3")], [b"abc"], b"abc", id="same length twice"),
    ],
)
async def test_body_is_framed_as_announced(
    cluster: ScriptedCluster, upstream: Upstream, headers: list[tuple[bytes, bytes]], pieces: list[bytes], wire: bytes
) -> None:
    """RT-8."""
    cluster.script((Receive(_END + wire), Send(_OK), Hold()))

    assert await send_all(upstream, make_request("POST", headers=headers, has_body=True), pieces) == b"ok"

    head, _, body = bytes(cluster.connections[0].received).partition(_END)
    assert body == wire
    assert (b"Content-Length: 3" in head) is bool(headers)
    assert (b"Transfer-Encoding: chunked" in head) is not bool(headers)


@pytest.mark.parametrize(
    "request_head",
    [
        make_request("POST", headers=[(b"Content-Length", b"x")], has_body=True),
        make_request("POST", headers=[(b"Content-Length", b"+3")], has_body=True),
        make_request("POST", headers=[(b"Content-Length", b"")], has_body=True),
        make_request("POST", headers=[(b"Content-Length", b"3"), (b"content-length", b"4")], has_body=True),
        make_request("POST", headers=[(b"Content-Length", b"9" * 5000)], has_body=True),
        make_request("POST", headers=[(b"Content-Length", b"3")]),
        make_request(headers=[(b"Content-Length", b"3")], upgrade="websocket"),
    ],
)
def test_contradictory_length_is_refused(request_head: RequestHead) -> None:
    with pytest.raises(InvalidRequestError):
        enter(make_upstream("http://127.0.0.1:1"), request_head)


@pytest.mark.parametrize("pieces", [[b"ab"], [b"abc", b"d"]], ids=["short", "long"])
async def test_body_unlike_its_length_cuts_the_connection(
    cluster: ScriptedCluster, upstream: Upstream, pieces: list[bytes]
) -> None:
    request = make_request("POST", headers=[(b"Content-Length", b"3")], has_body=True)

    with pytest.raises(InvalidRequestError, match="than its Content-Length"):
        await send_all(upstream, request, pieces)

    await (await cluster.connection(0)).wait_ended()
    assert upstream.take_idle() is None


async def test_answer_before_the_body_ends_is_read_and_the_connection_cut(
    cluster: ScriptedCluster, upstream: Upstream
) -> None:
    """RT-36."""
    cluster.script((Receive(_END), Send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), Hold()))

    async with enter(upstream, make_request("POST", has_body=True)) as exchange:
        await exchange.send(b"x")
        head = await exchange.response_head(limited=True)
        assert (head.status, await read_rest(exchange)) == (413, b"no")

    await cluster.connections[0].wait_ended()
    assert upstream.take_idle() is None


async def test_connection_serves_one_exchange_after_another(cluster: ScriptedCluster, upstream: Upstream) -> None:
    cluster.script((*_TIMES, *_TIMES, *_TIMES, Hold()))

    for _ in range(3):
        assert (await fetch(upstream))[1] == b"ok"

    assert len(cluster.connections) == 1


async def make_stale(cluster: ScriptedCluster, upstream: Upstream) -> asyncio.Event:
    """Keep a connection that the cluster will close as soon as it gets another request."""
    cluster.script((*_TIMES, Receive(_END), Close()))
    await fetch(upstream)
    return asyncio.Event()


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_safe_request_on_a_dead_kept_connection_is_sent_again(
    cluster: ScriptedCluster, upstream: Upstream, method: str
) -> None:
    await make_stale(cluster, upstream)
    cluster.script((*_TIMES, Hold()))

    assert (await fetch(upstream, make_request(method)))[1] == b"ok"
    assert len(cluster.connections) == 2


async def test_safe_request_is_sent_again_once_only(cluster: ScriptedCluster, upstream: Upstream) -> None:
    await make_stale(cluster, upstream)
    cluster.script((Receive(_END), Close()))

    with pytest.raises(ClusterUnreachableError, match="ended before it answered"):
        await fetch(upstream)
    assert len(cluster.connections) == 2


@pytest.mark.parametrize(
    "request_head",
    [make_request("POST"), make_request("DELETE"), make_request("PUT", has_body=True), make_request(has_body=True)],
    ids=["POST", "DELETE", "PUT", "GET with a body"],
)
async def test_other_request_on_a_dead_kept_connection_fails(
    cluster: ScriptedCluster, upstream: Upstream, request_head: RequestHead
) -> None:
    await make_stale(cluster, upstream)

    with pytest.raises(ClusterUnreachableError):
        await send_all(upstream, request_head, [])
    assert len(cluster.connections) == 1


async def test_request_with_a_begun_answer_is_not_sent_again(cluster: ScriptedCluster, upstream: Upstream) -> None:
    cluster.script((*_TIMES, Receive(_END), Send(b"H"), Close()))
    await fetch(upstream)

    with pytest.raises(ResponseTruncatedError):
        await fetch(upstream)
    assert len(cluster.connections) == 1


async def test_request_on_a_new_connection_is_not_sent_again(cluster: ScriptedCluster, upstream: Upstream) -> None:
    cluster.script((Receive(_END), Close()))

    with pytest.raises(ClusterUnreachableError):
        await fetch(upstream)
    assert len(cluster.connections) == 1


async def test_silent_cluster_is_given_up_after_the_limit(cluster: ScriptedCluster) -> None:
    upstream = make_upstream(cluster.address, response_timeout_seconds=0.05)

    with pytest.raises(UpstreamTimeoutError, match=r"did not answer within 0\.05 seconds"):
        async with enter(upstream, make_request()) as exchange:
            await exchange.response_head(limited=True)

    await (await cluster.connection(0)).wait_ended()
    upstream.retire(cut=True)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param((Receive(_END), Hold()), id="before the head"),
        pytest.param((Receive(_END), Send(b"HTTP/1.1 200 OK\r\nA"), Hold()), id="within the head"),
        pytest.param((Receive(_END), Send(_OK[:-1]), Hold()), id="within the body"),
    ],
)
async def test_cancelled_request_leaves_nothing_open(
    cluster: ScriptedCluster, upstream: Upstream, script: tuple[Step, ...]
) -> None:
    """RT-14."""
    cluster.script(script)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(upstream))
        await (await cluster.connection(0)).wait_for_bytes(_END)
        task.cancel()

    await cluster.connections[0].wait_ended()
    assert repr(upstream) == "<Upstream managed1: 0 busy, <ConnectionPool: 0 idle>>"


async def test_answer_that_nobody_read_does_not_go_back_to_the_pool(cluster: ScriptedCluster) -> None:
    """A paused connection with another's bytes in it would stall the next request."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    cluster.script((Receive(_END), Send(answer), Hold()), (*_TIMES, Hold()))
    upstream = make_upstream(cluster.address, buffer_bytes=100)

    async with enter(upstream, make_request()) as exchange:
        await exchange.response_head(limited=True)
    assert (await fetch(upstream))[1] == b"ok"

    assert len(cluster.connections) == 2
    upstream.retire(cut=True)
    await cluster.wait_all_ended()


async def test_slow_reader_stops_the_cluster_within_a_bound() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sends = [Send(chunk)] * 1000
    async with ScriptedCluster((Receive(_END), Send(head), *sends, Hold()), tls=serving_context(SERVER)) as cluster:
        upstream = make_upstream(cluster.address, buffer_bytes=64 * 1024)
        async with enter(upstream, make_request()) as exchange:
            await exchange.response_head(limited=True)
            await cluster.connections[0].wait_until_blocked()
            await exchange.body_readable(limited=False)
            before = cluster.connections[0].sent_bytes
            body, _ = exchange.take_body()
            assert len(body) <= 1024 * 1024  # one read of TLS beyond the bound
            assert before < 30 * 1024 * 1024  # the rest fills the kernel's buffers
            await exchange.body_readable(limited=False)
            assert exchange.take_body()[0]
        await cluster.connections[0].wait_ended()
        upstream.retire(cut=True)


async def test_slow_cluster_stops_the_sender(cluster: ScriptedCluster, upstream: Upstream) -> None:
    ready = asyncio.Event()
    cluster.script((Receive(_END), StopReading(ready), Hold()))
    size = 64 * 1024 * 1024

    async with enter(upstream, make_request("POST", has_body=True)) as exchange:
        await (await cluster.connection(0)).wait_for_bytes(_END)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(exchange.send(b"x" * size))
            await asyncio.wait({sending}, timeout=0.05)
            assert not sending.done()
            ready.set()
            async with asyncio.timeout(WAIT_SECONDS):
                await sending

    await cluster.connections[0].wait_ended()


async def open_tunnel(upstream: Upstream) -> UpstreamExchange:
    exchange = enter(upstream, make_request("POST", upgrade="SPDY/3.1"))
    await exchange.__aenter__()
    head = await exchange.response_head(limited=False)
    assert head.status == 101
    exchange.open_tunnel()
    return exchange


async def test_tunnel_loses_no_byte_that_came_with_the_101(cluster: ScriptedCluster, upstream: Upstream) -> None:
    """UP-20, UP-27."""
    cluster.script((Receive(_END), Send(_SWITCH + b"\x80\x03early"), Receive(b"up"), Send(b"late"), Close()))
    exchange = await open_tunnel(upstream)
    await exchange.send(b"up")

    assert await read_rest(exchange) == b"\x80\x03earlylate"
    await exchange.__aexit__(None, None, None)

    sent = bytes(cluster.connections[0].received)
    assert b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n" in sent
    assert upstream.take_idle() is None


async def test_half_closed_tunnel_still_delivers_the_clusters_answer(
    cluster: ScriptedCluster, upstream: Upstream
) -> None:
    cluster.script((Receive(_END), Send(_SWITCH), Receive(b"bye"), Hold(), Send(b"the rest"), Close()))
    exchange = await open_tunnel(upstream)
    await exchange.send(b"bye")
    exchange.finish()

    assert await read_rest(exchange) == b"the rest"
    await exchange.__aexit__(None, None, None)


async def test_tunnel_over_tls_ends_in_both_directions_when_the_caller_ends() -> None:
    """UP-27."""
    async with ScriptedCluster(
        (Receive(_END), Send(_SWITCH), Receive(b"bye"), Hold()), tls=serving_context(SERVER)
    ) as cluster:
        upstream = make_upstream(cluster.address)
        exchange = await open_tunnel(upstream)
        await exchange.send(b"bye")
        exchange.finish()

        assert await read_rest(exchange) == b""
        await cluster.connections[0].wait_for_bytes(b"bye")
        await cluster.connections[0].wait_ended()
        await exchange.__aexit__(None, None, None)
        upstream.retire(cut=True)


async def test_client_certificate_refused_after_the_handshake_is_told_as_tls() -> None:
    """TLS 1.3: the cluster speaks of a client certificate only after the client believes the handshake done."""
    tls = serving_context(SERVER, client_ca=make_identity("another ca"))
    async with ScriptedCluster(tls=tls) as cluster:
        with pytest.raises((TLSFailedError, ClusterUnreachableError)):
            await fetch(make_upstream(cluster.address))


async def test_gateways_own_cut_is_never_a_whole_answer(cluster: ScriptedCluster) -> None:
    """A body that ends with its connection would look whole."""
    cluster.script((Receive(_END), Send(b"HTTP/1.1 200 OK\r\n\r\nhalf"), Hold()))
    upstream = make_upstream(cluster.address)

    async with enter(upstream, make_request()) as exchange:
        await exchange.response_head(limited=True)
        upstream.retire(cut=True)
        with pytest.raises(ResponseTruncatedError):
            await read_rest(exchange)


async def test_tunnel_that_the_gateway_cuts_has_not_ended(cluster: ScriptedCluster, upstream: Upstream) -> None:
    cluster.script((Receive(_END), Send(_SWITCH), Hold()))
    exchange = await open_tunnel(upstream)
    upstream.retire(cut=True)

    with pytest.raises(ResponseTruncatedError):
        await read_rest(exchange)
    await exchange.__aexit__(None, None, None)


async def test_request_to_a_removed_cluster_is_not_sent_again(cluster: ScriptedCluster, upstream: Upstream) -> None:
    cluster.script((*_TIMES, Hold()))
    await fetch(upstream)

    async with enter(upstream, make_request()) as exchange:
        upstream.retire(cut=True)
        with pytest.raises(GatewayError):
            await exchange.response_head(limited=True)
    assert len(cluster.connections) == 1


async def test_cluster_removed_while_it_is_dialled_gets_no_request(
    cluster: ScriptedCluster, upstream: Upstream
) -> None:
    opening = asyncio.get_running_loop().create_task(upstream.open(), name="dial")
    await asyncio.sleep(0)
    upstream.retire(cut=True)

    with pytest.raises(ClusterUnreachableError, match="was removed"):
        await opening

    await (await cluster.connection(0)).wait_ended()
    assert cluster.connections[0].received == b""


_PATH = st.lists(
    st.sampled_from(
        [b"api", b"v1", b"a.b", b"%41", b"%7E", b"~", b"a%3Ab", b"a:b", b"@", b"!$'()*+,;=", b"\xc3\xa9", b"%c3%a9"]
    ),
    max_size=6,
).map(lambda parts: b"/" + b"/".join(parts))
_QUERY = st.one_of(st.just(b""), st.binary(max_size=20).map(lambda data: b"?" + data))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=_PATH, query=_QUERY)
def test_accepted_target_arrives_byte_for_byte(path: bytes, query: bytes) -> None:
    target = path + query
    try:
        check_target(target)
    except InvalidRequestError:
        return

    async def send() -> bytes:
        async with ScriptedCluster(_TIMES) as cluster:
            upstream = Upstream(make_cluster(cluster.address), UpstreamContext(make_settings()))
            await fetch(upstream, make_request(target=target))
            upstream.retire(cut=True)
            await cluster.wait_all_ended()
            return bytes(cluster.connections[0].received)

    with asyncio.Runner() as runner:
        line = runner.run(send()).partition(b"\r\n")[0]
    assert line == b"GET " + target + b" HTTP/1.1"
