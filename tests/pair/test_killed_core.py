"""A core that is killed outright (fault F2): the client sees a cut, and no request is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tests.support.core_process import CoreProcess
from tests.support.gateway_pair import GatewayPair
from tests.support.running_facade import ALICE, RunningFacade, running_facade
from tests.support.stream_cluster import stream_cluster
from tests.support.strict_parser import parse_responses
from tests.support.upgrades import switch, switched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.raw_client import RawClient

# The core of its own process is on uvloop; on which loop the facade runs makes no difference to a killed core.
pytestmark = pytest.mark.asyncio(loop_scope="module", loop_factories=["uvloop"])

_HEADS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
    "events": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n",
    "tunnel": switched() + b"half",
    "nothing": b"",
}


@asynccontextmanager
async def before_killable_core(folder: Path, answer: bytes) -> AsyncIterator[tuple[RunningFacade, list[bytes]]]:
    """A facade before a core of its own process; and the requests that the cluster has got."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        while await reader.read(65536):
            pass

    async with (
        stream_cluster(serve) as cluster,
        running_facade(folder, core=CoreProcess(folder / "core.sock", cluster.secure)) as facade,
    ):
        yield facade, requests


async def collect(client: RawClient) -> tuple[bytes, BaseException | None]:
    """Read to the end of the connection; what came, and how it ended."""
    data = bytearray()
    async with asyncio.timeout(30):
        try:
            while piece := await client._reader.read(65536):
                data += piece
        except ConnectionError as reset:
            return bytes(data), reset
    return bytes(data), None


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close", "events"])
async def test_a_response_in_progress_is_cut(tmp_path: Path, framing: str, version: str) -> None:
    """F2, RT-35: a watch that has just shown a whole event is cut as well, for its core did not end it."""
    body = b"{}\n" if framing == "events" else b"half"
    query = "?watch=1" if framing == "events" else ""
    async with before_killable_core(tmp_path, _HEADS[framing]) as (facade, _), facade.as_front_proxy() as client:
        lines = "\r\n".join(("Host: gateway", *ALICE))
        await client.send(f"GET {GatewayPair.path(f'/x{query}')} HTTP/{version}\r\n{lines}\r\n\r\n".encode())
        await client.head()
        chunked = version == "1.1" and framing != "length"
        await client.read(len(body) + (5 if chunked else 0))
        await facade.core.kill()  # type: ignore[attr-defined]
        rest, end = await collect(client)
    data = b"HTTP/1.1 200 OK\r\n"
    data += {True: b"Transfer-Encoding: chunked\r\n\r\n", False: b"\r\n"}[chunked] if framing != "length" else b""
    data += b"Content-Length: 1000\r\n\r\n" if framing == "length" else b""
    data += (b"%x\r\n%b\r\n" % (len(body), body) if chunked else body) + rest
    outcome = parse_responses(data, end)
    assert (outcome.answers, outcome.cut) == ([], True)


async def test_a_tunnel_is_reset(tmp_path: Path) -> None:
    """F2, RC-9."""
    async with before_killable_core(tmp_path, _HEADS["tunnel"]) as (facade, _), facade.as_front_proxy() as client:
        await client.send(switch())
        await client.head()
        assert await client.read(4) == b"half"
        await facade.core.kill()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionResetError):
            await client.line()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_without_an_answer_yet_gets_a_status_and_is_not_sent_again(tmp_path: Path, method: str) -> None:
    """F2."""
    async with before_killable_core(tmp_path, b"") as (facade, requests), facade.as_front_proxy() as client:
        lines = "\r\n".join(("Host: gateway", *ALICE, "Content-Length: 2"))
        await client.send(f"{method} {GatewayPair.path()} HTTP/1.1\r\n{lines}\r\n\r\n{{}}".encode())
        await facade.until(lambda: requests)
        await facade.core.kill()  # type: ignore[attr-defined]
        response = await client.response()
        assert response.status == 503
        assert response.json()["details"]["causes"][0]["reason"] == "CORE_UNAVAILABLE"
        with contextlib.suppress(ConnectionError):
            assert (await client.get("/livez")).body == b"ok"
    assert len(requests) == 1
