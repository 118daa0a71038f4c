"""A cluster that does on each connection what a test wrote down, and keeps the bytes it got."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias, cast

from tests.support.received_request import split_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.hub_certificates import Identity
    from tests.support.received_request import ReceivedRequest

WAIT_SECONDS = 5.0
"""How long a test waits for what must happen, before it fails."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait until the bytes received on this connection, and not waited for yet, hold a text; forget up to its end."""

    until: bytes = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Dribble:
    """Send bytes in pieces of `size`, each written by itself."""

    data: bytes
    size: int = 1


class ReceiveRequest:
    """Wait for a whole request, whatever it is, and keep it; a malformed one fails the test."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Take whole requests and send for each what `by` returns, or do it, until either side ends."""

    by: Callable[[ReceivedRequest], bytes | Sequence[Step]]


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for an event; without one until the other side ends."""

    event: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class StopReading:
    """Read no more, until `event` is set."""

    event: asyncio.Event


class Close:
    """Close in good order: over TLS with a close_notify. What every script does at its end."""


class Drop:
    """End TCP with a FIN, over TLS without a close_notify."""


class Reset:
    """End TCP with a RST."""


Step: TypeAlias = "Send | Dribble | Receive | ReceiveRequest | Answer | Hold | StopReading | Close | Drop | Reset"


class ScriptedConnection(asyncio.Protocol):
    """One accepted connection.

    Attributes:
        received: Everything received.
        requests: Those that `ReceiveRequest` and `Answer` took.
        sent_bytes: How many bytes were given to the transport.
        ended: Set when the connection has ended.
        failure: Why it ended, where it was not in good order.
        fault: What was malformed in a request; leaving the cluster's context raises it.
    """

    def __init__(self, cluster: ScriptedCluster, script: Sequence[Step]) -> None:
        self.received = bytearray()
        self.requests: list[ReceivedRequest] = []
        self.sent_bytes = 0
        self.got_eof = False
        self.ended = asyncio.Event()
        self.failure: Exception | None = None
        self._cluster = cluster
        self._script = script
        self._unread = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self.fault: AssertionError | None = None

    @property
    def peer_port(self) -> int:
        """The other side's port; 0 once the connection has ended."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return int(name[1]) if name else 0

    @property
    def is_blocked(self) -> bool:
        """Whether the other side does not take what was sent."""
        return not self._writable.is_set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._cluster.connections.append(self)
        self._cluster.announce()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="scripted connection")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._unread += data
        self._tell()

    def eof_received(self) -> bool:
        self.got_eof = True
        self._tell()
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.failure = exc
        self.ended.set()
        self._writable.set()
        self._tell()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._tell()

    def resume_writing(self) -> None:
        self._writable.set()

    async def wait_for_bytes(self, data: bytes) -> None:
        """Wait until something was received."""
        await self._until(lambda: data in self.received)

    async def wait_for_request(self, index: int = 0) -> ReceivedRequest:
        """Wait until a request was taken whole."""
        await self._until(lambda: len(self.requests) > index)
        return self.requests[index]

    async def wait_until_blocked(self) -> None:
        """Wait until the other side takes no more."""
        await self._until(lambda: self.is_blocked)

    async def wait_ended(self) -> None:
        """Wait until the connection has ended."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self.ended.wait()

    async def stop(self) -> None:
        """End the connection and its script."""
        if self._transport is not None:
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.wait_ended()

    def _tell(self) -> None:
        self._news.set()
        self._cluster.announce()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def _run(self) -> None:
        try:
            if not await self._follow(self._script):
                await self._do(Close())
        except AssertionError as fault:
            self.fault = fault
            await self._do(Reset())

    async def _follow(self, script: Sequence[Step]) -> bool:
        """Whether the connection has ended with it."""
        for step in script:
            if self.ended.is_set():
                return True
            if isinstance(step, Answer):
                while (request := await self._receive_request()) is not None:
                    answer = step.by(request)
                    if await self._follow((Send(answer),) if isinstance(answer, bytes) else answer):
                        return True
                continue
            await self._do(step)
            if isinstance(step, Close | Drop | Reset):
                return True
        return False

    async def _do(self, step: Step) -> None:
        transport = self._transport
        assert transport is not None
        match step:
            case Send(data):
                await self._send(data)
            case Dribble(data, size):
                for start in range(0, len(data), size):
                    await self._send(data[start : start + size])
                    await asyncio.sleep(0)  # so that others see each piece
            case Receive(until):
                await self._receive(until)
            case ReceiveRequest():
                await self._receive_request()
            case Hold(event):
                await (event.wait() if event is not None else self._wait_for_end())
            case StopReading(event):
                transport.pause_reading()
                await event.wait()
                transport.resume_reading()
            case Close():
                transport.close()
            case Drop():
                with socket.socket(fileno=os.dup(self._raw_socket().fileno())) as raw:
                    raw.shutdown(socket.SHUT_RDWR)
                transport.abort()
            case Reset():
                raw = self._raw_socket()
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()

    async def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self.sent_bytes += len(data)
        self._transport.write(data)
        await self._writable.wait()

    async def _receive_request(self) -> ReceivedRequest | None:
        while (found := split_request(bytes(self._unread))) is None:
            if self.ended.is_set() or self.got_eof:
                return None
            self._news.clear()
            await self._news.wait()
        request, length = found
        del self._unread[:length]
        self.requests.append(request)
        self._tell()
        return request

    async def _receive(self, until: bytes) -> None:
        while until not in self._unread:
            if self.ended.is_set() or self.got_eof:
                return
            self._news.clear()
            await self._news.wait()
        del self._unread[: self._unread.index(until) + len(until)]

    async def _wait_for_end(self) -> None:
        while not (self.ended.is_set() or self.got_eof):
            self._news.clear()
            await self._news.wait()

    def _raw_socket(self) -> socket.socket:
        assert self._transport is not None
        raw: socket.socket = self._transport.get_extra_info("socket")
        return raw


class ScriptedCluster:
    """Accepts connections on loopback; each takes the next script, and one without a script does `otherwise`.

    Attributes:
        connections: Those accepted (over TLS: whose handshake is done), in order.
        otherwise: The script of connections beyond the scripts; by default it waits for ever.
    """

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.connections: list[ScriptedConnection] = []
        self.otherwise: Sequence[Step] = (Hold(),)
        self._scripts = list(scripts)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for connection in self.connections:
            await connection.stop()
        for connection in self.connections:
            if connection.fault is not None:
                raise connection.fault

    @property
    def requests(self) -> list[ReceivedRequest]:
        """What was taken whole on all connections, in the order of their connections."""
        return [request for connection in self.connections for request in connection.requests]

    @property
    def received(self) -> bytes:
        """Everything that was received on any connection."""
        return b"".join(connection.received for connection in self.connections)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def script(self, *scripts: Sequence[Step]) -> None:
        """Append scripts for the next connections."""
        self._scripts += scripts

    async def connection(self, index: int) -> ScriptedConnection:
        """Wait for a connection by its place in the order of arrival."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.connections) <= index:
                await self.changed()
        return self.connections[index]

    async def wait_all_ended(self) -> None:
        """Wait until no connection is open."""
        for connection in self.connections:
            await connection.wait_ended()

    async def changed(self) -> None:
        """Wait until something happens on any connection."""
        self._changed.clear()
        await self._changed.wait()

    def announce(self) -> None:
        """Wake whoever waits for a connection."""
        self._changed.set()

    def _accept(self) -> ScriptedConnection:
        return ScriptedConnection(self, self._scripts.pop(0) if self._scripts else self.otherwise)


def serving_context(identity: Identity, *, client_ca: Identity | None = None) -> ssl.SSLContext:
    """TLS as a cluster serves it; with `client_ca` it demands a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "chain.pem")  # noqa: PTH118 - load_cert_chain takes a path
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(identity.certificate_pem + identity.key_pem)
        context.load_cert_chain(path)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.certificate_pem.decode())
    return context
