"""What the gRPC library raises at each point of a failed call, as one CoreError (research, part d3: G6 and G7)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.support.routing_core import serve
from tests.support.scripted_cluster import WAIT_SECONDS

from cluster_gateway_client import CoreClient, CoreEndpoint, CoreError
from cluster_gateway_core.errors import OverloadedError
from cluster_gateway_core.server.status_mapping import abort_with
from clustergateway.errors.v1.error_reason_pb2 import ERROR_REASON_TIMEOUT, HOP_CLUSTER, Error
from clustergateway.routing.v1 import routing_service_pb2_grpc
from clustergateway.routing.v1.routing_service_pb2 import (
    ExchangeRequest,
    ExchangeResponse,
    RequestHead,
    ResponseEnd,
    ResponseHead,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

HEAD = RequestHead(cluster_name="c", method="GET", target=b"/")
RESPONSE = ExchangeResponse(head=ResponseHead(status=200))
END = ExchangeResponse(end=ResponseEnd())


class Core(routing_service_pb2_grpc.RoutingServiceServicer):
    """Does what a test says, and tells when it has ended."""

    def __init__(self) -> None:
        self.act: Callable[[Any], Awaitable[None]] | None = None
        self.ended = asyncio.Event()
        self.cancelled = False

    async def Exchange(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        assert self.act is not None
        try:
            await self.act(context)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
async def client(core: Core) -> AsyncIterator[CoreClient]:
    async with serve(core) as client, asyncio.timeout(4 * WAIT_SECONDS):
        yield client


async def fail_to_receive(client: CoreClient) -> CoreError:
    async with client.exchange() as exchange:
        with pytest.raises(CoreError) as caught:  # noqa: PT012 - wherever it is met
            await exchange.start(HEAD, end=True)
            while True:
                await exchange.receive()
    return caught.value


async def fail_to_send(client: CoreClient) -> CoreError:
    async with client.exchange() as exchange:
        with pytest.raises(CoreError) as caught:  # noqa: PT012 - whichever call meets it first
            await exchange.start(HEAD, end=False)
            while True:
                await exchange.send(b"x" * 1024 * 1024)
    return caught.value


CODES = [
    (grpc.StatusCode.UNAVAILABLE, "CORE_UNAVAILABLE"),
    (grpc.StatusCode.CANCELLED, "CORE_UNAVAILABLE"),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED"),
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    (grpc.StatusCode.DATA_LOSS, "INTERNAL"),
]


@pytest.mark.parametrize(("code", "reason"), CODES)
@pytest.mark.parametrize("fail", [fail_to_receive, fail_to_send])
async def test_failed_call_is_told_by_its_status_wherever_it_is_met(
    core: Core,
    client: CoreClient,
    fail: Callable[[CoreClient], Awaitable[CoreError]],
    code: grpc.StatusCode,
    reason: str,
) -> None:
    """G6; a status CANCELLED must not look like the cancellation of our own task."""

    async def act(context: Any) -> None:
        await context.read()
        await context.abort(code, "for a reason")

    core.act = act
    error = await fail(client)

    assert error.reason == reason
    assert code.name in error.message


@pytest.mark.parametrize("fail", [fail_to_receive, fail_to_send])
async def test_details_of_a_failed_call_are_read(
    core: Core, client: CoreClient, fail: Callable[[CoreClient], Awaitable[CoreError]]
) -> None:
    async def act(context: Any) -> None:
        await context.read()
        await abort_with(context, OverloadedError("too much", cluster_name="c", hint="wait", retry_after_seconds=2.5))

    core.act = act
    error = await fail(client)

    assert (error.reason, error.message, error.hop) == ("OVERLOADED", "too much", "CORE")
    assert (error.cluster_name, error.hint, error.retry_after_seconds) == ("c", "wait", 2.5)


async def test_stream_that_ends_without_an_end_is_cut(core: Core, client: CoreClient) -> None:
    async def act(context: Any) -> None:
        await context.read()
        await context.write(RESPONSE)

    core.act = act

    assert (await fail_to_receive(client)).reason == "RESPONSE_TRUNCATED"


async def test_stream_that_ends_before_any_answer_is_cut_for_the_sender_too(core: Core, client: CoreClient) -> None:
    async def act(context: Any) -> None:
        await context.read()

    core.act = act

    assert (await fail_to_send(client)).reason == "RESPONSE_TRUNCATED"


async def test_error_at_the_end_of_a_response_is_raised(core: Core, client: CoreClient) -> None:
    async def act(context: Any) -> None:
        await context.read()
        await context.write(RESPONSE)
        error = Error(reason=ERROR_REASON_TIMEOUT, hop=HOP_CLUSTER, message="slow", cluster_name="c")
        await context.write(ExchangeResponse(body=b"x", end=ResponseEnd(error=error)))

    core.act = act
    error = await fail_to_receive(client)

    assert (error.reason, error.hop, error.retry_after_seconds) == ("TIMEOUT", "CLUSTER", None)


async def test_nobody_listening_is_told(tmp_path: Path) -> None:
    async with CoreClient(CoreEndpoint(target=f"unix:{tmp_path}/none")) as client:
        error = await fail_to_receive(client)

    assert error.reason == "CORE_UNAVAILABLE"
    assert error.retry_after_seconds is not None


async def test_leaving_early_cancels_the_call(core: Core, client: CoreClient) -> None:
    """G7: a call that is only dropped would go on."""
    started = asyncio.Event()

    async def act(context: Any) -> None:
        await context.read()
        started.set()
        await asyncio.Event().wait()

    core.act = act
    async with client.exchange() as exchange:
        await exchange.start(HEAD, end=True)
        await started.wait()
    await core.ended.wait()

    assert core.cancelled


async def test_leaving_after_the_end_lets_the_core_finish(core: Core, client: CoreClient) -> None:
    left = asyncio.Event()

    async def act(context: Any) -> None:
        last = bool((await context.read()).body)
        await context.write(RESPONSE)
        await context.write(END)
        if not last:
            await left.wait()

    core.act = act
    for body in (b"", b"last"):  # the second call arrives behind a cancellation of the first
        async with client.exchange() as exchange:
            await exchange.start(HEAD, body, end=True)
            while not (await exchange.receive()).HasField("end"):
                pass
    await core.ended.wait()
    assert not core.cancelled
    left.set()


@pytest.mark.parametrize("waiting", ["receive", "send"])
async def test_cancellation_of_the_task_passes(core: Core, client: CoreClient, waiting: str) -> None:
    started = asyncio.Event()

    async def act(context: Any) -> None:
        await context.read()
        started.set()
        await asyncio.Event().wait()

    async def run() -> None:
        async with client.exchange() as exchange:
            await exchange.start(HEAD, end=False)
            while True:
                await (exchange.receive() if waiting == "receive" else exchange.send(b"x" * 1024 * 1024))

    core.act = act
    task = asyncio.get_running_loop().create_task(run(), name="exchange")
    await started.wait()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    await core.ended.wait()


async def test_exchange_that_is_left_fails_whoever_still_waits(core: Core, client: CoreClient) -> None:
    """Another task's read must not look like that task's own cancellation."""

    async def act(context: Any) -> None:
        await context.read()
        await asyncio.Event().wait()

    core.act = act
    async with client.exchange() as exchange:
        await exchange.start(HEAD, end=False)
        receiving = asyncio.get_running_loop().create_task(exchange.receive(), name="reader")
        await asyncio.sleep(0)

    with pytest.raises(CoreError):
        await receiving
    with pytest.raises(CoreError):
        await exchange.send(b"x")
    with pytest.raises(CoreError):
        await exchange.receive()


async def test_early_answer_is_read_though_the_body_was_not_taken(core: Core, client: CoreClient) -> None:
    """RT-36."""

    async def act(context: Any) -> None:
        await context.read()
        await context.write(ExchangeResponse(head=ResponseHead(status=413), body=b"no", end=ResponseEnd()))

    core.act = act
    async with client.request("c", "POST", "/", body=b"x" * 32 * 1024 * 1024) as response:
        assert (response.status, await response.read()) == (413, b"no")


async def test_early_answer_in_many_messages_is_read_whole(core: Core, client: CoreClient) -> None:
    """RT-36."""

    async def act(context: Any) -> None:
        await context.read()
        await context.write(RESPONSE)
        for _ in range(20):
            await context.write(ExchangeResponse(body=b"y" * 10_000))
        await context.write(END)

    core.act = act
    async with client.request("c", "POST", "/", body=b"x" * 32 * 1024 * 1024) as response:
        assert await response.read() == b"y" * 200_000


async def test_answer_without_a_head_is_an_error(core: Core, client: CoreClient) -> None:
    async def act(context: Any) -> None:
        await context.read()
        await context.write(END)

    core.act = act
    with pytest.raises(CoreError, match="without a head"):
        async with client.request("c", "GET", "/"):
            pass


async def test_lines_are_put_together_from_pieces(core: Core, client: CoreClient) -> None:
    async def act(context: Any) -> None:
        await context.read()
        await context.write(ExchangeResponse(head=ResponseHead(status=200), body=b"a"))
        for piece in (b"b\nc\n", b"\nd"):
            await context.write(ExchangeResponse(body=piece))
        await context.write(END)

    core.act = act
    async with client.request("c", "GET", "/") as response:
        assert [line async for line in response.lines()] == [b"ab", b"c", b"", b"d"]


async def test_whole_small_request_is_one_message(core: Core, client: CoreClient) -> None:
    messages: list[ExchangeRequest] = []

    async def act(context: Any) -> None:
        messages.append(await context.read())
        await context.write(RESPONSE)
        await context.write(END)

    core.act = act
    async with client.request("c", "POST", "/x?y", headers=[("A", "\xe9")], body=b"hi") as response:
        assert await response.read() == b""

    head = messages[0].head
    assert (head.method, head.target, messages[0].body, messages[0].HasField("end")) == ("POST", b"/x?y", b"hi", True)
    assert [(h.name, h.value) for h in head.headers] == [(b"A", b"\xe9"), (b"Content-Length", b"2")]


def test_reason_of_a_newer_core_reads_as_internal() -> None:
    assert CoreError.from_message(Error(reason=999, hop=999)).reason == "INTERNAL"  # type: ignore[arg-type]
    assert CoreError.from_message(Error(reason=999, hop=999)).hop == "CORE"  # type: ignore[arg-type]
    assert CoreError.from_message(Error()).reason == "INTERNAL"
