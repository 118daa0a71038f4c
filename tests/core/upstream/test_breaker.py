"""When a cluster is not tried: the decisions, and what an upstream makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.hub_certificates import make_identity
from tests.support.scripted_cluster import WAIT_SECONDS, Hold, Receive, ScriptedCluster, Send, serving_context
from tests.support.upstreams import SERVER, fetch, make_cluster, make_settings, make_upstream

from cluster_gateway_core.errors import ClusterNotFoundError, ClusterUnreachableError, Hop, TLSFailedError
from cluster_gateway_core.upstream.breaker import Breaker
from cluster_gateway_core.upstream.directory import UpstreamDirectory

if TYPE_CHECKING:
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.upstream.upstream import Upstream

_REFUSED = ClusterUnreachableError(
    "cluster managed1 cannot be reached: dial tcp 10.0.0.1:6443: connect: connection refused", hint="Look."
)
_OK = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"))


def make_breaker(*, failures: int = 3, delay: float = 3.0) -> Breaker:
    return Breaker("managed1", "10.0.0.1:6443", failures=failures, delay_seconds=delay)


def attempt(breaker: Breaker, now: float, *, succeeds: bool = False) -> None:
    probe = breaker.enter(now)
    if succeeds:
        breaker.succeed()
    else:
        breaker.fail(_REFUSED, now, probe=probe)


def opened(at: float = 0.0) -> Breaker:
    breaker = make_breaker()
    for _ in range(3):
        attempt(breaker, at)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = make_breaker()
    for succeeds in (False, False, True, False, False):
        attempt(breaker, 0.0, succeeds=succeeds)
    assert not breaker.is_open

    attempt(breaker, 0.0)

    assert breaker.is_open


def test_open_it_refuses_with_the_last_cause_and_the_time_that_is_left() -> None:
    breaker = opened(at=10.0)

    with pytest.raises(ClusterUnreachableError) as caught:
        breaker.enter(11.0)

    assert caught.value.message == (
        "cluster managed1 cannot be reached: dial tcp 10.0.0.1:6443: not tried, because the last 3 attempts failed; "
        "the last one: dial tcp 10.0.0.1:6443: connect: connection refused"
    )
    assert (caught.value.retry_after_seconds, caught.value.hint) == (2.0, "Look.")
    with pytest.raises(ClusterUnreachableError):
        breaker.check(11.0)


def test_after_the_delay_one_attempt_decides_and_the_others_are_refused_meanwhile() -> None:
    breaker = opened()

    assert breaker.enter(3.0) is True
    for _ in range(3):
        with pytest.raises(ClusterUnreachableError):
            breaker.enter(4.0)
    breaker.succeed()

    assert not breaker.is_open
    assert [breaker.enter(4.0) for _ in range(3)] == [False] * 3


def test_an_attempt_that_fails_again_starts_the_delay_anew() -> None:
    breaker = opened()
    attempt(breaker, 3.0)

    with pytest.raises(ClusterUnreachableError):
        breaker.enter(5.9)
    assert breaker.enter(6.0) is True


def test_an_attempt_whose_caller_has_gone_leaves_the_next_to_decide() -> None:
    breaker = opened()
    breaker.abandon(probe=breaker.enter(3.0))

    assert breaker.enter(3.0) is True


def test_late_failures_of_others_do_not_let_a_second_attempt_in() -> None:
    breaker = make_breaker()
    probes = [breaker.enter(0.0) for _ in range(5)]
    for probe in probes[:3]:
        breaker.fail(_REFUSED, 0.0, probe=probe)
    assert breaker.enter(3.0) is True
    for probe in probes[3:]:
        breaker.fail(_REFUSED, 3.0, probe=probe)

    with pytest.raises(ClusterUnreachableError):
        breaker.enter(100.0)


async def fail(upstream: Upstream, kind: type[Exception] = ClusterUnreachableError) -> Exception:
    with pytest.raises(kind) as caught:
        await fetch(upstream)
    return caught.value


async def test_a_cluster_that_refuses_is_not_tried_again_until_the_delay_is_over_and_then_served() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        upstream = make_upstream(
            f"http://127.0.0.1:{place.getsockname()[1]}", breaker_failures=2, breaker_seconds=WAIT_SECONDS
        )
        for _ in range(2):
            assert "refused" in str(await fail(upstream))
        place.listen()
        refused = await fail(upstream)
        assert "not tried, because the last 2 attempts failed" in str(refused)
        assert "dial tcp 127.0.0.1" in str(refused)
        assert "connection refused" in str(refused)
        place.settimeout(0)
        with pytest.raises(BlockingIOError):
            place.accept()


async def test_a_cluster_that_has_come_back_is_served_by_the_next_attempt() -> None:
    async with ScriptedCluster() as cluster:
        upstream = make_upstream(cluster.address, breaker_failures=1, breaker_seconds=0.01)
        upstream._breaker.fail(_REFUSED, asyncio.get_running_loop().time() + 0.05, probe=False)
        cluster.script(_OK, _OK)
        async with asyncio.timeout(WAIT_SECONDS):
            while upstream._breaker.is_open:
                with contextlib.suppress(ClusterUnreachableError):
                    assert (await fetch(upstream))[1] == b"ok"
                await asyncio.sleep(0)
        assert (await fetch(upstream))[1] == b"ok"


async def test_failed_handshakes_count_and_keep_their_hop() -> None:
    other = make_identity("another ca")
    async with ScriptedCluster(tls=serving_context(SERVER)) as cluster:
        directory = UpstreamDirectory(
            Clusters(make_cluster(cluster.address, ca=other)), make_settings(breaker_failures=2, breaker_seconds=60)
        )
        upstream = directory.resolve("managed1")
        for _ in range(2):
            await fail(upstream, TLSFailedError)
        error = await fail(upstream)
    assert isinstance(error, ClusterUnreachableError)
    assert error.hop is Hop.TLS
    assert "dial tcp" in error.message
    assert "certificate" in error.message


async def test_how_a_cluster_answers_does_not_count() -> None:
    async with ScriptedCluster() as cluster:
        upstream = make_upstream(cluster.address, breaker_failures=1)
        bad = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
        cluster.script(bad, (Receive(b"\r\n\r\n"),), bad)
        assert (await fetch(upstream))[0].status == 500
        assert "ended before it answered" in str(await fail(upstream))
        assert (await fetch(upstream))[0].status == 500


async def test_a_kept_connection_is_used_whatever_the_breaker_says() -> None:
    async with ScriptedCluster() as cluster:
        upstream = make_upstream(cluster.address, breaker_failures=1)
        kept = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        cluster.script(kept * 2)
        await fetch(upstream)
        upstream._breaker.fail(_REFUSED, asyncio.get_running_loop().time(), probe=False)
        assert upstream._breaker.is_open
        assert (await fetch(upstream))[1] == b"ok"
        upstream.retire(cut=True)


class Clusters:
    """A registry of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def get(self, name: str) -> Cluster:
        if name != self.cluster.name:
            raise ClusterNotFoundError(name)
        return self.cluster


async def test_a_changed_registration_starts_anew() -> None:
    async with ScriptedCluster() as cluster:
        registered = Clusters(make_cluster("http://127.0.0.1:1"))
        directory = UpstreamDirectory(registered, make_settings(breaker_failures=1, breaker_seconds=60))
        await fail(directory.resolve("managed1"))
        assert "not tried" in str(await fail(directory.resolve("managed1")))
        registered.cluster = make_cluster(cluster.address)
        cluster.script(_OK)
        assert (await fetch(directory.resolve("managed1")))[1] == b"ok"
        directory.close()


async def test_no_more_connections_than_allowed_are_opened_at_once_and_the_rest_wait_for_their_turn() -> None:
    accepted = asyncio.Event()
    waiting: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        accepted.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = make_upstream(f"https://127.0.0.1:{port}", dials_per_cluster=2, breaker_failures=100)
    tasks = [asyncio.get_running_loop().create_task(fetch(upstream), name=f"request {number}") for number in range(6)]
    async with asyncio.timeout(WAIT_SECONDS):
        for expected in (2, 4, 6):
            while len(waiting) < expected:
                accepted.clear()
                await accepted.wait()
            assert upstream._dials.locked()
            assert len(waiting) == expected
            for writer in waiting[expected - 2 :]:
                writer.transport.abort()
        await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), TLSFailedError) for task in tasks)
    assert not upstream._dials.locked()
    server.close()


async def test_a_probe_that_is_cancelled_leaves_the_next_to_decide() -> None:
    async with ScriptedCluster((Hold(),)) as mute:
        upstream = make_upstream(f"https://127.0.0.1:{mute.port}", breaker_failures=1, breaker_seconds=0.001)
        upstream._breaker.fail(_REFUSED, 0.0, probe=False)
        task = asyncio.get_running_loop().create_task(fetch(upstream), name="probe")
        await mute.connection(0)
        with pytest.raises(ClusterUnreachableError, match="not tried"):
            await fetch(upstream)
        task.cancel()
        await asyncio.wait({task})
        assert upstream._breaker.enter(asyncio.get_running_loop().time()) is True


async def test_a_crowd_that_waited_for_its_turn_is_refused_one_after_the_other() -> None:
    """All at once, a hundred refusals would keep the callers of other clusters waiting."""
    async with ScriptedCluster((Hold(),)) as mute:
        upstream = make_upstream(f"https://127.0.0.1:{mute.port}", dials_per_cluster=1, breaker_failures=1)
        first = asyncio.get_running_loop().create_task(fetch(upstream), name="first")
        connection = await mute.connection(0)
        crowd = [asyncio.get_running_loop().create_task(fetch(upstream), name=f"waiting {n}") for n in range(5)]
        await asyncio.sleep(0)
        connection._transport.abort()  # type: ignore[union-attr]
        refused: list[int] = []
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.wait({first})
            for _ in crowd:
                await asyncio.wait({task for task in crowd if not task.done()}, return_when=asyncio.FIRST_COMPLETED)
                refused.append(sum(task.done() for task in crowd))
        assert refused == [1, 2, 3, 4, 5]
        assert all("not tried" in str(task.exception()) for task in crowd)
        assert isinstance(first.exception(), TLSFailedError)
        assert len(mute.connections) == 1
        assert not upstream._dials.locked()
        assert not upstream._refusals.locked()
