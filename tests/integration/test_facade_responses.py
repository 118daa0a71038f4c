"""Responses as bytes on the wire: framing, order and truncation."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import ALICE, PROXY

if TYPE_CHECKING:
    from tests.support.fake_core import Conversation
    from tests.support.running_facade import RunningFacade

HEAD = "\r\n".join(("Host: gateway", *ALICE))


def replies(status: int, *headers: tuple[bytes, bytes], body: bytes = b""):  # noqa: ANN201
    async def script(conversation: Conversation) -> None:
        await conversation.read_all()
        await conversation.respond(status, *headers, body=body)

    return script


async def test_nothing_is_added_and_order_and_duplicates_are_kept_rt_16_rt_17(gateway: RunningFacade) -> None:
    headers = [(b"Warning", b"1"), (b"audit-id", b"x"), (b"Warning", b"2"), (b"Content-Length", b"2")]
    gateway.core.script(replies(200, *headers, body=b"ab"))
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE)
    assert response.headers == [(name.decode(), value.decode()) for name, value in headers]
    assert response.body == b"ab"


async def test_a_body_without_length_is_chunked_rt_8(gateway: RunningFacade) -> None:
    gateway.core.script(replies(200, body=b"abc"))
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE)
    assert response.headers == [("Transfer-Encoding", "chunked")]
    assert response.body == b"abc"


async def test_framing_headers_of_another_hop_are_dropped_rt_8(gateway: RunningFacade) -> None:
    gateway.core.script(
        replies(200, (b"Transfer-Encoding", b"chunked"), (b"Connection", b"x"), (b"Content-Length", b"1"), body=b"a")
    )
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE)
    assert response.headers == [("Content-Length", "1")]


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [("HEAD", 200, [(b"Content-Length", b"9")]), ("GET", 204, []), ("GET", 304, [(b"Content-Length", b"9")])],
)
async def test_responses_without_body_leave_the_connection_in_step_rt_15(
    gateway: RunningFacade, method: str, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    gateway.core.script(replies(status, *headers))
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE, method=method)
        assert response.status == status
        assert response.headers == [(name.decode(), value.decode()) for name, value in headers]
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"


async def test_a_kept_connection_serves_complete_responses_one_after_another(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        for _ in range(20):
            assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"
    assert len(gateway.core.conversations) == 20


async def test_the_client_s_wish_to_close_is_met(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE, "Connection: close")
        assert response.values("Connection") == ["close"]
        assert await client.rest() == b""


async def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection(gateway: RunningFacade) -> None:
    gateway.core.script(replies(200, body=b"abc"))
    async with gateway.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x HTTP/1.0\r\nConnection: keep-alive\r\n{HEAD}\r\n\r\n".encode())
        response = await client.response()
    assert response.headers == [("Connection", "close")]
    assert response.body == b"abc"


async def test_a_head_and_a_chunk_leave_before_the_body_ends_rt_9_rt_10(gateway: RunningFacade) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"event\n")
        await conversation.hold()

    gateway.core.script(script)
    async with gateway.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x HTTP/1.1\r\n{HEAD}\r\n\r\n".encode())
        assert (await client.head())[0] == 200
        assert await client.read(len(b"6\r\nevent\n\r\n")) == b"6\r\nevent\n\r\n"


async def test_a_204_promises_no_body_rt_15(gateway: RunningFacade) -> None:
    """RFC 9110 section 8.6: a client that believed the length would wait for it, or take the next head for it."""
    gateway.core.script(replies(204, (b"A", b"b"), (b"Content-Length", b"9")))
    async with gateway.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE)).headers == [("A", "b")]


@pytest.mark.parametrize("headers", [[], [(b"Content-Length", b"100")]], ids=["chunked", "length"])
async def test_a_body_that_the_core_cuts_is_cut_for_the_client_rt_35(
    gateway: RunningFacade, headers: list[tuple[bytes, bytes]]
) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.send_head(200, *headers)
        await conversation.send(b"half")
        await conversation.fail("RESPONSE_TRUNCATED")

    gateway.core.script(script)
    async with gateway.as_front_proxy() as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.get(f"{PROXY}/x", *ALICE)


async def test_a_cut_close_delimited_body_ends_in_a_reset_rt_35(gateway: RunningFacade) -> None:
    cut = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.send_head(200)
        await conversation.send(b"half")
        await cut.wait()
        await conversation.fail("RESPONSE_TRUNCATED")

    gateway.core.script(script)
    async with gateway.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x HTTP/1.0\r\n{HEAD}\r\n\r\n".encode())
        await client.head()
        assert await client.read(4) == b"half"
        cut.set()
        with pytest.raises(ConnectionResetError):
            await client.read(1)


@pytest.mark.parametrize("body", [b"a", b"abc"], ids=["short", "long"])
async def test_a_body_that_is_not_as_long_as_promised_is_cut_a_9_a_10(gateway: RunningFacade, body: bytes) -> None:
    gateway.core.script(replies(200, (b"Content-Length", b"2"), body=body))
    async with gateway.as_front_proxy() as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.get(f"{PROXY}/x", *ALICE)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X", b"a\r\nInjected: b")],
        [(b"X", b"a\nInjected: b")],
        [(b"X\r", b"a")],
        [(b"Content-Length", b"1"), (b"Content-Length", b"2")],
        [(b"Content-Length", b"+1")],
    ],
)
async def test_a_head_that_two_hops_could_read_differently_is_a_gateway_error(
    gateway: RunningFacade, headers: list[tuple[bytes, bytes]]
) -> None:
    gateway.core.script(replies(200, *headers, body=b"a"))
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE)
    assert response.status == 502
    assert response.json()["kind"] == "Status"
    assert not response.values("Injected")


async def test_a_switch_that_nobody_asked_for_is_a_gateway_error_up_26(gateway: RunningFacade) -> None:
    gateway.core.script(replies(101, (b"Upgrade", b"websocket")))
    async with gateway.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE)).status == 502


@pytest.mark.parametrize(
    ("reason", "status"),
    [("CLUSTER_NOT_FOUND", 503), ("ACCESS_DENIED", 403), ("TIMEOUT", 504), ("OVERLOADED", 429)],
)
async def test_an_error_before_the_head_is_a_status_and_the_connection_goes_on_rt_11(
    gateway: RunningFacade, reason: str, status: int
) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.fail(reason)

    gateway.core.script(script)
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE)
        assert response.status == status
        assert response.json()["kind"] == "Status"
        assert response.json()["details"]["name"] == "east"
        assert (await client.get(f"{PROXY}/x", *ALICE)).body == b"ok"


async def test_4000_headers_and_a_128_kib_header_are_taken_a_4(gateway: RunningFacade) -> None:
    lines = [f"X-Remote-Group: g{number}" for number in range(4000)]
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", "X-Remote-User: alice", *lines, "X-Long: " + "a" * 128 * 1024)
    assert response.body == b"ok"
    groups = gateway.core.conversations[0].head.asserted_user.groups
    assert list(groups) == [*(f"g{number}" for number in range(4000)), "system:authenticated"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_gzip_body_is_not_inflated_a_5_rt_8(gateway: RunningFacade, chunked: bool) -> None:  # noqa: FBT001
    packed = gzip.compress(b"a" * 1000)
    seen: list[bytes] = []

    async def script(conversation: Conversation) -> None:
        seen.append(await conversation.read_all())
        await conversation.respond(201, (b"Content-Length", b"0"))

    gateway.core.script(script)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(packed)}"
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed) if chunked else packed
    async with gateway.as_front_proxy() as client:
        head = f"POST {PROXY}/x HTTP/1.1\r\n{HEAD}\r\nContent-Encoding: gzip\r\n{framing}\r\n\r\n"
        await client.send(head.encode() + data)
        assert (await client.response()).status == 201
    assert seen == [packed]
