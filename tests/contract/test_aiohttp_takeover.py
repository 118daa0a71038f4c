"""What serving/ relies on in aiohttp that is no public promise (pitfalls A1, A3, A12): a release may change it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from aiohttp import http_parser, web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo


class Recorder(RequestHandler):
    """Parses without handling: no task is started."""

    def __init__(self) -> None:
        server = web.Server(lambda _request: None)  # type: ignore[arg-type,return-value]
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)


@pytest.fixture
async def protocol() -> Recorder:
    return Recorder()


def switch(protocol_name: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol_name}\r\n\r\n".encode()


class Taker:
    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.ended = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data.append(data)
        return False, b""

    def feed_eof(self) -> None:
        self.ended = True


def test_the_compiled_parser_is_in_use() -> None:
    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


async def test_what_follows_a_websocket_head_is_held_and_handed_over(protocol: Recorder) -> None:
    protocol.data_received(switch("websocket") + b"first")
    assert protocol._upgraded
    protocol.data_received(b"second")
    taker: Any = Taker()
    protocol.set_parser(taker)
    protocol.data_received(b"third")
    assert b"".join(taker.data) == b"firstsecondthird"


async def test_what_follows_a_spdy_head_is_lost_unless_held(protocol: Recorder) -> None:
    protocol.data_received(switch("SPDY/3.1") + b"first")
    message, payload = protocol._messages[-1]
    assert message.upgrade  # type: ignore[union-attr]
    assert payload is EMPTY_PAYLOAD
    assert not protocol._upgraded
    assert protocol._message_tail == b""
    protocol._upgraded, protocol._message_tail = True, b"first"
    protocol.data_received(b"second")
    taker: Any = Taker()
    protocol.set_parser(taker)
    assert b"".join(taker.data) == b"firstsecond"
    assert len(protocol._messages) == 1


async def test_a_malformed_head_is_queued_as_an_error(protocol: Recorder) -> None:
    protocol.data_received(b"junk\r\n\r\n")
    message, payload = protocol._messages[-1]
    assert isinstance(message, _ErrInfo)
    assert payload is EMPTY_PAYLOAD
    assert protocol._request_count == 1


async def test_a_malformed_body_is_told_to_the_connection_and_not_to_its_reader(protocol: Recorder) -> None:
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    payload = protocol._messages[-1][1]
    protocol.data_received(b"zz\r\n")
    assert isinstance(protocol._messages[-1][0], _ErrInfo)
    assert payload.exception() is None
    assert not payload.is_eof()


def test_refusals_go_through_handle_error() -> None:
    parameters = inspect.signature(RequestHandler.handle_error).parameters
    assert list(parameters) == ["self", "request", "status", "exc", "message"]
    assert "handle_error" in inspect.getsource(RequestHandler._make_error_handler)


@pytest.mark.parametrize(
    "attribute",
    [
        "_waiter",
        "_current_request",
        "_task_handler",
        "_force_close",
        "_close",
        "_payload_parser",
        "_message_tail",
        "_paused",
        "_reading_paused",
    ],
)
async def test_the_state_that_is_looked_at_exists(protocol: Recorder, attribute: str) -> None:
    assert hasattr(protocol, attribute)


async def test_a_response_s_keep_alive_is_what_the_connection_goes_by() -> None:
    source = inspect.getsource(RequestHandler.start)
    assert "self._keepalive = bool(resp.keep_alive)" in source
    assert "await prepare_meth(request)" in inspect.getsource(RequestHandler.finish_response)


async def test_a_connection_that_is_to_close_takes_no_further_bytes_of_a_body(protocol: Recorder) -> None:
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na")
    payload = protocol._messages[-1][1]
    protocol._close = True
    payload.set_exception(ValueError())
    payload.feed_eof()
    protocol.data_received(b"bcd")
    assert payload.total_bytes == 1
    with pytest.raises(ValueError):  # noqa: PT011 - the one that was set
        await payload.read(1)


async def test_reading_more_at_once_raises_what_is_read_ahead(protocol: Recorder) -> None:
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na")
    payload = protocol._messages[-1][1]
    low, high = payload.get_read_buffer_limits()
    await payload.read(1)
    assert payload.get_read_buffer_limits() == (low, high)
    payload.feed_data(b"b")
    await payload.read(2 * low)
    assert payload.get_read_buffer_limits() == (2 * low, 4 * low)


def test_a_response_is_prepared_before_the_next_request_is_read() -> None:
    source = inspect.getsource(RequestHandler.start)
    assert source.index("resp, reset = await task") < source.index("self._next_keepalive_close_time = close_time")
