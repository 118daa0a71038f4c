"""TLS connections on both event loops, against Python's own TLS over blocking sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import uvloop
from tests.support.hub_certificates import make_identity
from tests.support.scripted_cluster import serving_context

from cluster_gateway_transport import TLSConnection
from cluster_gateway_transport.pieces import LARGEST_BYTES
from cluster_gateway_transport.tls import WRITE_BUFFER_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Scenario: TypeAlias = "Callable[[socket.socket, ssl.SSLContext, ssl.SSLContext], Awaitable[None]]"
    Run: TypeAlias = "Callable[[Scenario], None]"

_AUTHORITY: Final = make_identity("ca")
_SERVER: Final = make_identity("server", issuer=_AUTHORITY, usages=(), hosts=("server",))
_LIMIT_SECONDS: Final = 20.0


class Above(asyncio.Protocol):
    """The user of a connection, which notes what it is told."""

    def __init__(self) -> None:
        self.transport: TLSConnection | None = None
        self.received = bytearray()
        self.told: list[str] = []
        self.failure: BaseException | None = None
        self.news = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._note("made")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.failure = exc
        self._note("lost")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.news.set()

    def eof_received(self) -> None:
        self._note("eof")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(_LIMIT_SECONDS):
            while not happened():
                self.news.clear()
                await self.news.wait()

    @property
    def open_transport(self) -> TLSConnection:
        assert self.transport is not None
        return self.transport

    def _note(self, what: str) -> None:
        self.told.append(what)
        self.news.set()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a scenario with one end of a TCP connection, and TLS contexts of a server and of a client."""
    client_context = ssl.create_default_context(cadata=_AUTHORITY.certificate_pem.decode())
    server_context = serving_context(_SERVER)

    def run_scenario(scenario: Scenario) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner, socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
            peer.settimeout(_LIMIT_SECONDS)
            ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
            _PEERS[ours] = peer
            try:
                runner.run(scenario(ours, server_context, client_context))  # type: ignore[arg-type]
            finally:
                _PEERS.pop(ours).close()
                ours.close()

    return run_scenario  # type: ignore[return-value]


_PEERS: dict[socket.socket, socket.socket] = {}


async def serve(
    ours: socket.socket, context: ssl.SSLContext, *, handshake: float = 5, close: float = 5
) -> tuple[Above, TLSConnection]:
    above = Above()
    tls = TLSConnection(
        above, context, server_side=True, handshake_timeout_seconds=handshake, close_timeout_seconds=close
    )
    await asyncio.get_running_loop().connect_accepted_socket(lambda: tls, ours)
    return above, tls


async def connect(ours: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Do the peer's handshake in a thread."""
    peer = await asyncio.to_thread(context.wrap_socket, _PEERS[ours], server_hostname="server")
    _PEERS[ours] = peer
    return peer


def receive(peer: ssl.SSLSocket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := peer.recv(65536)):
        data += more
    return bytes(data)


def test_bytes_arrive_whole_both_ways(run: Run) -> None:
    payload = bytes(range(256)) * 8192

    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, _ = await serve(ours, server)
        peer = await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        above.open_transport.write(payload)
        assert await asyncio.to_thread(receive, peer, len(payload)) == payload
        await asyncio.to_thread(peer.sendall, payload)
        await above.until(lambda: len(above.received) == len(payload))
        assert above.received == payload
        assert above.open_transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        above.open_transport.abort()
        await above.until(lambda: "lost" in above.told)

    run(scenario)


def test_only_an_announced_end_is_told_as_one(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, _ = await serve(ours, server)
        peer = await connect(ours, client)
        await asyncio.to_thread(peer.sendall, b"x")
        await above.until(lambda: above.received == b"x")
        await asyncio.to_thread(peer.unwrap)
        await above.until(lambda: "lost" in above.told)
        assert above.told == ["made", "eof", "lost"]
        assert above.failure is None

    run(scenario)


def test_the_end_of_tcp_alone_is_no_end_of_the_data(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, _ = await serve(ours, server)
        peer = await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        peer.shutdown(socket.SHUT_WR)
        await above.until(lambda: "lost" in above.told)
        assert above.told == ["made", "lost"]

    run(scenario)


def test_a_broken_record_ends_the_connection_with_its_reason(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, _ = await serve(ours, server)
        peer = await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        with socket.socket(fileno=peer.detach()) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            await above.until(lambda: "lost" in above.told)
        assert isinstance(above.failure, ssl.SSLError)

    run(scenario)


def test_a_pause_leaves_the_rest_to_the_kernel_and_loses_nothing(run: Run) -> None:
    payload = b"y" * (8 * 1024 * 1024)

    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, tls = await serve(ours, server)
        peer = await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        above.open_transport.pause_reading()
        sending = asyncio.get_running_loop().run_in_executor(None, peer.sendall, payload)
        done, _ = await asyncio.wait((sending,), timeout=0.3)
        assert not done
        assert above.received == b""
        assert tls._incoming.pending == 0
        above.open_transport.resume_reading()
        await above.until(lambda: len(above.received) >= 1024)
        above.open_transport.pause_reading()
        assert tls._incoming.pending < LARGEST_BYTES
        above.open_transport.resume_reading()
        await sending
        await above.until(lambda: len(above.received) == len(payload))
        above.open_transport.abort()
        await above.until(lambda: "lost" in above.told)

    run(scenario)


def test_a_peer_that_takes_nothing_holds_the_limit_and_one_write(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, tls = await serve(ours, server)
        await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        piece, written = b"z" * 65536, 0
        while "pause" not in above.told:
            above.open_transport.write(piece)
            written += len(piece)
            assert written < 64 * 1024 * 1024
            await asyncio.sleep(0)
        assert tls.get_write_buffer_size() <= WRITE_BUFFER_BYTES + 2 * len(piece)
        above.open_transport.abort()
        await above.until(lambda: "lost" in above.told)

    run(scenario)


def test_closing_waits_for_a_slow_peer_as_long_as_it_takes_bytes(run: Run) -> None:
    payload = b"z" * (6 * 1024 * 1024)

    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        above, _ = await serve(ours, server, close=0.4)
        peer = await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        above.open_transport.write(payload)
        above.open_transport.close()
        received = 0
        while more := await asyncio.to_thread(peer.recv, 16384):
            received += len(more)
            if received % (256 * 1024) == 0:
                await asyncio.sleep(0.05)
        assert received == len(payload)

    run(scenario)


def test_closing_does_not_wait_for_a_peer_that_takes_nothing(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, _ = await serve(ours, server, close=0.2)
        await connect(ours, client)
        await above.until(lambda: "made" in above.told)
        above.open_transport.write(b"z" * (16 * 1024 * 1024))
        above.open_transport.close()
        await above.until(lambda: "lost" in above.told)

    run(scenario)


def test_a_handshake_that_takes_too_long_is_ended(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, tls = await serve(ours, server, handshake=0.1)
        with pytest.raises(ConnectionAbortedError):
            await tls.shake_hands()
        assert await asyncio.to_thread(_PEERS[ours].recv, 1) == b""
        assert above.told == []

    run(scenario)


def test_a_peer_that_speaks_no_tls_is_told_so_and_dropped(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, tls = await serve(ours, server)
        _PEERS[ours].sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await tls.shake_hands()
        assert above.told == []

    run(scenario)


def test_a_peer_that_goes_within_the_handshake_fails_it(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        above, tls = await serve(ours, server)
        _PEERS[ours].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _PEERS[ours].close()
        with pytest.raises(ConnectionError):
            await tls.shake_hands()
        assert above.told == []

    run(scenario)


def test_a_client_refuses_a_certificate_of_another_ca(run: Run) -> None:
    async def scenario(ours: socket.socket, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        strict = ssl.create_default_context(cadata=make_identity("other").certificate_pem.decode())
        above = Above()
        tls = TLSConnection(
            above,
            strict,
            server_side=False,
            server_hostname="server",
            handshake_timeout_seconds=5,
            close_timeout_seconds=1,
        )
        peer = asyncio.get_running_loop().run_in_executor(None, _serve_blocking, server, _PEERS[ours])
        await asyncio.get_running_loop().create_connection(lambda: tls, sock=ours)
        with pytest.raises(ssl.SSLCertVerificationError):
            await tls.shake_hands()
        assert "unknown ca" in str(await peer).lower()

    run(scenario)


def _serve_blocking(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLError | None:
    try:
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)
    except ssl.SSLError as error:
        return error
    return None
