"""Upgrades through facade and core: the whole family UP, and the threats of upgrades (part a5)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.hub_certificates import make_identity
from tests.support.running_facade import ALICE, client_tls
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
from tests.support.tunnel_cluster import websocket_server
from tests.support.upgrades import EXEC, PROTOCOLS, behind_gateway, switch, switched
from tests.support.upstreams import AUTHORITY, SERVER, make_cluster
from yarl import URL

from cluster_gateway_core.errors import ClusterUnreachableError
from cluster_gateway_core.server import relay as relay_module
from cluster_gateway_core.upstream import upstream as upstream_module
from cluster_gateway_facade.handlers import proxy as proxy_module

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.raw_client import RawClient, RawResponse

pytestmark = pytest.mark.asyncio(loop_scope="module")

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_PING_PONG: tuple[Step, ...] = (Receive(), Send(switched()), Receive(b"ping"), Send(b"pong"), Close())


async def open_tunnel(client: RawClient, protocol: str = "SPDY/3.1") -> None:
    await client.send(switch(protocol))
    assert (await client.head())[0] == 101


async def expect_ping_pong(pair: GatewayPair) -> None:
    async with pair.facade.as_front_proxy() as client:
        await open_tunnel(client)
        await client.send(b"ping")
        assert await client.rest() == b"pong"


async def expect_refusal(pair: GatewayPair, request: bytes, status: int) -> RawResponse:
    """One `metav1.Status`, and nothing behind it."""
    async with pair.facade.as_front_proxy() as client:
        await client.send(request)
        response = await client.response()
        assert (response.status, response.json()["kind"], response.json()["code"]) == (status, "Status", status)
        assert await client.rest() == b""
    return response


async def test_a_websocket_is_dialled_and_greets_back(tmp_path: Path) -> None:
    """UP-1."""
    seen: list[tuple[str, str | None]] = []

    async def greet(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.raw_path, request.headers.get("Origin")))
        talk = web.WebSocketResponse()
        await talk.prepare(request)
        async for message in talk:
            await talk.send_str(f"hello {message.data}")
            await talk.close()
        return talk

    target = "/api/v1/a%20b?x=1&x=%2f"
    async with (
        websocket_server(greet) as address,
        gateway_pair(tmp_path, make_cluster(address)) as pair,
        ClientSession() as session,
    ):
        identities = pair.facade.identities
        async with session.ws_connect(
            URL(f"https://127.0.0.1:{pair.facade.port}{pair.path(target)}", encoded=True),
            ssl=client_tls(identities.serving_ca, identities.front_proxy, tmp_path),
            headers={"X-Remote-User": "alice", "Origin": "https://console.example"},
        ) as talk:
            await talk.send_str("world")
            assert await talk.receive_str() == "hello world"
            assert (await talk.receive()).type is WSMsgType.CLOSE
        await pair.until_idle()
    assert seen == [(target, "https://console.example")]


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"], []], ids=["h2 too", "http/1.1", "nothing"])
async def test_an_upgrade_goes_over_http_1_1_whatever_else_the_cluster_offers(
    tmp_path: Path, offered: list[str]
) -> None:
    """UP-2."""
    tls = serving_context(SERVER)
    if offered:
        tls.set_alpn_protocols(offered)
    chosen: list[str | None] = []
    async with (
        ScriptedCluster((Receive(), Send(switched()), Receive(b"ping"), Send(b"pong"), Hold()), tls=tls) as cluster,
        gateway_pair(tmp_path, make_cluster(cluster.address)) as pair,
        pair.facade.as_front_proxy() as client,
    ):
        await open_tunnel(client)
        transport: Any = cluster.connections[0]._transport
        chosen.append(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        await client.send(b"ping")
        assert await client.read(4) == b"pong"
    assert chosen == ["http/1.1" if offered else None]


async def test_a_verified_cluster_is_reached(tmp_path: Path) -> None:
    """UP-4."""
    async with behind_gateway(tmp_path, _PING_PONG) as (pair, _):
        await expect_ping_pong(pair)


async def test_a_cluster_of_another_name_is_reached_where_verification_is_off(tmp_path: Path) -> None:
    """UP-3."""
    async with ScriptedCluster(_PING_PONG, tls=serving_context(SERVER)) as cluster:
        registered = make_cluster(cluster.address, tls_server_name="other.example", insecure=True)
        async with gateway_pair(tmp_path, registered) as pair:
            await expect_ping_pong(pair)


@pytest.mark.parametrize(
    ("ca", "name", "cause"),
    [
        pytest.param(make_identity("another ca"), "cluster.example", "certificate", id="UP-7 no root for it"),
        pytest.param(AUTHORITY, "other.example", "hostname mismatch", id="UP-8 name mismatch"),
    ],
)
async def test_a_cluster_that_cannot_be_verified_gets_no_byte(tmp_path: Path, ca: Any, name: str, cause: str) -> None:
    async with (
        ScriptedCluster(tls=serving_context(SERVER)) as cluster,
        gateway_pair(tmp_path, make_cluster(cluster.address, ca=ca, tls_server_name=name)) as pair,
    ):
        refusal = await expect_refusal(pair, switch(), 503)
        assert cause in refusal.json()["message"].lower()
        assert refusal.json()["details"]["causes"][0]["reason"] == "TLS_FAILED"
        assert all(one.received == b"" for one in cluster.connections)


async def test_the_one_dialler_is_called_once_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-5: the dial function is the only egress."""
    dialled: list[str] = []
    real = upstream_module.dial

    async def dial(destination: Any, settings: Any) -> Any:
        dialled.append(destination.cluster_name)
        return await real(destination, settings)

    monkeypatch.setattr(upstream_module, "dial", dial)
    async with behind_gateway(tmp_path, _PING_PONG) as (pair, cluster):
        await expect_ping_pong(pair)
        assert dialled == ["managed1"]
        assert len(cluster.connections) == 1


async def test_a_broken_dialler_is_an_error_and_the_cluster_is_never_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UP-9."""

    async def dial(destination: Any, settings: Any) -> Any:
        raise ClusterUnreachableError("cluster managed1 cannot be reached: dial tcp: broken", cluster_name="managed1")

    monkeypatch.setattr(upstream_module, "dial", dial)
    async with behind_gateway(tmp_path) as (pair, cluster):
        refusal = await expect_refusal(pair, switch(), 503)
        assert "dial tcp: broken" in refusal.json()["message"]
        assert cluster.connections == []


async def test_the_cluster_s_credential_is_on_the_upgrade_and_the_caller_s_is_not(tmp_path: Path) -> None:
    """UP-6, UP-17, UP-18, UP-19: own credential, client's addresses once, own Host, nobody's identity."""
    request = switch(
        "SPDY/3.1",
        "X-Remote-Uid: 42",
        "X-Remote-Extra-Scopes: a",
        "Authorization: Bearer of-the-caller",
        "X-Forwarded-For: 192.0.2.7",
        "Forwarded: for=192.0.2.9",
        "Audit-Id: theirs",
        method="POST",
    )
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched()), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(request)
        assert (await client.head())[0] == 101
        lines = bytes(cluster.connections[0].received).split(b"\r\n")
        user, port = pair.hub.asked[0][0], cluster.port
        client.writer.close()
    assert (user.username, user.uid) == ("alice", "42")
    assert lines[0] == b"POST " + EXEC.encode() + b" HTTP/1.1"
    named = {line.partition(b":")[0].lower(): line.partition(b": ")[2] for line in lines[1:-2]}
    assert len(named) == len(lines) - 3  # each once
    assert named == {
        b"host": b"127.0.0.1:%d" % port,
        b"authorization": b"Bearer s3cret",
        b"audit-id": b"theirs",
        b"x-forwarded-for": b"192.0.2.7, 127.0.0.1",
        b"connection": b"Upgrade",
        b"upgrade": b"SPDY/3.1",
    }


@pytest.mark.parametrize("end", [Close(), Drop(), Reset()], ids=["close", "FIN", "RST"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_cluster_that_fails_at_once_is_one_status_and_no_101(tmp_path: Path, protocol: str, end: Step) -> None:
    """UP-10."""
    async with behind_gateway(tmp_path, (Receive(), end)) as (pair, cluster):
        refusal = await expect_refusal(pair, switch(protocol), 503)
        assert "ended before it answered" in refusal.json()["message"]
        assert len(cluster.connections) == 1  # an upgrade is not tried twice


_REFUSALS = {
    "length": b"HTTP/1.1 %d Refused\r\nContent-Length: 4\r\n\r\nnope",
    "chunked": b"HTTP/1.1 %d Refused\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n",
    "close": b"HTTP/1.1 %d Refused\r\n\r\nnope",
}


@pytest.mark.parametrize("status", [400, 403, 500])
@pytest.mark.parametrize("framing", _REFUSALS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_refusal_is_relayed_whole_and_what_the_client_sends_behind_it_reaches_nobody(
    tmp_path: Path, protocol: str, framing: str, status: int
) -> None:
    """UP-11, UP-12, CVE-2018-1002105: a failed upgrade leaves no connection with the gateway's rights."""
    smuggled = f"GET {GatewayPair.path('/secret')} HTTP/1.1\r\nHost: gateway\r\n{ALICE[0]}\r\n\r\n".encode()
    go = asyncio.Event()
    script: tuple[Step, ...] = (Receive(), Hold(go), Send(_REFUSALS[framing] % status))
    if framing == "close":
        script = (*script, Close())
    async with (
        behind_gateway(tmp_path, (*script, Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch(protocol) + smuggled)
        await (await cluster.connection(0)).wait_for_bytes(b"\r\n\r\n")
        await client.send(smuggled)
        go.set()
        response = await client.response()
        assert (response.status, response.body) == (status, b"nope")
        assert response.values("Connection") == ["close"]
        assert await client.rest() == b""
        await pair.until_idle()
        await cluster.connections[0].wait_ended()
        assert len(cluster.connections) == 1
        assert b"secret" not in cluster.connections[0].received
        assert len({attributes.verb for _, attributes in pair.hub.asked}) == len(pair.hub.asked) == 2


async def test_relaying_a_refusal_is_limited_to_ten_seconds_as_in_kubernetes() -> None:
    """UP-13."""
    assert (relay_module._REFUSAL_SECONDS, proxy_module._REFUSAL_SECONDS) == (10.0, 10.0)


@pytest.mark.parametrize("module", [relay_module, proxy_module], ids=["core", "facade"])
async def test_a_refusal_that_does_not_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """UP-13: each half alone sees to it."""
    monkeypatch.setattr(module, "_REFUSAL_SECONDS", 0.2)
    script = (Receive(), Send(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf"), Hold())
    async with (
        behind_gateway(tmp_path, script) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.response()
        await cluster.connections[0].wait_ended()


async def test_a_client_that_does_not_take_a_refusal_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-13."""
    monkeypatch.setattr(proxy_module, "_REFUSAL_SECONDS", 0.5)
    size = 64 * 1024 * 1024
    script = (Receive(), Send(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)), Hold())
    async with (
        behind_gateway(tmp_path, script) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(switch())
        await (await cluster.connection(0)).wait_ended()
        await pair.until_idle()


@pytest.mark.parametrize("status", [200, 204, 300, 302, 307])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_neither_success_nor_redirect_answers_an_upgrade(tmp_path: Path, protocol: str, status: int) -> None:
    """UP-14, UP-15, CVE-2020-8559, CVE-2018-1002102: not shown, not followed, and nothing stays open."""
    async with ScriptedCluster((Receive(), Send(_OK))) as elsewhere:
        location = f"Location: {elsewhere.address}/x\r\n" if status >= 300 else ""
        body = "" if status == 204 else "Content-Length: 6\r\n\r\nsecret"
        answer = f"HTTP/1.1 {status} Other\r\n{location}{body or chr(13) + chr(10)}".encode()
        async with behind_gateway(tmp_path, (Receive(), Send(answer), Hold())) as (pair, cluster):
            refusal = await expect_refusal(pair, switch(protocol), 502)
            assert f"invalid upgrade response: status code {status}" in refusal.json()["message"]
            assert b"secret" not in refusal.body
            assert str(elsewhere.port).encode() not in refusal.body
            await pair.until_idle()
            assert len(cluster.connections) == 1
        assert elsewhere.connections == []


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
async def test_a_redirect_of_a_plain_request_is_neither_shown_nor_followed(tmp_path: Path, status: int) -> None:
    """CVE-2022-3172: it would send the client, and its credential, wherever a cluster likes."""
    async with ScriptedCluster((Receive(), Send(_OK))) as elsewhere:
        answer = f"HTTP/1.1 {status} Other\r\nLocation: {elsewhere.address}/x\r\nContent-Length: 0\r\n\r\n"
        async with (
            behind_gateway(tmp_path, (Receive(), Send(answer.encode()), Hold())) as (pair, _),
            pair.facade.as_front_proxy() as client,
        ):
            response = await client.get(pair.path(), *ALICE)
            assert (response.status, response.json()["kind"], response.values("Location")) == (502, "Status", [])
            assert str(elsewhere.port).encode() not in response.body
            client.writer.close()
        assert elsewhere.connections == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_bytes_in_the_segment_of_either_head_arrive(tmp_path: Path, protocol: str) -> None:
    """UP-20, UP-21."""
    script = (Receive(), Send(switched(protocol) + b"early"), Receive(b"first"), Send(b"late"), Close())
    async with (
        behind_gateway(tmp_path, script) as (pair, _),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch(protocol) + b"first")
        assert (await client.head())[0] == 101
        assert await client.rest() == b"earlylate"


async def test_a_101_may_come_byte_by_byte(tmp_path: Path) -> None:
    """UP-22."""
    head = switched("websocket", "Sec-WebSocket-Accept: abc")
    script = (Receive(), *(Send(bytes([byte])) for byte in head), Send(b"data"), Close())
    async with (
        behind_gateway(tmp_path, script) as (pair, _),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch("websocket"))
        status, headers = await client.head()
        assert (status, dict(headers)["Sec-WebSocket-Accept"]) == (101, "abc")
        assert await client.rest() == b"data"


async def test_a_101_with_too_many_headers_is_no_switch(tmp_path: Path) -> None:
    """UP-23."""
    lines = [f"X-{number}: {'a' * 1000}" for number in range(66)]
    async with behind_gateway(tmp_path, (Receive(), Send(switched("SPDY/3.1", *lines)), Hold())) as (pair, cluster):
        refusal = await expect_refusal(pair, switch(), 502)
        assert "too many headers" in refusal.json()["message"]
        await cluster.connections[0].wait_ended()


@pytest.mark.parametrize("protocol", ["h2c", "foo", "websocket, SPDY/3.1", "TLS/1.0", "SPDY/3"])
async def test_an_upgrade_to_anything_else_is_a_bad_request(tmp_path: Path, protocol: str) -> None:
    """UP-24."""
    async with behind_gateway(tmp_path) as (pair, cluster):
        await expect_refusal(pair, switch(protocol), 400)
        assert cluster.connections == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(switched("websocket"), id="UP-25 another protocol"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", id="UP-25 no protocol"),
        pytest.param(switched("SPDY/3.1", "Content-Length: 5") + b"hello", id="UP-25 with a length"),
        pytest.param(switched("SPDY/3.1", "Transfer-Encoding: chunked"), id="UP-25 chunked"),
        pytest.param(switched("SPDY/3.1", "Sec-WebSocket-Protocol: v9.evil"), id="UP-25 sub-protocol not offered"),
    ],
)
async def test_a_switch_that_was_not_asked_for_opens_nothing(tmp_path: Path, answer: bytes) -> None:
    async with (
        behind_gateway(tmp_path, (Receive(), Send(answer), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch())
        response = await client.response()
        assert (response.status, response.json()["reason"]) == (502, "InternalError")
        assert await client.rest() == b""
        await cluster.connections[0].wait_ended()


async def test_a_101_to_a_plain_request_is_no_answer_and_its_connection_is_not_kept(tmp_path: Path) -> None:
    """UP-26."""
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched() + b"more"), Hold()), (Receive(), Send(_OK), Hold())) as (
            pair,
            cluster,
        ),
        pair.facade.as_front_proxy() as client,
    ):
        assert (await client.get(pair.path(), *ALICE)).status == 502
        await cluster.connections[0].wait_ended()
        assert (await client.get(pair.path(), *ALICE)).body == b"ok"
        assert len(cluster.connections) == 2
        client.writer.close()


async def test_a_cluster_s_end_comes_behind_its_last_bytes_and_closes_the_client(tmp_path: Path) -> None:
    """UP-27."""
    rest = bytes(range(256)) * 8192
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched()), Send(rest), Close())) as (pair, _),
        pair.facade.as_front_proxy() as client,
    ):
        await open_tunnel(client)
        assert await client.rest() == rest


async def test_a_client_s_end_closes_the_cluster_behind_its_last_bytes(tmp_path: Path) -> None:
    """UP-27."""
    last = bytes(range(256)) * 1024 + b"the end"
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched()), Receive(b"the end"), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await open_tunnel(client)
        await client.send(last)
        client.writer.close()
        await cluster.connections[0].wait_ended()
        assert bytes(cluster.connections[0].received).endswith(last)
        assert cluster.connections[0].failure is None


async def test_a_reset_by_the_cluster_aborts_the_client_and_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """UP-28."""
    caplog.set_level(logging.INFO)
    go = asyncio.Event()
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched()), Hold(go), Reset())) as (pair, _),
        pair.facade.as_front_proxy() as client,
    ):
        await open_tunnel(client)
        go.set()
        with pytest.raises(ConnectionResetError):
            await client.line()
        await pair.until_idle()
    told = [record for record in caplog.messages if "managed1" in record and "reset" in record.lower()]
    assert any(message.startswith("exchange with managed1 failed: RESPONSE_TRUNCATED") for message in told)
    assert any(message.startswith("tunnel to managed1 cut: RESPONSE_TRUNCATED") for message in told)


async def test_a_reset_by_the_client_aborts_the_cluster_and_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """UP-28."""
    caplog.set_level(logging.INFO)
    async with (
        behind_gateway(tmp_path, (Receive(), Send(switched()), Receive(b"hello"), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await open_tunnel(client)
        await client.send(b"hello")
        await cluster.connections[0].wait_for_bytes(b"hello")
        client.reset()
        await cluster.connections[0].wait_ended()
        assert isinstance(cluster.connections[0].failure, ConnectionResetError)
    assert "tunnel to managed1 cut: the client reset its connection" in caplog.messages


@pytest.mark.parametrize(
    ("lines", "upgraded"),
    [
        ("Connection: keep-alive, upgrade\r\nUpgrade: SPDY/3.1", True),
        ("Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: spdy/3.1", True),
        ("connection: uPgRaDe\r\nUPGRADE: SPDY/3.1", True),
        ("Connection: notupgrade\r\nUpgrade: SPDY/3.1", False),
        ("Connection: keep-alive\r\nUpgrade: websocket", False),
    ],
)
async def test_only_what_connection_lists_is_an_upgrade(tmp_path: Path, lines: str, upgraded: bool) -> None:  # noqa: FBT001
    """UP-31: in any case, and over two lines."""
    answer = switched() if upgraded else _OK
    async with (
        behind_gateway(tmp_path, (Receive(), Send(answer), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        head = "\r\n".join(("Host: gateway", *ALICE, lines))
        await client.send(f"GET {pair.path(EXEC)} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert (await client.head())[0] == (101 if upgraded else 200)
        seen = bytes(cluster.connections[0].received).lower()
        assert (b"upgrade: spdy/3.1\r\n" in seen, b"upgrade" in seen) == (upgraded, upgraded)
        client.writer.close()


@pytest.mark.parametrize(
    "framing", ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"]
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_upgrade_with_a_body_is_refused(tmp_path: Path, protocol: str, framing: str) -> None:
    """UP-32."""
    async with behind_gateway(tmp_path) as (pair, cluster):
        await expect_refusal(pair, switch(protocol, framing, method="POST"), 400)
        assert cluster.connections == []


async def test_an_upgrade_may_say_that_its_body_is_empty(tmp_path: Path) -> None:
    """UP-32: Go's client says so of every POST."""
    async with (
        behind_gateway(tmp_path, _PING_PONG) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch("SPDY/3.1", "Content-Length: 0", method="POST") + b"ping")
        assert (await client.head())[0] == 101
        assert await client.rest() == b"pong"
        assert bytes(cluster.connections[0].received).endswith(b"\r\n\r\nping")


async def test_a_bearer_token_among_the_sub_protocols_goes_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Threat of part a5: base64url.bearer.authorization.k8s.io."""
    caplog.set_level(logging.DEBUG)
    offered = "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.c2VjcmV0LXRva2Vu, v5.channel.k8s.io"
    answer = switched("websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io")
    async with (
        behind_gateway(tmp_path, (Receive(), Send(answer), Hold())) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await client.send(switch("websocket", offered))
        status, headers = await client.head()
        assert (status, dict(headers)["Sec-WebSocket-Protocol"]) == (101, "v5.channel.k8s.io")
        received = bytes(cluster.connections[0].received)
        client.writer.close()
    assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n" in received
    assert b"c2VjcmV0" not in received
    assert "c2VjcmV0" not in caplog.text


@pytest.mark.parametrize(
    ("protocol", "bomb"),
    [
        ("SPDY/3.1", b"\x80\x03\x00\x04\x00\xff\xff\xff\xff\xff\xff\xff"),
        ("SPDY/3.1", b"\x00\x00\x00\x01\x00\xff\xff\xff"),
        ("websocket", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"),
    ],
    ids=["SPDY settings", "SPDY data", "websocket"],
)
async def test_a_frame_that_claims_gigabytes_is_just_bytes(tmp_path: Path, protocol: str, bomb: bytes) -> None:
    """Threat of part a5, CVE-2026-35469: no frame is read, so no count in one is believed."""
    script = (Receive(), Send(switched(protocol) + bomb), Receive(bomb), Hold())
    async with (
        behind_gateway(tmp_path, script) as (pair, cluster),
        pair.facade.as_front_proxy() as client,
    ):
        await open_tunnel(client, protocol)
        assert await client.read(len(bomb)) == bomb
        await client.send(bomb)
        await cluster.connections[0].wait_for_bytes(b"\r\n\r\n" + bomb)
        assert pair.facade.connection._payload_parser._buffered == 0
        client.writer.close()


async def test_an_upgrade_needs_create_beside_get(tmp_path: Path) -> None:
    """Kubernetes issue 78741: a WebSocket exec is a GET."""
    async with behind_gateway(tmp_path) as (pair, cluster):
        pair.hub.may = lambda _user, attributes: attributes.verb == "get"
        await expect_refusal(pair, switch("websocket"), 403)
        assert cluster.connections == []


async def test_discovery_and_probes_answer_while_tunnels_stall(tmp_path: Path) -> None:
    """Threat of part a5: the hub's availability checks must not wait for clusters."""
    count = 60
    async with behind_gateway(tmp_path, *((Receive(), Send(switched()), Hold()) for _ in range(count))) as (pair, _):
        stalled = [pair.facade.as_front_proxy() for _ in range(count)]
        clients = [await one.__aenter__() for one in stalled]
        try:
            for client in clients:
                await client.send(switch() + b"x" * 300_000)
            await pair.facade.until(lambda: pair.drain.active == count)
            async with pair.facade.as_front_proxy() as client:
                for path in ("/apis/cluster.core.oam.dev/v1alpha1", "/openapi/v2", "/livez", "/readyz"):
                    assert (await client.get(path, *ALICE)).status == 200
        finally:
            for one in stalled:
                await one.__aexit__(None, None, None)
        await pair.until_idle()
