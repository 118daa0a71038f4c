"""Cores and facades that are killed, frozen and replaced: two cores and their facades, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.support.answering_hub import AnsweringHub, HubStage
from tests.support.gateway import proxy_path
from tests.support.hub_certificates import make_identity
from tests.support.running_facade import client_tls
from tests.support.scripted_cluster import Answer, Hold, ScriptedCluster, Send, serving_context
from tests.support.split_gateway import run_core, run_facade

from cluster_gateway.control_planes import CertificateAuthority, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.scripted_cluster import ReceivedRequest, Step
    from tests.support.split_gateway import Core, Facade

_NAME = "scripted1"
_CA = make_identity("cluster ca")
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_WATCH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b"3\r\n{}\n\r\n"
_TOGETHER = 8
_SOON_SECONDS = 20.0
_NOTICED_SECONDS = 60.0
"""Above the twenty seconds after which a frozen peer is noticed, on a busy machine."""


@dataclass
class Cluster:
    """What the scripted cluster does: it watches for ever, holds what is to be held, and answers the rest.

    Attributes:
        counts: How often each path was asked for.
        released: Set to have what is held answered.
    """

    counts: Counter[str] = field(default_factory=Counter)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    server: ScriptedCluster = field(init=False)

    def answer(self, request: ReceivedRequest) -> bytes | tuple[Step, ...]:
        target = request.target.decode()
        self.counts[target] += 1
        if "watch=1" in target:
            return (Send(_WATCH + _EVENT), Hold(self.released), Send(_EVENT), Hold())
        if "hold" in target:
            return (Hold(self.released), Send(_OK))
        return _OK

    def owners(self, pattern: str) -> Counter[int]:
        """How many requests for paths of a pattern each process has sent on connections that are open."""
        processes = processes_by_port()
        found: Counter[int] = Counter()
        for connection in self.server.connections:
            asked = sum(fnmatchcase(one.target.decode().partition("?")[0], pattern) for one in connection.requests)
            if asked and not connection.ended.is_set():
                found[processes.get(connection.peer_port, 0)] += asked
        return found


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Two cores and a facade of both."""

    authority: CertificateAuthority
    cores: tuple[Core, Core]
    facade: Facade
    cluster: Cluster
    session: aiohttp.ClientSession

    def url(self, target: str, facade: Facade | None = None) -> str:
        return (facade or self.facade).url + proxy_path(_NAME, target)

    async def get(self, target: str) -> int:
        async with self.session.get(self.url(target)) as response:
            await response.read()
            return response.status

    @contextlib.asynccontextmanager
    async def watches(self, name: str, facade: Facade | None = None) -> AsyncIterator[list[aiohttp.ClientResponse]]:
        """Open watches, each with one event read."""
        async with contextlib.AsyncExitStack() as stack:
            opened = []
            for number in range(_TOGETHER):
                request = self.session.get(self.url(f"{watched(name, number)}?watch=1", facade))
                response = await stack.enter_async_context(request)
                assert await response.content.readline() == b"{}\n"
                opened.append(response)
            yield opened

    def owner(self, path: str) -> int:
        (owner,) = self.cluster.owners(path)
        return owner


def watched(name: str, number: int) -> str:
    return f"/api/v1/namespaces/{name}-{number}/pods"


def processes_by_port() -> dict[int, int]:
    """Which process holds a TCP connection of this host, by the connection's own port."""
    holders = {}
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            holders[os.readlink(entry)] = int(entry.parts[2])  # noqa: PTH115 - a socket is no path
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        port = int(words[1].partition(":")[2], 16)
        found[port] = holders.get(f"socket:[{words[9]}]", found.get(port, 0))
    return found


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    identity = make_identity("cluster", issuer=_CA, usages=(), hosts=("127.0.0.1",))
    async with ScriptedCluster(tls=serving_context(identity)) as server:
        made.server = server
        server.otherwise = (Answer(made.answer),)
        yield made


@pytest.fixture
async def hub(cluster: Cluster) -> AsyncIterator[AnsweringHub]:
    async with AnsweringHub() as hub:
        hub.register(_NAME, cluster.server, _CA)
        yield hub


@pytest.fixture
def stage(hub: AnsweringHub, tmp_path: Path) -> HubStage:
    return HubStage(
        directory=tmp_path, gateway_kubeconfig=hub.write_kubeconfig(tmp_path), authority=make_identity("gateway-ca")
    )


@pytest.fixture
async def pool(stage: HubStage, hub: AnsweringHub, cluster: Cluster, tmp_path: Path) -> AsyncIterator[Pool]:
    authority = CertificateAuthority("core-ca")
    user = make_identity("root", issuer=hub.client_ca, organizations=("system:masters",))
    tls = client_tls(stage.authority, user, tmp_path)
    connector = aiohttp.TCPConnector(ssl=tls, limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=2 * _NOTICED_SECONDS)
    async with (
        run_core(stage, authority=authority) as first,
        run_core(stage, authority=authority) as second,
        run_facade(stage, first, second) as facade,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
    ):
        pool = Pool(authority=authority, cores=(first, second), facade=facade, cluster=cluster, session=session)
        await until_both_serve(pool)
        yield pool
        cluster.released.set()


async def until_both_serve(pool: Pool, *others: Core) -> None:
    """Wait until requests are spread over the cores, each of which knows the cluster."""
    cores = {core.process.process.pid for core in (others or pool.cores)}
    path = f"/spread-{len(pool.cluster.counts)}"

    async def spread() -> bool:
        statuses = await asyncio.gather(*(pool.get(path) for _ in range(2 * _TOGETHER)))
        return set(statuses) == {200} and cores <= pool.cluster.owners(path).keys()

    await wait_until(spread, what="both cores serve", timeout_seconds=_NOTICED_SECONDS)


async def expect_loss(pool: Pool, lost: Core, other: Core, act: signal.Signals) -> None:
    """Lose a core with all kinds of requests in hand, and see what becomes of each."""
    lost_pid, other_pid = lost.process.process.pid, other.process.process.pid
    counts = pool.cluster.counts
    async with pool.watches("pods") as watches, asyncio.TaskGroup() as group:
        owners = [pool.owner(watched("pods", number)) for number in range(_TOGETHER)]
        assert set(owners) == {lost_pid, other_pid}
        held = [f"/hold-{number}" for number in range(_TOGETHER)]
        gets = {target: group.create_task(pool.get(target)) for target in held}
        posts = {target: group.create_task(post(pool, target + "-post")) for target in held}

        async def all_held() -> bool:
            return sum(counts[target] + counts[target + "-post"] for target in held) == 2 * _TOGETHER

        await wait_until(all_held, what="all requests are with the cluster", timeout_seconds=_SOON_SECONDS)
        at_lost = {target for target in held if pool.owner(target + "-post") == lost_pid}
        assert 0 < len(at_lost) < _TOGETHER
        gets_at_lost = {target for target in held if lost_pid in pool.cluster.owners(target)}

        os.kill(lost_pid, act)

        # Reads that the lost core had in hand are asked again of the other; changes are not.
        async def asked_again() -> bool:
            return all(counts[target] == 2 for target in gets_at_lost)

        await wait_until(asked_again, what="reads are repeated", timeout_seconds=_NOTICED_SECONDS)
        for target in at_lost:
            async with asyncio.timeout(_NOTICED_SECONDS):
                status, body = await posts[target]
            assert (status, body["reason"]) == (503, "ServiceUnavailable"), body
            assert "routing core" in body["message"]
        pool.cluster.released.set()
        assert {await task for task in gets.values()} == {200}
        for target in held:
            assert counts[target + "-post"] == 1
            assert counts[target] == (2 if target in gets_at_lost else 1)
            if target not in at_lost:
                assert (await posts[target])[0] == 200
        # Watches of the lost core look cut, those of the other go on.
        for owner, watch in zip(owners, watches, strict=True):
            if owner == other_pid:
                assert await watch.content.readline() == b"{}\n"
            else:
                with pytest.raises((aiohttp.ClientPayloadError, ConnectionError)):
                    await watch.content.read()
    pool.cluster.released.clear()
    assert {await pool.get("/after") for _ in range(4 * _TOGETHER)} == {200}


async def post(pool: Pool, target: str) -> tuple[int, Any]:
    async with pool.session.post(pool.url(target), data=b"{}") as response:
        body = await response.read()
        return response.status, json.loads(body) if response.status >= 400 else body


async def test_a_killed_core_costs_what_it_had_in_hand_and_comes_back(pool: Pool, stage: HubStage) -> None:
    """F2: changes are counted at the cluster, and none comes twice."""
    first, second = pool.cores
    await expect_loss(pool, first, second, signal.SIGKILL)
    await first.process.process.wait()
    async with run_core(stage, authority=pool.authority, ports=(first.port, first.token_port)) as again:
        await until_both_serve(pool, again, second)
        statuses = await asyncio.gather(*(pool.get("/even") for _ in range(50)))
        assert set(statuses) == {200}
        requests = pool.cluster.owners("/even")
        assert requests.total() == 50
        assert min(requests[core.process.process.pid] for core in (again, second)) >= 15


async def test_a_frozen_core_and_a_frozen_facade_are_noticed_and_let_go(pool: Pool, stage: HubStage) -> None:
    """F5: pings every ten seconds, on both sides of a connection."""
    first, second = pool.cores
    async with run_facade(stage, second) as other, pool.watches("others", other):
        frozen_facade = other.process.process.pid
        assert {pool.owner(watched("others", number)) for number in range(_TOGETHER)} == {second.process.process.pid}
        os.kill(frozen_facade, signal.SIGSTOP)
        try:
            await expect_loss(pool, first, second, signal.SIGSTOP)

            async def let_go() -> bool:
                return not pool.cluster.owners("*/others-*")

            await wait_until(let_go, what="the core lets go of the facade", timeout_seconds=_NOTICED_SECONDS)
        finally:
            os.kill(frozen_facade, signal.SIGCONT)
            os.kill(first.process.process.pid, signal.SIGCONT)
        await until_both_serve(pool)
        async with pool.session.get(pool.url("/thawed", other)) as response:
            assert response.status == 200


async def test_cores_are_replaced_one_by_one_without_a_failed_request(pool: Pool, stage: HubStage) -> None:
    """F3: short requests all succeed, and watches end whole, so that informers resume from where they were."""
    done = asyncio.Event()
    statuses: Counter[int] = Counter()

    async def ask_on() -> None:
        while not done.is_set():
            statuses[await pool.get("/short")] += 1

    async with pool.watches("pods") as watches, asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask_on())
        async with contextlib.AsyncExitStack() as stack:
            replaced: list[Core] = []
            for core in pool.cores:
                core.process.process.terminate()
                assert await core.process.wait() == 0, core.process.log.read_text()
                ports = (core.port, core.token_port)
                replaced.append(await stack.enter_async_context(run_core(stage, authority=pool.authority, ports=ports)))
                await until_both_serve(pool, *replaced)
            done.set()
            # Read to its end: a watch that were cut would raise.
            for watch in watches:
                assert await watch.content.read() == b""
    assert set(statuses) == {200}
    assert statuses[200] > 20
