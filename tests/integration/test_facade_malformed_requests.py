"""What is no valid request never reaches a core, and the refusal repeats nothing of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.running_facade import ALICE, PROXY

from cluster_gateway_facade.serving import connection

if TYPE_CHECKING:
    from tests.support.running_facade import RunningFacade

SECRET = "s3cr3t"
USER = "\r\n".join(ALICE)
LINE = f"POST {PROXY}/{SECRET} HTTP/1.1\r\n"
HOST = f"Host: gateway\r\n{USER}\r\nAuthorization: Bearer {SECRET}\r\n"
CHUNK = "0\r\n\r\n"

CORPUS = {
    "length-and-chunked": f"{LINE}{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "chunked-and-length": f"{LINE}{HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{CHUNK}",
    "two-lengths": f"{LINE}{HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two-equal-lengths": f"{LINE}{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length-list": f"{LINE}{HOST}Content-Length: 1, 1\r\n\r\na",
    "signed-length": f"{LINE}{HOST}Content-Length: +1\r\n\r\na",
    "hex-length": f"{LINE}{HOST}Content-Length: 0x1\r\n\r\na",
    "gzip-chunked": f"{LINE}{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n{CHUNK}",
    "chunked-gzip": f"{LINE}{HOST}Transfer-Encoding: chunked, gzip\r\n\r\n{CHUNK}",
    "chunked-twice": f"{LINE}{HOST}Transfer-Encoding: chunked, chunked\r\n\r\n{CHUNK}",
    "two-codings": f"{LINE}{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "identity": f"{LINE}{HOST}Transfer-Encoding: identity\r\n\r\n",
    "xchunked": f"{LINE}{HOST}Transfer-Encoding: xchunked\r\n\r\n{CHUNK}",
    "coding-with-tab": f"{LINE}{HOST}Transfer-Encoding:\x0bchunked\r\n\r\n{CHUNK}",
    "chunked-in-1.0": f"POST {PROXY}/x HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{CHUNK}",
    "bare-lf": f"GET {PROXY}/x HTTP/1.1\n{USER}\nHost: gateway\n\n",
    "bare-lf-in-header": f"{LINE}{HOST}A: b\nC: d\r\n\r\n",
    "bare-cr-in-header": f"{LINE}{HOST}A: b\rC: d\r\n\r\n",
    "obs-fold": f"{LINE}{HOST}A: b\r\n c\r\n\r\n",
    "space-before-colon": f"{LINE}{HOST}Content-Length : 5\r\n\r\n",
    "no-header-name": f"{LINE}{HOST}: x\r\n\r\n",
    "nul-in-header": f"{LINE}{HOST}A: \x00\r\n\r\n",
    "http-2-line": f"GET {PROXY}/x HTTP/2.0\r\n{HOST}\r\n",
    "http-2-preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-0.9": f"GET {PROXY}/x\r\n\r\n",
    "http-1.2": f"GET {PROXY}/x HTTP/1.2\r\n{HOST}\r\n",
    "duplicate-host": f"{LINE}{HOST}Host: other\r\n\r\n",
    "no-host": f"{LINE}{USER}\r\n\r\n",
    "absolute-form": f"GET https://gateway{PROXY}/x HTTP/1.1\r\n{HOST}\r\n",
    "asterisk": f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n",
    "fragment": f"GET {PROXY}/x#y HTTP/1.1\r\n{HOST}\r\n",
    "connect": f"CONNECT gateway:443 HTTP/1.1\r\n{HOST}\r\n",
    "connect-path": f"CONNECT {PROXY}/x HTTP/1.1\r\n{HOST}\r\n",
    "trace": f"TRACE {PROXY}/x HTTP/1.1\r\n{HOST}\r\n",
    "space-in-target": f"GET {PROXY}/x y HTTP/1.1\r\n{HOST}\r\n",
    "tls-to-tls": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("request_text", CORPUS.values(), ids=CORPUS.keys())
async def test_it_is_refused_with_a_status_that_echoes_nothing_and_the_core_is_untouched_a_12(
    gateway: RunningFacade, request_text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway.as_front_proxy() as client:
        # The second request would be answered by a server that lost step.
        await client.send(request_text.encode("latin-1") + f"GET {PROXY}/next HTTP/1.1\r\n{HOST}\r\n".encode())
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
