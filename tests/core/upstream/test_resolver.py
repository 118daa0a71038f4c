"""Names: a lookup that hangs holds up nobody but those who wait for the same name."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.support.scripted_cluster import WAIT_SECONDS, Receive, ScriptedCluster, Send
from tests.support.upstreams import fetch, make_cluster, make_settings

from cluster_gateway_core.errors import ClusterUnreachableError, OverloadedError
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.resolver import Resolver
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

_OK = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"))


class NameServers:
    """The system's resolver: names that begin with "dead" hang until `revive`, the rest are this host."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._alive = threading.Event()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *args: object, **options: object) -> object:
        if not host.endswith(".example"):
            return self._real(host, port, *args, **options)  # type: ignore[arg-type]
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        self.asked.append(host)
        if host.startswith("dead"):
            self._alive.wait(4 * WAIT_SECONDS)
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    def revive(self) -> None:
        self._alive.set()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    servers = NameServers()
    monkeypatch.setattr(socket, "getaddrinfo", servers.getaddrinfo)
    yield servers
    servers.revive()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()


async def wait_idle(resolver: Resolver) -> None:
    """Wait for the threads, and then for what they left to the loop."""
    for thread in threading.enumerate():
        if thread.name == "lookup":
            await asyncio.to_thread(thread.join, WAIT_SECONDS)
    await asyncio.sleep(0)
    assert resolver._running == 0
    assert (resolver._lookups, list(resolver._queue)) == ({}, [])


async def test_a_literal_address_needs_no_lookup(servers: NameServers) -> None:
    resolver = Resolver(capacity=1)
    found = await resolver.resolve("127.0.0.1", 1)
    assert found[0][4] == ("127.0.0.1", 1)
    assert servers.asked == []


async def test_all_who_want_a_name_share_one_lookup(servers: NameServers) -> None:
    resolver = Resolver(capacity=4)
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        tasks = [group.create_task(resolver.resolve("dead.example", 1)) for _ in range(50)]
        await asyncio.sleep(0)
        servers.revive()
    assert servers.asked == ["dead.example"]
    assert len({id(task.result()) for task in tasks}) == 1
    await wait_idle(resolver)


async def test_a_name_without_an_address_fails_everybody_who_waits_and_is_asked_again_later(
    servers: NameServers,
) -> None:
    resolver = Resolver(capacity=1)
    for _ in range(2):
        waiting = [resolver.resolve("unknown.example", 1) for _ in range(3)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, socket.gaierror)
    assert len(servers.asked) == 2
    await wait_idle(resolver)


async def test_who_waits_for_a_dead_name_can_be_cancelled_and_the_name_keeps_its_one_thread(
    servers: NameServers,
) -> None:
    resolver = Resolver(capacity=4)
    for _ in range(5):
        task = asyncio.get_running_loop().create_task(resolver.resolve("dead.example", 1), name="waiting")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
    assert resolver._running == 1
    assert (await resolver.resolve("alive.example", 1))[0][4] == ("127.0.0.1", 1)
    servers.revive()
    await wait_idle(resolver)
    assert servers.asked.count("dead.example") == 1


async def test_a_cluster_with_a_dead_name_server_delays_no_other(servers: NameServers) -> None:
    async with ScriptedCluster() as cluster:
        context = UpstreamContext(make_settings(connect_timeout_seconds=4 * WAIT_SECONDS))
        dead = [
            asyncio.get_running_loop().create_task(
                fetch(Upstream(make_cluster(f"http://dead{number}.example:1", name=f"dead{number}"), context)),
                name=f"dead {number}",
            )
            for number in range(20)
        ]
        await asyncio.sleep(0)
        cluster.script(*(_OK for _ in range(20)))
        healthy = Upstream(make_cluster(f"http://alive.example:{cluster.port}"), context)
        async with asyncio.timeout(WAIT_SECONDS):
            for _ in range(20):
                assert (await fetch(healthy))[1] == b"ok"
        assert not any(task.done() for task in dead)
        for task in dead:
            task.cancel()
        await asyncio.wait(dead)
        servers.revive()
        await wait_idle(context.resolver)


async def test_a_lookup_that_takes_too_long_is_the_clusters_fault(servers: NameServers) -> None:
    context = UpstreamContext(make_settings(connect_timeout_seconds=0.01))
    with pytest.raises(ClusterUnreachableError, match=r"dial tcp: lookup dead\.example: i/o timeout"):
        await fetch(Upstream(make_cluster("http://dead.example:1"), context))
    servers.revive()
    await wait_idle(context.resolver)


async def test_a_lookup_that_finds_no_room_is_the_gateways_fault(servers: NameServers) -> None:
    context = UpstreamContext(make_settings(connect_timeout_seconds=0.01, lookups=1))
    with pytest.raises(ClusterUnreachableError):
        await fetch(Upstream(make_cluster("http://dead.example:1"), context))
    healthy = Upstream(make_cluster("http://alive.example:1", name="healthy"), context)
    with pytest.raises(OverloadedError, match="no room to look up cluster healthy"):
        await fetch(healthy)
    assert not healthy._breaker._failures
    servers.revive()
    await wait_idle(context.resolver)
    assert servers.asked == ["dead.example"]
    with pytest.raises(ClusterUnreachableError, match="refused"):
        await fetch(Upstream(make_cluster("http://alive.example:1", name="healthy"), UpstreamContext(make_settings())))


async def test_a_process_without_threads_says_so(servers: NameServers, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver(capacity=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(socket.gaierror, match="cannot start another thread"):
            await resolver.resolve("alive.example", 1)
    assert (await resolver.resolve("alive.example", 1))[0][4] == ("127.0.0.1", 1)
    await wait_idle(resolver)
