"""What counts as a whole answer, over plain TCP and TLS, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.support.scripted_cluster import (
    Close,
    Drop,
    Hold,
    Receive,
    Reset,
    ScriptedCluster,
    Send,
    Step,
    serving_context,
)
from tests.support.upstreams import SERVER, fetch, make_request, make_upstream

from cluster_gateway_core.errors import GatewayError, InvalidResponseError, ResponseTruncatedError
from cluster_gateway_core.upstream.response_reader import (
    MAXIMUM_HEAD_BYTES,
    MAXIMUM_HEADERS,
    MAXIMUM_INFORMATIONAL,
    ResponseReader,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
_END = b"\r\n\r\n"
_OK_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
_OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_OK_UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]  # type: ignore[no-any-return]


async def ask(*steps: Step, tls: bool = False, method: str = "GET") -> tuple[int, bytes, bool]:
    """Status and body of one answer, and whether its connection was kept."""
    async with ScriptedCluster((Receive(_END), *steps), tls=serving_context(SERVER) if tls else None) as cluster:
        upstream = make_upstream(cluster.address)
        try:
            head, body = await fetch(upstream, make_request(method))
            kept = upstream.take_idle() is not None
            return head.status, body, kept
        finally:
            upstream.retire(cut=True)
            await cluster.wait_all_ended()


def run_in(
    factory: Callable[[], asyncio.AbstractEventLoop], *steps: Step, tls: bool, method: str = "GET"
) -> tuple[int, bytes, bool]:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(ask(*steps, tls=tls, method=method))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        pytest.param((Send(_OK_LENGTH + b"hello"), Hold()), True, id="length"),
        pytest.param((Send(_OK_CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX: y\r\n\r\n"), Hold()), True, id="chunked"),
        pytest.param((Send(_OK_UNFRAMED + b"hello"), Close()), False, id="end of connection"),
    ],
)
def test_whole_answer_is_complete(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    steps: tuple[Step, ...],
    kept: bool,  # noqa: FBT001
    tls: bool,  # noqa: FBT001
) -> None:
    assert run_in(loop_factory, *steps, tls=tls) == (200, b"hello", kept)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", [Close(), Drop(), Reset()], ids=["close", "drop", "reset"])
@pytest.mark.parametrize("head", [_OK_LENGTH, _OK_CHUNKED + b"5\r\n", _OK_CHUNKED + b"4\r\nhell\r\n5\r\n"])
def test_cut_answer_is_never_complete(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    head: bytes,
    end: Step,
    tls: bool,  # noqa: FBT001
) -> None:
    """RT-35."""
    with pytest.raises(ResponseTruncatedError):
        run_in(loop_factory, Send(head + b"hell"), end, tls=tls)


def test_reset_within_a_body_that_ends_with_its_connection_is_noticed(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """RT-35."""
    with pytest.raises(GatewayError):
        run_in(loop_factory, Send(_OK_UNFRAMED + b"hell"), Reset(), tls=False)


def test_tls_without_close_notify_cuts_a_body_that_ends_with_its_connection(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """RT-35; RFC 9112 section 9.8: anybody on the way can end TCP."""
    with pytest.raises(ResponseTruncatedError):
        run_in(loop_factory, Send(_OK_UNFRAMED + b"hell"), Drop(), tls=True)


@pytest.mark.parametrize("end", [Close(), Drop()], ids=["close", "drop"])
def test_head_that_is_cut_is_an_error(end: Step) -> None:
    with pytest.raises(ResponseTruncatedError):
        run_in(asyncio.new_event_loop, Send(b"HTTP/1.1 200 OK\r\nA: b\r\n"), end, tls=True)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(_OK_LENGTH[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="length and coding"),
        pytest.param(_OK_CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", id="coding and length"),
        pytest.param(_OK_LENGTH[:-2] + b"Content-Length: 6\r\n\r\nhello", id="two lengths"),
        pytest.param(_OK_LENGTH[:-2] + b"Content-Length: 5\r\n\r\nhello", id="the same length twice"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", id="list of lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", id="signed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello", id="no length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", id="space before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip and chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", id="gzip"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunked twice",
        ),
        pytest.param(_OK_CHUNKED + b"zz\r\nhello", id="no chunk size"),
        pytest.param(_OK_CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", id="chunk longer than it says"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n", id="bare line feed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 0\r\n\r\n", id="NUL in a value"),
        pytest.param(b"HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nhello", id="status 0"),
        pytest.param(b"HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello", id="status 99"),
        pytest.param(b"HTTP/1.1 600 OK\r\nContent-Length: 5\r\n\r\nhello", id="status 600"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", id="another protocol"),
        pytest.param(
            b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nhello" + _OK_LENGTH + b"world", id="1xx with body"
        ),
        pytest.param(b"HTTP/1.1 103 Early\r\n\r\n" * (MAXIMUM_INFORMATIONAL + 1) + _OK_LENGTH + b"hello", id="RT-38"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: " + b"b" * MAXIMUM_HEAD_BYTES + _END, id="endless head"),
        pytest.param(_OK_LENGTH[:-2] + b"a:\r\n" * MAXIMUM_HEADERS + b"\r\nhello", id="countless headers"),
        pytest.param(_OK_CHUNKED + b"0\r\nA: " + b"b" * 2 * MAXIMUM_HEAD_BYTES, id="endless trailer"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="101 without upgrade"),
    ],
)
def test_answer_that_can_be_read_two_ways_is_refused(answer: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        run_in(asyncio.new_event_loop, Send(answer), Hold(), tls=False)


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304),
        ("GET", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ],
)
def test_answer_without_a_body_ends_with_its_head(method: str, answer: bytes, status: int) -> None:
    """RT-15, RT-38."""
    got, body, _ = run_in(asyncio.new_event_loop, Send(answer), Hold(), tls=False, method=method)

    assert (got, body) == (status, b"")


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        pytest.param("GET", _OK_LENGTH + b"hello" + b"junk", b"hello", id="junk"),
        pytest.param("GET", _OK_LENGTH + b"hello" + b"\r\nX", b"hello", id="line break and junk"),
        pytest.param("GET", _OK_LENGTH + b"hello" + _OK_LENGTH + b"world", b"hello", id="second answer"),
        pytest.param(
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Evil\r\nContent-Length: 4\r\n\r\nevil",
            b"",
            id="second answer behind an empty one",
        ),
        pytest.param(
            "GET",
            _OK_LENGTH + b"helloHTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nevil",
            b"hello",
            id="101 behind the answer",
        ),
        pytest.param("GET", _OK_CHUNKED + b"5\r\nhello\r\n0\r\n\r\nX", b"hello", id="junk behind chunks"),
        pytest.param("HEAD", _OK_LENGTH + b"hello", b"", id="body to HEAD"),
        pytest.param("HEAD", _OK_CHUNKED + b"0\r\n\r\n", b"", id="last chunk to HEAD"),
        pytest.param("GET", b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\nhello", b"", id="body of 204"),
        pytest.param("GET", b"HTTP/1.1 304 N\r\n\r\nhello", b"", id="body of 304"),
    ],
)
def test_bytes_behind_an_answer_are_nobodys(method: str, answer: bytes, body: bytes) -> None:
    status, got, kept = run_in(asyncio.new_event_loop, Send(answer), Hold(), tls=False, method=method)

    assert (status in (200, 204, 304), got, kept) == (True, body, False)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_connection_that_the_cluster_means_to_close_is_not_kept(answer: bytes) -> None:
    assert run_in(asyncio.new_event_loop, Send(answer), Hold(), tls=False) == (200, b"hello", False)


async def test_head_arrives_byte_by_byte_and_keeps_its_lines() -> None:
    """UP-22, RT-16."""
    answer = b"HTTP/1.1 200 Very OK\r\nSet-Cookie: a=1\r\nX-Empty:\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nhi"
    async with ScriptedCluster((Receive(_END), *(Send(bytes([byte])) for byte in answer), Hold())) as cluster:
        upstream = make_upstream(cluster.address)
        head, body = await fetch(upstream)
        upstream.retire(cut=True)
        await cluster.wait_all_ended()

    assert (head.reason, body) == (b"Very OK", b"hi")
    assert head.headers == [
        (b"Set-Cookie", b"a=1"),
        (b"X-Empty", b""),
        (b"Set-Cookie", b"b=2"),
        (b"Content-Length", b"2"),
    ]


async def test_trailers_never_become_headers_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """RT-39."""
    caplog.set_level("INFO")
    answer = _OK_CHUNKED + b"2\r\nhi\r\n0\r\nX-Remote-User: admin\r\nX-Other: secret\r\n\r\n"
    async with ScriptedCluster((Receive(_END), Send(answer), Hold())) as cluster:
        upstream = make_upstream(cluster.address)
        head, _ = await fetch(upstream)
        upstream.retire(cut=True)
        await cluster.wait_all_ended()

    assert head.headers == [(b"Transfer-Encoding", b"chunked")]
    assert [record.message for record in caplog.records] == ["dropped the trailers of an answer of cluster managed1"]


def test_as_many_headers_as_are_allowed_are_taken() -> None:
    reader = ResponseReader("managed1", "GET")
    reader.feed(_OK_LENGTH[:-2] + b"a: b\r\n" * (MAXIMUM_HEADERS - 1) + b"\r\nhello")
    assert reader.head is not None
    assert len(reader.head.headers) == MAXIMUM_HEADERS
    reader.close()


def test_a_body_in_single_bytes_counts_for_what_it_takes_in_memory() -> None:
    reader = ResponseReader("managed1", "GET")
    reader.feed(_OK_CHUNKED + b"1\r\nx\r\n" * 1000)
    assert len(reader.chunks) == 1000
    assert reader.buffered_bytes > 32 * 1000
    assert reader.take() == b"x" * 1000
    assert reader.buffered_bytes == 0
    reader.close()
