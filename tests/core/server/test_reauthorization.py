"""Long-running exchanges end with the right by which they were opened (research, part a2)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.routing_core import serve_core
from tests.support.scripted_cluster import WAIT_SECONDS, Hold, Receive, ScriptedCluster, Send

from cluster_gateway_client import CoreError
from cluster_gateway_core.errors import AccessDeniedError, GatewayError, HubUnavailableError, InternalError
from cluster_gateway_core.server.reauthorization import Reauthorization
from cluster_gateway_core.settings import ReviewSettings
from clustergateway.routing.v1.routing_service_pb2 import RequestHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.routing_core import RoutingCore

    from cluster_gateway_client import CoreClient

_REQUEST = Receive(b"\r\n\r\n")
_WATCH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_OFTEN = ReviewSettings(reauthorization_seconds=0.05, reauthorization_patience_seconds=3600)
_UNREACHABLE = HubUnavailableError("the hub is away")

WATCH = RequestHead(cluster_name="managed1", method="GET", target=b"/api/v1/pods?watch=1")
SHELL = RequestHead(
    cluster_name="managed1", method="GET", target=b"/api/v1/namespaces/a/pods/b/exec", upgrade="websocket"
)
KINDS = [pytest.param(WATCH, _WATCH, id="watch"), pytest.param(SHELL, _SWITCH, id="exec")]


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(
    cluster: ScriptedCluster, reviews: ReviewSettings = _OFTEN
) -> AsyncIterator[tuple[RoutingCore, CoreClient]]:
    async with (
        asyncio.timeout(4 * WAIT_SECONDS),
        serve_core(cluster.address, reviews=reviews) as (core, client),
        asyncio.TaskGroup() as group,
    ):
        asking = group.create_task(core.reauthorization.run())
        yield core, client
        asking.cancel()


async def until_asked_again(core: RoutingCore) -> None:
    asked = len(core.authorizer.asked)
    while len(core.authorizer.asked) < asked + 2:  # noqa: ASYNC110 - a fake tells nobody
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(("head", "answer"), KINDS)
async def test_an_exchange_whose_right_is_withdrawn_is_cut_on_both_sides(
    cluster: ScriptedCluster, head: RequestHead, answer: bytes
) -> None:
    cluster.script((_REQUEST, Send(answer), Hold()))
    async with running(cluster) as (core, client), client.exchange() as exchange:
        await exchange.start(head, end=not head.upgrade)
        assert (await exchange.receive()).HasField("head")
        await until_asked_again(core)
        core.authorizer.denied.add("get")
        with pytest.raises(CoreError) as cut:  # noqa: PT012 - whichever piece brings it
            while True:
                await exchange.receive()
        assert (cut.value.reason, cut.value.message) == ("ACCESS_DENIED", "jane may not get")
        await cluster.connections[0].wait_ended()
        assert core.drain.active == 0
        assert core.reauthorization._open == {}


@pytest.mark.parametrize(("head", "answer"), KINDS)
async def test_an_exchange_goes_on_while_the_hub_cannot_be_asked(
    cluster: ScriptedCluster, head: RequestHead, answer: bytes
) -> None:
    more = asyncio.Event()
    cluster.script((_REQUEST, Send(answer), Hold(more), Send(b"3\r\n{}\n\r\n"), Hold()))
    async with running(cluster) as (core, client), client.exchange() as exchange:
        await exchange.start(head, end=not head.upgrade)
        first = await exchange.receive()
        body = first.body
        core.authorizer.failure = _UNREACHABLE
        await until_asked_again(core)
        more.set()
        while not body.endswith(b"{}\n\r\n" if head.upgrade else b"{}\n{}\n"):
            body += (await exchange.receive()).body
        core.authorizer.failure = None
        await until_asked_again(core)


async def test_an_exchange_is_cut_when_the_hub_cannot_be_asked_for_too_long(cluster: ScriptedCluster) -> None:
    cluster.script((_REQUEST, Send(_WATCH), Hold()))
    impatient = ReviewSettings(reauthorization_seconds=0.02, reauthorization_patience_seconds=0.1)
    async with running(cluster, impatient) as (core, client), client.exchange() as exchange:
        await exchange.start(WATCH, end=True)
        await exchange.receive()
        core.authorizer.failure = _UNREACHABLE
        with pytest.raises(CoreError) as cut:  # noqa: PT012 - whichever piece brings it
            while True:
                await exchange.receive()
        assert cut.value.reason == "HUB_UNAVAILABLE"


async def test_a_short_request_is_asked_about_once(cluster: ScriptedCluster) -> None:
    release = asyncio.Event()
    cluster.script((_REQUEST, Hold(release), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
    async with running(cluster) as (core, client), client.exchange() as exchange:
        await exchange.start(RequestHead(cluster_name="managed1", method="GET", target=b"/api"), end=True)
        await cluster.connection(0)
        assert core.reauthorization._open == {}
        release.set()
        assert (await exchange.receive()).head.status == 200
        assert len(core.authorizer.asked) == 1


async def test_each_exchange_is_asked_about_once_an_interval_whatever_others_do() -> None:
    clock = Clock()
    asked: list[str] = []

    async def hold(name: str, opened: asyncio.Event) -> None:
        async def ask() -> None:
            asked.append(name)

        async with reauthorization.repeat(ask):
            opened.set()
            await asyncio.Event().wait()

    reauthorization = Reauthorization(ReviewSettings(reauthorization_seconds=300), clock=clock)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for name in ("a", "b"):
            opened = asyncio.Event()
            tasks.append(group.create_task(hold(name, opened)))
            await opened.wait()
            clock.now += 100
        rounds = []
        for _ in range(6):
            asked.clear()
            clock.now += 100
            await reauthorization.ask_due()
            rounds.append("".join(asked))
        for task in tasks:
            task.cancel()
    assert rounds == ["a", "b", "", "a", "b", ""]
    assert reauthorization._open == {}


async def test_nothing_is_asked_where_the_interval_is_0() -> None:
    async def ask() -> None:
        raise InternalError("never asked")

    reauthorization = Reauthorization(ReviewSettings(reauthorization_seconds=0))
    async with reauthorization.repeat(ask):
        await reauthorization.run()
        await reauthorization.ask_due()


async def test_a_cancelled_caller_is_cancelled_and_not_denied() -> None:
    reauthorization = Reauthorization(ReviewSettings())
    entered = asyncio.Event()

    async def hold() -> None:
        async def ask() -> None:
            pass

        async with reauthorization.repeat(ask):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(hold())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("failure", [AccessDeniedError("no"), HubUnavailableError("away")])
async def test_an_exchange_that_ends_while_it_is_asked_about_is_left_alone(failure: GatewayError) -> None:
    clock = Clock()
    asked, release = asyncio.Event(), asyncio.Event()
    reauthorization = Reauthorization(
        ReviewSettings(reauthorization_seconds=1, reauthorization_patience_seconds=0), clock=clock
    )

    async def ask() -> Any:
        asked.set()
        await release.wait()
        raise failure

    async with asyncio.TaskGroup() as group:
        async with reauthorization.repeat(ask):
            clock.now += 2
            asking = group.create_task(reauthorization.ask_due())
            await asked.wait()
        release.set()
        await asking
    await asyncio.sleep(0)  # would raise, were this task cancelled
