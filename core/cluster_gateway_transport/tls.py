"""TLS over a connection of the event loop, holding next to nothing.

The event loops' own TLS reads 256 KiB at once, reads as much again while its user has paused reading, and takes 512 KiB
of a user's writes before it asks to wait; uvloop's keeps the buffer that it reads into for each connection. A stream
that stands still holds all that, and there are thousands. Here the buffer is shared, a pause stops the socket itself,
and what is written goes straight to the transport below, whose limit is the only one.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final, cast

from cluster_gateway_transport.pieces import LARGEST_BYTES, PIECES

if TYPE_CHECKING:
    from collections.abc import Callable

WRITE_BUFFER_BYTES: Final = 32 * 1024
"""Bytes held for a slow peer, besides the last write, before the user is asked to wait. The kernel's buffer is what
keeps a fast connection busy."""
_LARGEST_RECORD_BYTES: Final = 16 * 1024 + 256 + 5
"""Source: RFC 8446 section 5.2."""
_PIECE_BYTES: Final = 16 * 1024
"""Bytes that pass through OpenSSL's buffers at once: those keep the size of the largest that they held."""
_WANTS_MORE: Final = (ssl.SSLWantReadError, ssl.SSLSyscallError)


class _Scratch(threading.local):
    """Where a thread's loop reads into and decrypts: filled and emptied within one callback."""

    def __init__(self) -> None:
        self.encrypted = memoryview(bytearray(LARGEST_BYTES))
        # Of the read before, less than a record can be left.
        self.plain = memoryview(bytearray(LARGEST_BYTES + 2 * _LARGEST_RECORD_BYTES))


_SCRATCH: Final = _Scratch()


class TLSConnection(asyncio.Transport, asyncio.BufferedProtocol):
    """One connection: the protocol of the transport below, and the transport of the protocol above.

    The protocol above hears `connection_made` once the handshake is done, `eof_received` only when the peer announced
    the end (close_notify), and `connection_lost` if it heard `connection_made`.

    """

    __slots__ = (
        "_above",
        "_backlog",
        "_below",
        "_close_timeout",
        "_closing",
        "_context",
        "_failure",
        "_handshake",
        "_handshake_timeout",
        "_incoming",
        "_loop",
        "_open",
        "_outgoing",
        "_plain",
        "_reading_paused",
        "_scratch",
        "_server_hostname",
        "_server_side",
        "_timer",
        "_tls",
        "_unsent",
        "_writing_paused",
    )

    def __init__(
        self,
        above: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        handshake_timeout_seconds: float,
        close_timeout_seconds: float,
        server_hostname: str | None = None,
    ) -> None:
        """Prepare to take a connection.

        Args:
            above: Who uses it.
            context: TLS material.
            server_side: Whether the peer is the client.
            handshake_timeout_seconds: Limit of the handshake.
            close_timeout_seconds: How long a closed connection waits for the peer's close_notify, counted from the
                last byte that the peer took.
            server_hostname: Name that the peer's certificate must carry.
        """
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._above: asyncio.Protocol | None = above
        self._below: asyncio.Transport | None = None
        self._context = context
        self._server_side = server_side
        self._server_hostname = server_hostname
        self._handshake_timeout = handshake_timeout_seconds
        self._close_timeout = close_timeout_seconds
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._scratch = _SCRATCH.encrypted
        self._plain = _SCRATCH.plain
        self._backlog: list[bytes | memoryview[int]] = []
        self._open = False
        self._closing = False
        self._reading_paused = False
        self._writing_paused = False
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Future[None] | None = None
        self._failure: Exception | None = None

    async def shake_hands(self) -> None:
        """Wait for the end of the handshake; for who opened the connection.

        Raises:
            ssl.SSLError: TLS failed.
            ConnectionResetError: The peer ended the connection.
            ConnectionAbortedError: It took too long.
        """
        if not (self._open or self._failure):
            self._handshake = self._loop.create_future()
            await self._handshake
        if self._failure is not None:
            raise self._failure

    # What the transport below calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake; asyncio.BaseProtocol."""
        below = self._below = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        below.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._timer = self._loop.call_later(self._handshake_timeout, self._give_up_on_handshake)
        try:
            self._tls = self._context.wrap_bio(
                self._incoming, self._outgoing, server_side=self._server_side, server_hostname=self._server_hostname
            )
        except (ssl.SSLError, ValueError) as error:
            self._fail_handshake(error)
        else:
            self._shake_hands()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; asyncio.BaseProtocol."""
        self._closing = True
        self._stop_timer()
        self._backlog.clear()
        above, self._above, self._below = self._above, None, None
        if not self._open:
            self._end_handshake(exc or ConnectionResetError("the peer ended the connection"))
        elif above is not None:
            above.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to; asyncio.BufferedProtocol. A user that pauses when told of it holds no more."""
        del sizehint
        return self._scratch[: PIECES.size]

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes from the peer; asyncio.BufferedProtocol."""
        if not self._open or self._closing or nbytes <= _PIECE_BYTES:
            self._incoming.write(self._scratch[:nbytes])
        if self._open and not self._closing:
            self._read(nbytes)
        elif self._closing:
            self._finish_closing()
        else:
            self._shake_hands()

    def eof_received(self) -> bool:
        """Take the end of TCP, which nobody above takes for an end of the data; asyncio.BaseProtocol."""
        if not self._closing:
            self._closing = True
            self._watch_closing()
        return False

    def pause_writing(self) -> None:
        """Ask the user to wait; asyncio.BaseProtocol."""
        self._writing_paused = True
        if self._open and self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Let the user go on; asyncio.BaseProtocol."""
        self._writing_paused = False
        if self._open and self._above is not None:
            self._above.resume_writing()

    # What the protocol above calls

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes; asyncio.WriteTransport."""
        if self._closing or not self._open or not data:
            return
        if len(data) <= _PIECE_BYTES:
            self._backlog.append(bytes(data))
        else:
            whole = memoryview(bytes(data))
            self._backlog += [whole[start : start + _PIECE_BYTES] for start in range(0, len(whole), _PIECE_BYTES)]
        self._send()

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connections here; asyncio.WriteTransport."""
        return False

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken; asyncio.WriteTransport."""
        below = 0 if self._below is None else self._below.get_write_buffer_size()
        return below + sum(map(len, self._backlog))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the user is asked to wait; asyncio.WriteTransport."""
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        """Whether bytes are handed on; asyncio.ReadTransport."""
        return not (self._reading_paused or self._closing)

    def pause_reading(self) -> None:
        """Leave the socket alone; asyncio.ReadTransport."""
        if not self._reading_paused and not self._closing and self._below is not None:
            self._reading_paused = True
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read on; asyncio.ReadTransport."""
        if self._reading_paused:
            self._reading_paused = False
            if not self._closing and self._below is not None:
                self._below.resume_reading()

    def is_closing(self) -> bool:
        """Whether nothing more can be written; asyncio.BaseTransport."""
        return self._closing

    def close(self) -> None:
        """Send what was written and a close_notify, and wait a while for the peer's; asyncio.BaseTransport.

        What the peer still sends is read and dropped meanwhile: closing TCP on it would reset the connection, and the
        peer could lose what it has not read.
        """
        if self._closing or self._below is None:
            return
        self._closing = True
        if self._reading_paused:
            self._reading_paused = False
            self._below.resume_reading()
        self._watch_closing()
        self._finish_closing()

    def abort(self) -> None:
        """End TCP at once; asyncio.WriteTransport."""
        self._closing = True
        if self._below is not None:
            self._below.abort()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the user; asyncio.BaseTransport."""
        if self._above is None:
            raise RuntimeError("the connection has ended")
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell of TLS what asyncio's transports tell, and of TCP what the transport below does."""
        match name:
            case "ssl_object":
                return self._tls
            case "sslcontext":
                return self._context
            case "peercert":
                return self._tls.getpeercert() if self._tls is not None else default
            case _:
                return default if self._below is None else self._below.get_extra_info(name, default)

    # Inside

    def _shake_hands(self) -> None:
        tls, above = self._tls, self._above
        if tls is None or above is None:
            return
        try:
            tls.do_handshake()
        except _WANTS_MORE:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail_handshake(error)
            return
        self._flush()
        self._stop_timer()
        self._open = True
        above.connection_made(self)
        self._end_handshake(None)
        if self._writing_paused:
            above.pause_writing()
        self._read(0)

    def _end_handshake(self, failure: Exception | None) -> None:
        self._failure = self._failure or failure
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_result(None)

    def _fail_handshake(self, error: Exception) -> None:
        """End TCP behind the alert that tells the peer why."""
        self._closing = True
        self._stop_timer()
        self._end_handshake(error)
        self._flush()
        if self._below is not None:
            self._below.close()

    def _give_up_on_handshake(self) -> None:
        self._timer = None
        self._end_handshake(ConnectionAbortedError("the TLS handshake took too long"))
        self.abort()

    def _read(self, arrived: int) -> None:
        """Hand on what has arrived: all of it at once, so that a pause leaves less than a record behind.

        Args:
            arrived: How many encrypted bytes; more than a piece of them are still in the scratch buffer.
        """
        above = self._above
        if above is None:
            return
        size, ended = 0, False
        try:
            if arrived > _PIECE_BYTES:
                for start in range(0, arrived, _PIECE_BYTES):
                    self._incoming.write(self._scratch[start : min(start + _PIECE_BYTES, arrived)])
                    size, ended = self._decrypt(size)
            else:
                size, ended = self._decrypt(0)
        except ssl.SSLError as error:
            self._break(error)
            return
        if self._outgoing.pending or self._backlog:
            self._send()
        if size:
            above.data_received(bytes(self._plain[:size]))
        if ended and not self._closing:
            above.eof_received()
            self.close()

    def _decrypt(self, size: int) -> tuple[int, bool]:
        """Decrypt what there is behind what the scratch buffer holds; return its new size and whether TLS has ended."""
        tls, plain, incoming = self._tls, self._plain, self._incoming
        if tls is None:
            return size, False
        try:
            while incoming.pending or tls.pending():
                # With a buffer it returns a number, whatever its types say.
                count = cast("int", tls.read(len(plain) - size, plain[size:]))
                if not count:
                    return size, True
                size += count
        except _WANTS_MORE:
            pass
        except ssl.SSLZeroReturnError:
            return size, True
        return size, False

    def _send(self) -> None:
        """Encrypt what was written; during a renegotiation that waits for the peer."""
        tls, backlog = self._tls, self._backlog
        if tls is None:
            return
        encrypted: list[bytes] = []
        try:
            while backlog:
                data = backlog[0]
                sent = tls.write(data)
                encrypted.append(self._outgoing.read())
                if sent < len(data):
                    backlog[0] = data[sent:]
                else:
                    del backlog[0]
        except _WANTS_MORE:
            pass
        except ssl.SSLError as error:
            self._break(error)
            return
        if self._outgoing.pending:
            encrypted.append(self._outgoing.read())
        if encrypted and self._below is not None:
            self._below.write(encrypted[0] if len(encrypted) == 1 else b"".join(encrypted))

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._below is not None:
            self._below.write(data)

    def _break(self, error: ssl.SSLError) -> None:
        """End a connection on which the peer broke TLS."""
        self._closing = True
        self._flush()  # the alert
        below = self._below
        if below is not None:
            self._lose(below, error)

    def _lose(self, below: asyncio.Transport, error: Exception) -> None:
        """End TCP, and tell the user why, which `abort` would not."""
        above, self._above = self._above, None
        below.abort()
        if self._open and above is not None:
            self._loop.call_soon(cast("Callable[[Exception], None]", above.connection_lost), error)

    def _finish_closing(self) -> None:
        """Say the end of TLS, drop what the peer still sends, and end TCP once it has said its end."""
        tls, below = self._tls, self._below
        if tls is None or below is None:
            return
        try:
            while self._incoming.pending or tls.pending():
                if not tls.read(len(self._plain), self._plain):
                    break
        except ssl.SSLError:
            pass  # it wants more, has ended, or what it sent no longer matters
        try:
            tls.unwrap()
        except _WANTS_MORE:
            self._flush()
            return
        except ssl.SSLError:
            pass
        self._flush()
        below.close()

    def _watch_closing(self) -> None:
        self._stop_timer()
        self._unsent = self.get_write_buffer_size()
        self._timer = self._loop.call_later(self._close_timeout, self._give_up_on_close)

    def _give_up_on_close(self) -> None:
        """Drop a peer that neither ended nor took a byte since the last look."""
        self._timer = None
        below = self._below
        if below is None:
            return
        unsent = below.get_write_buffer_size()
        if unsent and unsent < self._unsent:
            self._unsent = unsent
            self._timer = self._loop.call_later(self._close_timeout, self._give_up_on_close)
        else:
            below.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
