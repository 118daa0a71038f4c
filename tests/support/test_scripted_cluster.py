"""The scripted cluster does what a script says, on the wire."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from tests.support.scripted_cluster import (
    WAIT_SECONDS,
    Answer,
    Close,
    Dribble,
    Drop,
    Hold,
    Receive,
    ReceiveRequest,
    Reset,
    ScriptedCluster,
    Send,
    Step,
    StopReading,
    serving_context,
)
from tests.support.upstreams import AUTHORITY, SERVER


async def read_all(cluster: ScriptedCluster, *, tls: bool = False, data: bytes = b"") -> bytes:
    """What a client reads until the connection ends."""
    context = ssl.create_default_context(cadata=AUTHORITY.certificate_pem.decode()) if tls else None
    async with asyncio.timeout(WAIT_SECONDS):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", cluster.port, ssl=context, server_hostname="cluster.example" if tls else None
        )
        try:
            writer.write(data)
            return await reader.read()
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_script_sends_and_closes(tls: bool) -> None:  # noqa: FBT001
    async with ScriptedCluster(
        (Receive(b"go"), Send(b"a"), Send(b"b")), tls=serving_context(SERVER) if tls else None
    ) as cluster:
        assert await read_all(cluster, tls=tls, data=b"xgox") == b"ab"
        connection = await cluster.connection(0)
        await connection.wait_ended()
        assert (connection.received, connection.sent_bytes) == (b"xgox", 2)
        assert cluster.address == f"http{'s' if tls else ''}://127.0.0.1:{cluster.port}"


@pytest.mark.parametrize(("end", "reset"), [(Close(), False), (Drop(), False), (Reset(), True)])
async def test_connection_ends_as_the_script_says(end: Step, reset: bool) -> None:  # noqa: FBT001
    async with ScriptedCluster((Send(b"a"), Receive(b"go"), end)) as cluster:
        if reset:
            with pytest.raises(ConnectionResetError):
                await read_all(cluster, data=b"go")
        else:
            assert await read_all(cluster, data=b"go") == b"a"
        await cluster.wait_all_ended()


async def test_connections_take_the_scripts_in_order_and_then_wait() -> None:
    async with ScriptedCluster((Send(b"first"),)) as cluster:
        cluster.script((Send(b"second"),))
        assert [await read_all(cluster), await read_all(cluster)] == [b"first", b"second"]

        _, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        third = await cluster.connection(2)
        assert not third.ended.is_set()
        writer.close()
        await third.wait_ended()


async def test_event_holds_a_script() -> None:
    event = asyncio.Event()
    async with ScriptedCluster((Hold(event), Send(b"a"))) as cluster:
        reading = asyncio.get_running_loop().create_task(read_all(cluster), name="reader")
        connection = await cluster.connection(0)
        assert connection.sent_bytes == 0
        event.set()
        assert await reading == b"a"


async def test_stopped_reading_blocks_the_sender() -> None:
    event = asyncio.Event()
    async with ScriptedCluster((StopReading(event), Receive(b"end"))) as cluster:
        _, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        connection = await cluster.connection(0)
        writer.write(b"x" * 32 * 1024 * 1024 + b"end")
        draining = asyncio.get_running_loop().create_task(writer.drain(), name="drain")
        await asyncio.wait({draining}, timeout=0.05)
        assert not draining.done()
        event.set()
        await draining
        await connection.wait_ended()
        writer.transport.abort()


async def test_reader_that_stops_is_seen() -> None:
    async with ScriptedCluster((Send(b"x" * 32 * 1024 * 1024),)) as cluster:
        _, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        connection = await cluster.connection(0)
        await connection.wait_until_blocked()
        assert connection.is_blocked
        writer.transport.abort()


async def test_dribbled_bytes_arrive_in_order() -> None:
    async with ScriptedCluster((Dribble(b"abcdefg", 2),)) as cluster:
        assert await read_all(cluster) == b"abcdefg"
        assert (await cluster.connection(0)).sent_bytes == 7


async def test_whole_requests_are_kept_and_answered_in_turn() -> None:
    async with ScriptedCluster() as cluster:
        cluster.otherwise = (Answer(lambda request: request.target + b"=" + request.body + b";"),)
        first = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\n\r\nx\r\n0\r\n\r\n"
        second = b"PUT /b HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 1\r\n\r\ny"
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        writer.write(first + second)
        answers = b"/a=hi\r\nx;/b=y;"
        assert await reader.readexactly(len(answers)) == answers
        one, two = cluster.requests
        writer.transport.abort()
        await cluster.wait_all_ended()

    assert (one.method, one.target, one.body, one.chunked) == (b"POST", b"/a", b"hi\r\nx", True)
    assert (two.headers, two.body, two.chunked) == (
        [(b"X-A", b"1"), (b"x-a", b"2"), (b"Content-Length", b"1")],
        b"y",
        False,
    )
    assert two.values(b"X-A") == [b"1", b"2"]
    assert cluster.received == first + second


@pytest.mark.parametrize(
    "malformed",
    [
        b"GET / HTTP/1.1\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
    ],
)
async def test_malformed_request_fails_the_test(malformed: bytes) -> None:
    cluster = ScriptedCluster((ReceiveRequest(), Send(b"never")))
    await cluster.__aenter__()
    with pytest.raises(ConnectionResetError):
        await read_all(cluster, data=malformed)
    with pytest.raises(AssertionError):
        await cluster.__aexit__()


async def test_request_that_is_not_whole_is_waited_for() -> None:
    pieces = (b"POST / HTTP/1.1\r\nTransfer-Encoding: chu", b"nked\r\n\r\n2\r", b"\nh", b"i\r\n0\r\n", b"\r\n")
    async with ScriptedCluster((ReceiveRequest(), Send(b"ok"))) as cluster:
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        connection = await cluster.connection(0)
        sent = b""
        for piece in pieces:
            assert connection.requests == []
            writer.write(piece)
            sent += piece
            await connection.wait_for_bytes(sent)
        assert (await connection.wait_for_request()).body == b"hi"
        assert await reader.readexactly(2) == b"ok"
        writer.transport.abort()


async def test_what_never_comes_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.scripted_cluster.WAIT_SECONDS", 0.02)
    async with ScriptedCluster() as cluster:
        with pytest.raises(TimeoutError):
            await cluster.connection(0)
