"""How failures of the two directions become one; the rest is tested through gRPC, in test_routing_servicer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc.aio import EOF

from cluster_gateway_core.errors import InvalidRequestError, ResponseTruncatedError
from cluster_gateway_core.model.http import RequestHead, ResponseHead
from cluster_gateway_core.routing.request_info import parse_request_info
from cluster_gateway_core.server.drain import Work
from cluster_gateway_core.server.relay import Relay
from cluster_gateway_core.upstream.deadline import Deadline, Deadlines
from cluster_gateway_transport import PIECES
from cluster_gateway_transport.pieces import LARGEST_BYTES, SMALLEST_BYTES
from clustergateway.routing.v1.routing_service_pb2 import ExchangeRequest, ExchangeResponse, RequestEnd


class Stream:
    """The caller's side: yields what it was given, then waits for ever."""

    def __init__(self, *messages: object) -> None:
        self.written: list[ExchangeResponse] = []
        self._messages = list(messages)

    async def read(self) -> object:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def write(self, message: ExchangeResponse) -> None:
        self.written.append(message)


class Cluster:
    """The cluster's side: an answer in pieces, each ready at once; without pieces it never answers."""

    def __init__(self, *pieces: bytes, cut: bool = False, slow: bool = False) -> None:
        self.sent = b""
        self.finished = False
        self.is_between_chunks = True
        self._pieces = list(pieces)
        self._cut = cut
        self._slow = slow

    async def send(self, body: bytes) -> None:
        if self._slow:
            await asyncio.Event().wait()
        self.sent += body

    def finish(self) -> None:
        self.finished = True

    async def response_head(self, *, limited: bool) -> ResponseHead:
        if not self._pieces:
            await asyncio.Event().wait()
        return ResponseHead(status=200, reason=b"OK", headers=[(b"A", b"b")])

    def take_body(self, limit: int | None = None) -> tuple[bytes, bool]:
        if not self._pieces:
            raise ResponseTruncatedError("cut")
        piece = self._pieces.pop(0)
        if limit is not None and len(piece) > limit:
            self._pieces.insert(0, piece[limit:])
            piece = piece[:limit]
        return piece, not self._pieces and not self._cut

    def expect_body(self, *, limited: bool) -> Deadline:
        return Deadlines(shortest_seconds=1).start(0, self.finish)

    expect_reader = expect_body

    async def body_readable(self, *, limited: bool) -> None:
        await asyncio.sleep(0)


async def run(stream: Stream, cluster: Cluster, *, has_body: bool = False, first: bytes = b"") -> None:
    request = RequestHead(method="POST", target=b"/api/v1/pods", headers=[], has_body=has_body)
    info = parse_request_info("POST", "/api/v1/pods")
    context: Any = stream
    exchange: Any = cluster
    async with asyncio.timeout(5):
        await Relay(context, exchange, request, info, Work()).run(ExchangeRequest(body=first), "c")


async def test_short_answer_is_one_message() -> None:
    stream = Stream()
    await run(stream, Cluster(b"hi"))

    (message,) = stream.written
    assert (message.head.status, message.body, message.HasField("end")) == (200, b"hi", True)


async def test_no_message_holds_more_than_the_contract_allows() -> None:
    stream = Stream()
    body = bytes(range(256)) * 12 * 1024
    await run(stream, Cluster(body))

    assert b"".join(message.body for message in stream.written) == body
    assert max(len(message.body) for message in stream.written) == LARGEST_BYTES
    assert [message.HasField("head") for message in stream.written] == [True] + [False] * 11
    assert [message.HasField("end") for message in stream.written] == [False] * 11 + [True]


async def test_pieces_shrink_while_many_callers_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIECES, "waiting", 1000)
    stream = Stream()
    await run(stream, Cluster(bytes(256 * 1024)))

    assert {len(message.body) for message in stream.written} == {SMALLEST_BYTES}
    assert PIECES.waiting == 1000


async def test_body_is_sent_beside_waiting_for_the_answer() -> None:
    cluster = Cluster(b"hi")
    await run(Stream(ExchangeRequest(body=b"b"), ExchangeRequest(body=b"c", end=RequestEnd())), cluster, has_body=True)
    assert b"abc".startswith(cluster.sent)


@pytest.mark.parametrize("message", [EOF, ExchangeRequest(head={})], ids=["no end", "second head"])
async def test_fault_of_the_caller_ends_the_wait_for_the_answer(message: object) -> None:
    with pytest.raises(InvalidRequestError):
        await run(Stream(message), Cluster(), has_body=True)


async def test_fault_of_the_cluster_ends_a_blocked_upload() -> None:
    stream = Stream()

    with pytest.raises(ResponseTruncatedError):
        await run(stream, Cluster(b"x", cut=True, slow=True), has_body=True, first=b"a")

    assert not any(message.HasField("end") for message in stream.written)


async def test_early_answer_ends_a_blocked_upload() -> None:
    stream = Stream()
    await run(stream, Cluster(b"no", slow=True), has_body=True, first=b"a")

    assert stream.written[-1].HasField("end")


async def test_cancellation_passes() -> None:
    task = asyncio.get_running_loop().create_task(run(Stream(), Cluster(), has_body=True), name="relay")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
