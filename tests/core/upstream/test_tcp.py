"""Connecting to one of several addresses."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.support.scripted_cluster import WAIT_SECONDS, Close, Hold, Receive, ScriptedCluster, Send
from tests.support.upstreams import fetch, make_request, make_settings, make_upstream

from cluster_gateway_core.errors import ClusterUnreachableError, OverloadedError
from cluster_gateway_core.upstream.exchange import UpstreamExchange
from cluster_gateway_core.upstream.tcp import ConnectError, connect_to_any, interleave_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster_gateway_core.upstream.resolver import AddressInfo


def info(port: int, host: str = "127.0.0.1") -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


@contextmanager
def dead_address() -> Iterator[AddressInfo]:
    """An address that answers nothing, as behind a firewall that drops."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)  # noqa: FBT003
            client.connect_ex(listener.getsockname())
        yield info(listener.getsockname()[1])


@contextmanager
def live_address(count: int = 1) -> Iterator[list[AddressInfo]]:
    with ExitStack() as stack:
        yield [info(stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]) for _ in range(count)]


def refusing_address() -> AddressInfo:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return info(listener.getsockname()[1])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count


async def connect(*addresses: AddressInfo) -> socket.socket:
    async with asyncio.timeout(WAIT_SECONDS):
        return await connect_to_any(addresses, dead_peer_seconds=60)


async def test_a_dead_first_address_does_not_use_up_the_time_of_the_second() -> None:
    with dead_address() as dead, live_address() as (alive,):
        (await connect(dead, alive)).close()  # the socket that lost is closed, or pytest would tell of it
        with await connect(dead, dead, dead, alive) as sock:
            assert sock.getpeername() == alive[4]


async def test_a_refused_first_address_hands_on_at_once_and_the_first_failure_is_told() -> None:
    first, second = refusing_address(), refusing_address()
    with live_address() as (alive,), await connect(first, second, alive) as sock:
        assert sock.getpeername() == alive[4]
    with pytest.raises(ConnectError) as caught:
        await connect(first, second)
    assert (caught.value.address, caught.value.cause) == (first, "connection refused")


async def test_families_take_turns() -> None:
    four = [info(1, f"10.0.0.{number}") for number in range(3)]
    six = [info(1, f"fd12::{number}") for number in range(2)]
    assert interleave_families([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]
    assert interleave_families(four) == four


async def test_cancellation_at_any_moment_closes_every_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster_gateway_core.upstream.tcp._ATTEMPT_DELAY_SECONDS", 0)
    with dead_address() as dead, live_address() as (alive,):
        before = open_files()
        for turns in range(40):
            task = asyncio.get_running_loop().create_task(
                connect(refusing_address(), dead, refusing_address(), alive), name="connect"
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result().close()
            assert open_files() == before


async def test_a_cluster_is_reached_though_its_first_address_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole time for connecting would not be enough for the first address."""
    real = socket.getaddrinfo
    async with ScriptedCluster((Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 204 No Content\r\n\r\n"), Close())) as cluster:
        with dead_address() as dead:
            dead_host = ("127.0.0.1", dead[4][1])

            def getaddrinfo(host: str, port: int, *args: object, **options: object) -> object:
                if host != "two.example":
                    return real(host, port, *args, **options)  # type: ignore[arg-type]
                if options.get("flags"):
                    raise socket.gaierror(socket.EAI_NONAME, "not numeric")
                return [(*dead[:4], dead_host), info(port)]

            monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
            upstream = make_upstream(f"http://two.example:{cluster.port}")
            head, _ = await fetch(upstream)
    assert head.status == 204


@pytest.mark.parametrize("addresses", [1, 2])
async def test_a_process_without_descriptors_says_so_and_blames_no_cluster(addresses: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with live_address(addresses) as alive:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))  # noqa: PTH208
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        try:
            with pytest.raises(OverloadedError, match="cannot open another connection") as caught:
                await connect(*alive)
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EMFILE


async def test_a_silent_host_is_asked_by_tcp_and_given_up() -> None:
    with live_address() as (alive,), await connect(alive) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        values = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options]
        assert values == [30, 10, 3, 60_000]


async def test_refusal_of_every_address_is_told_as_kubevela_expects() -> None:
    port = refusing_address()[4][1]
    with pytest.raises(ClusterUnreachableError, match=f"dial tcp 127.0.0.1:{port}: connect: connection refused"):
        await fetch(make_upstream(f"http://127.0.0.1:{port}"))
    assert make_settings().dead_peer_seconds == 60


async def test_a_tunnel_may_leave_bytes_unread_for_as_long_as_its_host_answers() -> None:
    """With TCP_USER_TIMEOUT the system would end the connection to a stopped program (tcp_timer.c, tcp_probe_timer)."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with ScriptedCluster((Receive(b"\r\n\r\n"), Send(switch), Hold())) as cluster:
        request = make_request(upgrade="websocket")
        async with UpstreamExchange(make_upstream(cluster.address), request, ()) as exchange:
            await exchange.response_head(limited=False)
            sock = exchange._open_connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
            exchange.open_tunnel()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_tunnel_may_do_so_on_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_tunnel_may_leave_bytes_unread_for_as_long_as_its_host_answers())
