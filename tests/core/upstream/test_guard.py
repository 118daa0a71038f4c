"""How many requests may be in progress, as a table of decisions."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.support.scripted_cluster import WAIT_SECONDS, Receive, ScriptedCluster, Send, serving_context
from tests.support.upstreams import SERVER, fetch, make_cluster, make_settings

from cluster_gateway_core.errors import OverloadedError
from cluster_gateway_core.settings import InFlightLimit, LimitSettings
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.guard import Guard
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    import ssl

    from cluster_gateway_core.upstream.guard import Admission


def make_guard(*, total: int = 100, per_cluster: int = 100, per_user: int = 100) -> Guard:
    limit = InFlightLimit(total=total, per_cluster=per_cluster, per_user=per_user)
    return Guard(LimitSettings(short=limit, long_running=limit))


def fill(guard: Guard, cluster_name: str, username: str = "", *, long_running: bool = False) -> list[Admission]:
    """Admit until refused; without a user each request is another one's."""
    admitted: list[Admission] = []
    while True:
        try:
            user = username or f"user{len(admitted)}"
            admitted.append(guard.admit(cluster_name, user, long_running=long_running))
        except OverloadedError:
            return admitted


def leave(*requests: Admission) -> None:
    for request in requests:
        with request:
            pass


def test_a_cluster_gets_its_bound_and_no_more() -> None:
    """GS-6."""
    guard = make_guard(per_cluster=7)

    assert len(fill(guard, "managed1")) == 7
    with pytest.raises(OverloadedError, match="7 requests to cluster managed1 at once") as caught:
        guard.admit("managed1", "jane", long_running=False)
    assert caught.value.retry_after_seconds == 1
    assert caught.value.cluster_name == "managed1"
    assert len(fill(guard, "managed2")) == 7


def test_a_user_gets_their_bound_over_all_clusters_together() -> None:
    guard = make_guard(per_user=3)
    for number in range(3):
        guard.admit(f"managed{number}", "jane", long_running=False)

    with pytest.raises(OverloadedError, match="3 requests of one user"):
        guard.admit("managed9", "jane", long_running=False)
    guard.admit("managed9", "joe", long_running=False)


def test_long_running_requests_do_not_count_as_short_ones() -> None:
    """GS-5, GS-6."""
    guard = make_guard(per_cluster=4)

    assert len(fill(guard, "managed1", long_running=True)) == 4
    assert len(fill(guard, "managed1")) == 4
    with pytest.raises(OverloadedError, match="4 long-running requests to cluster managed1"):
        guard.admit("managed1", "jane", long_running=True)


@pytest.mark.parametrize("hanging", [1, 2, 4, 9])
def test_however_many_clusters_hang_a_fair_share_stays_free(hanging: int) -> None:
    guard = make_guard(total=100)
    held = [[guard.admit(f"hanging{number}", f"user{number}", long_running=False)] for number in range(hanging)]
    for _ in range(100):  # all of them ask for more, in turn
        for number, requests in enumerate(held):
            try:
                name = f"hanging{number}"
                requests.append(guard.admit(name, f"user{number}-{len(requests)}", long_running=False))
            except OverloadedError:
                pass

    share = 100 // (hanging + 1)
    assert all(abs(len(requests) - share) <= 1 for requests in held)
    assert len(fill(guard, "healthy")) >= share // 2


def test_a_user_that_floods_every_cluster_leaves_half_to_the_others() -> None:
    guard = make_guard(total=100)
    for number in range(50):
        guard.admit(f"managed{number}", "flooder", long_running=False)

    with pytest.raises(OverloadedError, match="none is left to a user who has 50"):
        guard.admit("managed99", "flooder", long_running=False)
    guard.admit("managed1", "jane", long_running=False)


def test_a_user_that_floods_one_cluster_leaves_half_of_it_to_the_others() -> None:
    guard = make_guard(total=1000, per_cluster=10, per_user=1000)

    assert len(fill(guard, "managed1", "flooder")) == 5
    with pytest.raises(OverloadedError, match="for other users"):
        guard.admit("managed1", "flooder", long_running=False)
    assert len(fill(guard, "managed1", "jane")) == 3


def test_a_full_gateway_refuses_everybody() -> None:
    guard = make_guard(total=3)
    for number in range(3):
        guard.admit(f"managed{number}", f"user{number}", long_running=False)

    with pytest.raises(OverloadedError, match="carries 3 requests at once"):
        guard.admit("managed9", "joe", long_running=False)


def test_one_is_always_admitted_to_an_idle_gateway() -> None:
    guard = make_guard(total=1, per_cluster=1, per_user=1)
    with guard.admit("managed1", "jane", long_running=False), pytest.raises(OverloadedError):
        guard.admit("managed1", "jane", long_running=False)
    with guard.admit("managed1", "jane", long_running=False):
        assert guard.in_progress == 1


def test_what_has_ended_is_forgotten_so_that_the_tables_stay_small() -> None:
    guard = make_guard()
    for number in range(5000):
        with guard.admit(f"managed{number}", f"user{number}", long_running=number % 2 == 0):
            assert guard.in_progress == 1

    leave(*fill(guard, "managed1"), *fill(guard, "managed1", long_running=True))

    assert guard.in_progress == 0
    for counts in (guard._short, guard._long_running):
        assert (counts._clusters, counts._users, counts._pairs) == ({}, {}, {})


def test_a_request_that_fails_gives_back_what_it_took() -> None:
    guard = make_guard()
    with ExitStack() as stack, pytest.raises(ValueError, match="broken"):  # noqa: PT012 - the order is what is tested
        stack.enter_context(guard.admit("managed1", "jane", long_running=False))
        raise ValueError("broken")
    assert guard.in_progress == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_cancellation_at_any_moment_gives_back_what_was_taken(*, tls: bool) -> None:
    """Cancels after one turn of the loop, after two, and so on until the request gets through."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cancelled = runner.run(cancel_everywhere(serving_context(SERVER) if tls else None))
    assert cancelled > 4


async def cancel_everywhere(tls: ssl.SSLContext | None) -> int:
    guard = make_guard()
    ok = (Receive(b"\r\n\r\n"), Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"))
    async with ScriptedCluster(tls=tls) as cluster:
        upstream = Upstream(make_cluster(cluster.address), UpstreamContext(make_settings(dials_per_cluster=1)))

        async def request() -> bytes:
            with guard.admit("managed1", "jane", long_running=False):
                return (await fetch(upstream))[1]

        turns = 0
        while True:
            cluster.script(ok)
            task = asyncio.get_running_loop().create_task(request(), name="request")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=WAIT_SECONDS)
            assert guard.in_progress == 0
            assert not upstream._busy
            assert not upstream._dials.locked()
            if not task.cancelled():
                assert task.result() == b"ok"
                await cluster.wait_all_ended()
                return turns
            turns += 1
