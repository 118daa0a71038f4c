"""Remote commands frame by frame (family RC), once straight at the cluster and once through hub and gateway.

The expectations are kube-apiserver's and the kubelet's own: each test holds them to both routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import WSMsgType
from tests.support.gateway import proxy_path
from tests.support.kubectl import RUN_SECONDS

from cluster_gateway.control_planes import issue_admin_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl, RunningCommand

    from cluster_gateway.control_planes import ControlPlane

_POD: Final = "/api/v1/namespaces/default/pods/pod1"
_V5: Final = "v5.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = b"\0", b"\1", b"\2", b"\3", b"\xff"
"""Channels of the protocol. Source: k8s.io/apimachinery, pkg/util/remotecommand/constants.go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way to a cluster's API.

    Attributes:
        url: What precedes its paths.
        context: TLS of an administrator there.
    """

    url: str
    context: ssl.SSLContext

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=self.context, force_close=True)
        timeout = aiohttp.ClientTimeout(total=RUN_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session

    @asynccontextmanager
    async def exec(self, *command: str, protocol: str = _V5, **options: str) -> AsyncIterator[Channels]:
        """Run a command in pod1 with all streams."""
        asked = {"container": "main", "stdin": "true", "stdout": "true", "stderr": "true", **options}
        query = urlencode([*(("command", word) for word in command), *asked.items()])
        async with (
            self.session() as session,
            session.ws_connect(
                f"{self.url}{_POD}/exec?{query}", protocols=(protocol,), max_msg_size=0, autoclose=False
            ) as talk,
        ):
            assert talk.protocol == protocol
            yield Channels(talk)

    async def upgrade(self, path: str, protocols: str) -> tuple[int, str, str, bytes]:
        """Ask for a WebSocket; status, chosen sub-protocol, content type and, where it is refused, body."""
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **({"Sec-WebSocket-Protocol": protocols} if protocols else {}),
        }
        async with self.session() as session, session.get(f"{self.url}{path}", headers=headers) as answer:
            body = b"" if answer.status == 101 else await answer.read()
            found = answer.headers
            return answer.status, found.get("Sec-WebSocket-Protocol", ""), found.get("Content-Type", ""), body


@dataclass(slots=True)
class Channels:
    """The streams of one command.

    Attributes:
        talk: The WebSocket.
        got: What has arrived, by channel.
    """

    talk: aiohttp.ClientWebSocketResponse
    got: dict[bytes, bytearray] = field(default_factory=dict)

    async def write(self, data: bytes) -> None:
        await self.talk.send_bytes(_STDIN + data)

    async def close_stdin(self) -> None:
        await self.talk.send_bytes(_CLOSE + _STDIN)

    async def read(self, channel: bytes, size: int) -> bytes:
        """Wait for that many bytes of a channel."""
        while len(self.got.setdefault(channel, bytearray())) < size:
            assert await self._next(), (channel, self.got)
        data = bytes(self.got[channel][:size])
        del self.got[channel][:size]
        return data

    async def end(self) -> Any:
        """Wait for the end; the Status on the error channel."""
        while await self._next():
            pass
        return json.loads(bytes(self.got[_ERROR]))

    async def _next(self) -> bool:
        message = await self.talk.receive()
        if message.type is WSMsgType.BINARY:
            self.got.setdefault(message.data[:1], bytearray()).extend(message.data[1:])
        return message.type is WSMsgType.BINARY


@pytest.fixture(params=["direct", "gateway"])
def route(request: pytest.FixtureRequest, stage: Stage, gateway: Gateway) -> Route:
    """Each way to managed1 in turn."""
    plane = stage.managed["managed1"]
    if request.param == "direct":
        return Route(url=plane.url, context=plane.ssl_context())
    return Route(url=stage.hub.url + proxy_path("managed1"), context=stage.hub.ssl_context())


@pytest.fixture(params=["websocket", "spdy"])
def protocol(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment that chooses the protocol of kubectl's streams."""
    wanted = str(request.param == "websocket").lower()
    return {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": wanted, "KUBECTL_PORT_FORWARD_WEBSOCKETS": wanted}


@pytest.mark.parametrize(("command", "channel"), [("cat", _STDOUT), ("cat >&2", _STDERR)], ids=["stdout", "stderr"])
async def test_stdin_comes_back_equal_in_frames_of_every_size(route: Route, command: str, channel: bytes) -> None:
    """RC-1, RC-2: 1 B to 1 MiB."""
    chance = random.Random(1)  # noqa: S311 - filler
    async with route.exec("sh", "-c", command) as streams:
        for size in (1, 2, 125, 126, 4095, 32 * 1024, 65535, 65536, 300_001, 1024 * 1024):
            data = chance.randbytes(size)
            _, back = await asyncio.gather(streams.write(data), streams.read(channel, size))
            assert back == data, size
        await streams.close_stdin()
        assert (await streams.end())["status"] == "Success"


async def test_all_streams_at_once_are_intact(route: Route) -> None:
    """RC-3, RC-10: stdin, stdout, stderr, resize and the Status of the end."""
    data = random.Random(10).randbytes(1_000_000)  # noqa: S311 - filler
    async with route.exec("tee", "/dev/stderr") as streams:

        async def send() -> None:
            await streams.talk.send_bytes(b'\4{"Width":80,"Height":24}')
            for start in range(0, len(data), 30_000):
                await streams.write(data[start : start + 30_000])
            await streams.close_stdin()

        _, status = await asyncio.gather(send(), streams.end())
        assert bytes(streams.got[_STDOUT]) == data
        assert bytes(streams.got[_STDERR]) == data
    assert status["status"] == "Success"


async def test_the_end_of_stdin_ends_a_command_that_reads_it(route: Route) -> None:
    """RC-4, UP-33: the CLOSE signal of the fifth version."""
    async with route.exec("cat") as streams:
        await streams.close_stdin()
        assert (await streams.end())["status"] == "Success"


async def test_empty_messages_are_ignored(route: Route) -> None:
    """RC-6."""
    async with route.exec("cat") as streams:
        await streams.write(b"")
        await streams.write(b"a")
        await streams.write(b"")
        assert await streams.read(_STDOUT, 1) == b"a"
        await streams.close_stdin()
        assert (await streams.end())["status"] == "Success"


@pytest.mark.parametrize(("command", "code"), [("exit 1", "1"), ("exit 42", "42"), ("kill -9 $$", "137")])
async def test_the_exit_code_is_on_the_error_stream(route: Route, command: str, code: str) -> None:
    """RC-8, UP-33."""
    async with route.exec("sh", "-c", command) as streams:
        status = await streams.end()
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": code}]


async def test_a_stream_that_is_asked_for_late_works(route: Route) -> None:
    """RC-5: the command has run for a while before its stdin gets anything."""
    async with route.exec("sh", "-c", "echo ready; sleep 1; exec cat") as streams:
        assert await streams.read(_STDOUT, 6) == b"ready\n"
        await asyncio.sleep(1.2)  # the lateness itself
        await streams.write(b"late")
        assert await streams.read(_STDOUT, 4) == b"late"
        await streams.close_stdin()
        assert (await streams.end())["status"] == "Success"


async def test_a_heartbeat_is_answered(route: Route) -> None:
    """RC-11."""
    async with route.exec("cat") as streams:
        for beat in (b"1", b"2"):
            await streams.talk.ping(beat)
        await streams.write(b"alive")  # its pongs, which aiohttp keeps to itself, come before this
        assert await streams.read(_STDOUT, 5) == b"alive"
        await streams.close_stdin()
        await streams.end()


async def test_a_failed_handshake_has_a_status_as_its_body(stage: Stage, gateway: Gateway) -> None:
    """RC-12, RC-16: byte for byte what the cluster says."""
    path = "/api/v1/namespaces/default/pods/nobody/exec?command=true&stdout=true"
    answers = [await way.upgrade(path, _V5) for way in both(stage)]
    assert answers[0] == answers[1]
    status, _, content_type, body = answers[1]
    assert (status, content_type) == (404, "application/json")
    assert json.loads(body)["message"] == 'pods "nobody" not found'


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (f"{_V5}, v4.channel.k8s.io, channel.k8s.io", _V5),
        ("v4.channel.k8s.io, channel.k8s.io", "v4.channel.k8s.io"),
        ("v9.channel.k8s.io, v4.channel.k8s.io", "v4.channel.k8s.io"),
        ("v9.channel.k8s.io", None),
    ],
)
async def test_the_sub_protocol_is_chosen_as_without_a_gateway(
    stage: Stage, gateway: Gateway, offered: str, chosen: str | None
) -> None:
    """RC-13: the newest that both know; none is an error."""
    path = f"{_POD}/exec?command=true&stdout=true&container=main"
    direct, through = [await way.upgrade(path, offered) for way in both(stage)]
    assert direct == through
    if chosen is None:
        assert through[0] >= 400
    else:
        assert through[:2] == (101, chosen)


async def test_a_plain_request_for_an_upgrade_is_the_cluster_s_to_refuse(stage: Stage, gateway: Gateway) -> None:
    """UP-16."""
    query = "command=true&stdout=true&container=main"
    answers = []
    for way in both(stage):
        async with way.session() as session, session.get(f"{way.url}{_POD}/exec?{query}") as answer:
            answers.append((answer.status, await answer.read()))
    assert answers[0] == answers[1]
    assert answers[1][0] == 400
    assert b"pgrade request required" in answers[1][1]


async def test_a_port_forward_without_a_sub_protocol_is_answered_as_without_a_gateway(
    stage: Stage, gateway: Gateway
) -> None:
    """RC-16."""
    direct, through = [await way.upgrade(f"{_POD}/portforward?ports=80", "") for way in both(stage)]
    assert direct == through


def both(stage: Stage) -> tuple[Route, Route]:
    """The ways to managed1: straight, and through the gateway."""
    plane = stage.managed["managed1"]
    return (
        Route(url=plane.url, context=plane.ssl_context()),
        Route(url=stage.hub.url + proxy_path("managed1"), context=stage.hub.ssl_context()),
    )


@dataclass(slots=True)
class Interposer:
    """Stands before a real cluster.

    Attributes:
        address: Its address.
        open: The connections.
    """

    address: str = ""
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self.open:
            raw = writer.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@asynccontextmanager
async def interposed(plane: ControlPlane, stage: Stage, *refused: str) -> AsyncIterator[Interposer]:
    """A cluster that is the real one, but refuses upgrades to some protocols, and may be cut."""
    interposer = Interposer()
    pair = stage.authority.issue_server("interposer", ["127.0.0.1"])
    pair.write(stage.directory, "interposer")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(stage.directory / "interposer.crt", stage.directory / "interposer.key")
    verifying = ssl.create_default_context(cafile=str(plane.ca_path))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        interposer.open.add(writer)
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            match = re.search(rb"(?im)^upgrade: *(\S+)", head)
            if match and match[1].decode().lower() in refused:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\n\r\nnot allowed")
                await writer.drain()
            else:
                await join(head, reader, writer)
        interposer.open.discard(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def join(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", plane.port, ssl=verifying)
        back.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if b"pgrade:" not in head else head)
        directions = [
            asyncio.get_running_loop().create_task(pump(reader, back), name="to the cluster"),
            asyncio.get_running_loop().create_task(pump(there, writer), name="from the cluster"),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            back.close()
            with contextlib.suppress(OSError):
                await back.wait_closed()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        interposer.address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield interposer


@pytest.mark.parametrize(
    ("refused", "code"), [(["websocket"], 0), (["websocket", "spdy/3.1"], 1)], ids=["falls back", "both refused"]
)
async def test_kubectl_falls_back_to_spdy_where_the_cluster_refuses_websockets(
    stage: Stage, gateway: Gateway, refused: list[str], code: int
) -> None:
    """RC-14: the refusal arrives as one."""
    plane = stage.managed["managed1"]
    async with interposed(plane, stage, *refused) as interposer:
        token = (await issue_admin_token(plane)).encode()
        data = {"endpoint": interposer.address.encode(), "ca.crt": stage.authority.certificate, "token": token}
        await stage.register("interposed", data, credential="ServiceAccountToken")
        try:
            await stage.wait_known("interposed")
            kubectl = stage.kubectl("interposed")
            result = await kubectl("exec", "pod1", "-c", "main", "--", "echo", "through")
            assert (result.exit_code, result.stdout) == ((0, "through\n") if code == 0 else (1, "")), result
            assert code == 0 or "not allowed" in result.stderr or "forbidden" in result.stderr.lower(), result
        finally:
            await stage.unregister("interposed")


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Sends back what it gets; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def local_port(forward: RunningCommand) -> int:
    """The port that kubectl listens on."""
    return int((await forward.line()).split(" -> ")[0].rpartition(":")[2])


async def converse(port: int, data: bytes) -> bytes:
    """Send something over a new connection, and read as much back."""
    async with asyncio.timeout(RUN_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            return await reader.readexactly(len(data))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_port_forwards_at_once_and_one_after_the_other_are_independent(
    clusters: dict[str, Kubectl], protocol: dict[str, str]
) -> None:
    """RC-3, RC-5, RC-10, RC-15."""
    chance = random.Random(15)  # noqa: S311 - filler
    async with (
        echo_server() as port,
        clusters["managed1"].start(
            "port-forward", "pod1", f":{port}", "--address=127.0.0.1", environment=protocol
        ) as forward,
    ):
        local = await local_port(forward)
        datas = [chance.randbytes(100_000 * number + 1) for number in range(4)]
        assert await asyncio.gather(*(converse(local, data) for data in datas)) == datas
        for data in datas:
            assert await converse(local, data) == data


async def test_a_port_that_nothing_listens_on_is_named_by_the_remote_side(
    clusters: dict[str, Kubectl], protocol: dict[str, str]
) -> None:
    """RC-15: the error stream of a port-forward arrives."""
    async with echo_server() as port:
        closed = port
    async with clusters["managed1"].start(
        "port-forward", "pod1", f":{closed}", "--address=127.0.0.1", environment=protocol
    ) as forward:
        local = await local_port(forward)
        with contextlib.suppress(OSError, EOFError):
            await converse(local, b"x")
        assert forward.process.stderr is not None
        async with asyncio.timeout(RUN_SECONDS):
            told = await forward.process.stderr.readline()
        assert f"failed to connect to port {closed}".encode() in told, told


async def test_a_port_forward_that_is_stopped_ends_well(clusters: dict[str, Kubectl], protocol: dict[str, str]) -> None:
    """RC-15: stop is no error."""
    async with (
        echo_server() as port,
        clusters["managed1"].start(
            "port-forward", "pod1", f":{port}", "--address=127.0.0.1", environment=protocol
        ) as forward,
    ):
        assert await converse(await local_port(forward), b"x") == b"x"
        forward.process.send_signal(signal.SIGINT)
        assert (await forward.finish()).exit_code == 0


def _tells_lost_connections(protocol: dict[str, str]) -> bool:
    """Whether kubectl exec ends with an error where it loses its connection: over SPDY it does not.

    Source: k8s.io/client-go, tools/remotecommand/errorstream.go, watchErrorStream: the end of the stream is no error.
    """
    return protocol["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] == "true"


async def test_kubectl_exec_takes_a_lost_connection_without_a_gateway_as_with_one(
    stage: Stage, gateway: Gateway, protocol: dict[str, str]
) -> None:
    """RC-9: what the next test expects of kubectl is kubectl's own way."""
    plane = stage.managed["managed1"]
    async with interposed(plane, stage) as interposer:
        kubectl = stage.kubectl_at(interposer.address, stage.ca_path, await issue_admin_token(plane))
        async with kubectl.start("exec", "-i", "pod1", "-c", "main", "--", "cat", environment=protocol) as shell:
            shell.write(b"hello\n")
            assert await shell.line() == "hello"
            interposer.cut()
            assert ((await shell.finish()).exit_code != 0) == _tells_lost_connections(protocol)


async def test_what_runs_in_a_cluster_that_is_unregistered_ends_with_an_error(
    stage: Stage, gateway: Gateway, protocol: dict[str, str]
) -> None:
    """RC-9, RC-15: every stream ends, nothing hangs, and a lost connection is no success."""
    plane = stage.managed["managed1"]
    token = (await issue_admin_token(plane)).encode()
    data = {"endpoint": plane.url.encode(), "ca.crt": plane.ca.certificate, "token": token}
    await stage.register("leaving", data, credential="ServiceAccountToken")
    await stage.wait_known("leaving")
    kubectl = stage.kubectl("leaving")
    try:
        async with (
            echo_server() as port,
            kubectl.start("exec", "-i", "pod1", "-c", "main", "--", "cat", environment=protocol) as shell,
            kubectl.start("port-forward", "pod1", f":{port}", "--address=127.0.0.1", environment=protocol) as forward,
        ):
            shell.write(b"hello\n")
            assert await shell.line() == "hello"
            local = await local_port(forward)
            assert await converse(local, b"x") == b"x"
            await stage.unregister("leaving")
            assert ((await shell.finish()).exit_code != 0) == _tells_lost_connections(protocol)
            assert (await forward.finish()).exit_code != 0
            with pytest.raises(OSError, match=r"."):
                await converse(local, b"x")
    finally:
        await stage.unregister("leaving")
