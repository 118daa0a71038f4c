"""What is no valid request never reaches a core, and the refusal repeats nothing of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.malformed_requests import SECRET, malformed_requests
from tests.support.running_facade import ALICE, PROXY

from cluster_gateway_facade.serving import connection

if TYPE_CHECKING:
    from tests.support.running_facade import RunningFacade

USER = "\r\n".join(ALICE)
LINE = f"POST {PROXY}/{SECRET} HTTP/1.1\r\n"
HOST = f"Host: gateway\r\n{USER}\r\nAuthorization: Bearer {SECRET}\r\n"

CORPUS = malformed_requests(PROXY, ALICE)


@pytest.mark.parametrize("data", CORPUS.values(), ids=CORPUS.keys())
async def test_it_is_refused_with_a_status_that_echoes_nothing_and_the_core_is_untouched_a_12(
    gateway: RunningFacade, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway.as_front_proxy() as client:
        # The second request would be answered by a server that lost step.
        await client.send(data + f"GET {PROXY}/next HTTP/1.1\r\n{HOST}\r\n".encode())
        response = await client.response()
        assert await client.rest() == b""
    assert response.status == 400
    assert response.values("Content-Type") == ["application/json"]
    assert response.values("Connection") == ["close"]
    assert response.json()["kind"] == "Status"
    assert SECRET.encode() not in response.body
    assert SECRET not in caplog.text
    assert "Traceback" not in caplog.text
    assert gateway.core.conversations == []


BROKEN_CHUNKS = {
    "no-number": "xyz\r\n",
    "chunk-extension-lf": "1;a\nb\r\na\r\n0\r\n\r\n",
    "longer-than-said": "1\r\nab\r\n0\r\n\r\n",
    "negative": "-1\r\na\r\n",
    "bare-lf": "1\na\n0\n\n",
}


@pytest.mark.parametrize("chunks", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
async def test_a_garbled_chunk_fails_the_request_and_closes(gateway: RunningFacade, chunks: str) -> None:
    cancelled: list[asyncio.Event] = []

    async def script(conversation: object) -> None:
        cancelled.append(conversation.cancelled)  # type: ignore[attr-defined]
        await conversation.hold()  # type: ignore[attr-defined]

    gateway.core.script(script)
    async with gateway.as_front_proxy() as client:
        await client.send(f"{LINE}{HOST}Transfer-Encoding: chunked\r\n\r\n".encode())
        await gateway.core.conversation()
        await client.send(chunks.encode())
        response = await client.response()
        assert response.status == 400
        assert response.json()["kind"] == "Status"
    async with asyncio.timeout(20):
        await cancelled[0].wait()
    assert not gateway.core.conversations[0].ended


async def test_trailers_are_not_headers_rt_39(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        head = f"POST {PROXY}/x HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
        await client.send(
            f"{head}1\r\na\r\n0\r\nX-Remote-User: root\r\nX-Remote-Group: system:masters\r\n\r\n".encode()
        )
        assert (await client.response()).status in (200, 400)
    for conversation in gateway.core.conversations:
        assert conversation.head.asserted_user.username == "alice"
        assert b"root" not in {header.value for header in conversation.head.headers}


@pytest.mark.parametrize("spread", [1, 40], ids=["one-line", "many-lines"])
async def test_a_head_beyond_the_limit_is_refused_before_it_ends_a_4(gateway: RunningFacade, spread: int) -> None:
    size = connection._LARGEST_HEAD_BYTES * 2 // spread
    async with gateway.as_front_proxy() as client:
        head = f"GET {PROXY}/x HTTP/1.1\r\n{HOST}" + "".join(f"A{n}: {'a' * size}\r\n" for n in range(spread))
        client.writer.write(head.encode())
        response = await client.response()
        assert response.status == 431
        assert response.json()["kind"] == "Status"
    assert gateway.core.conversations == []


async def test_a_head_piled_up_behind_an_open_request_ends_the_connection(gateway: RunningFacade) -> None:
    async def script(conversation: object) -> None:
        await conversation.hold()  # type: ignore[attr-defined]

    gateway.core.script(script)
    async with gateway.as_front_proxy() as client:
        await client.send(f"GET {PROXY}/x HTTP/1.1\r\n{HOST}\r\n".encode())
        held = await gateway.core.conversation()
        client.writer.write(b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: %b\r\n" % (n, b"a" * 200_000) for n in range(8)))
        assert await client.rest() == b""
        async with asyncio.timeout(20):
            await held.cancelled.wait()


async def test_refusals_are_valid_json(gateway: RunningFacade) -> None:
    async with gateway.connect() as client:
        await client.send(b"\x00\r\n\r\n")
        assert json.loads((await client.response()).body)["code"] == 400
