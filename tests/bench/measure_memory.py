"""Measures the memory of `cluster-gateway apiserver`, facade and core, under streams that stand still and large bodies.

usage: python tests/bench/measure_memory.py [--streams 500] [--watches 1000] [--body-mib 1024] [--only NAME ...]

Each scenario has a gateway of its own, so that none sees what another left. The hub allows everything, the cluster and
the clients run in this process, and RSS is read from /proc: what the kernel's sockets hold is not in it. Figures are
KiB a stream over both processes, between all streams standing still and before the first. Needs `ulimit -n` of about
six times the number of streams in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop
from tests.support.allowing_hub import AllowingHub, gateway_before, make_hub_identities, register
from tests.support.bulk_cluster import PIECE, BulkCluster, digest_of
from tests.support.hub_certificates import make_identity
from tests.support.processes import children_of
from tests.support.running_facade import client_tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

_PROXY: Final = "/apis/cluster.core.oam.dev/v1alpha1/clustergateways/bulk/proxy"
_LIST_BYTES: Final = 10 * 1024 * 1024
_ROOM = ("--max-requests=20000", "--max-requests-per-cluster=10000", "--max-requests-per-user=10000")
"""Everything here is of one user to one cluster, which by default may not have so much at once."""
_ROLES: Final = ("facade", "core")
_OPENING_AT_ONCE: Final = 32
_SETTLE_SECONDS: Final = 2.0
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Bench:
    """A gateway, its cluster and how to connect to it.

    Attributes:
        port: The gateway's.
        tls: A front proxy's client context.
        pids: Its processes by role.
        cluster: What it is in front of.
        clients: Connections that are open.
    """

    port: int
    tls: ssl.SSLContext
    pids: dict[str, int]
    cluster: BulkCluster
    clients: list[Client] = field(default_factory=list)

    def rss_kib(self) -> dict[str, int]:
        """Resident memory of each process."""
        return {role: _rss_kib(self.pids[role]) for role in _ROLES}

    def cpu_seconds(self) -> float:
        """CPU time that the processes have used."""
        return sum(_cpu_seconds(pid) for pid in self.pids.values())

    async def warm_up(self) -> None:
        """Have a request served, so that what is loaded with the first does not count."""
        client = await self.connect()
        client.ask("GET", "/list/65536")
        await client.received(65536)
        self.close()

    def close(self) -> None:
        """Drop every connection."""
        for client in self.clients:
            if client.transport is not None:
                client.transport.abort()
        self.clients.clear()

    def unsent_bytes(self) -> int:
        """What the clients' transports hold."""
        return sum(client.transport.get_write_buffer_size() for client in self.clients if client.transport is not None)

    async def connect(self) -> Client:
        """Open a connection."""
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", self.port, ssl=self.tls)
        self.clients.append(client)
        return client


class Client(asyncio.Protocol):
    """A client of the gateway that reads when told."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.head = bytearray()
        self.received_bytes = 0
        self.digest = hashlib.sha256()
        self.body_bytes = -1
        self.news = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = False
        self.stall = False
        self._in_body = False
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.writable.set()
        self.news.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = bytes(self.head[end + 4 :])
            del self.head[end + 4 :]
            self._in_body = True
            if self.stall and self.transport is not None:
                self.transport.pause_reading()
        self.received_bytes += len(data)
        self.digest.update(data)
        self.tail = data[-64:]
        self.news.set()

    def ask(self, method: str, path: str, *headers: str) -> None:
        """Send a request's head."""
        lines = [f"{method} {_PROXY}{path} HTTP/1.1", "Host: gateway", "X-Remote-User: alice", *headers, "", ""]
        assert self.transport is not None
        self.transport.write("\r\n".join(lines).encode())

    async def head_received(self) -> None:
        """Wait for the response's head; fails unless it is a 200."""
        while not self._in_body:
            assert not self.lost, "the gateway closed the connection"
            self.news.clear()
            await self.news.wait()
        assert self.head.startswith(b"HTTP/1.1 200"), bytes(self.head[:300])

    async def received(self, size: int) -> None:
        """Wait for so many body bytes."""
        while self.received_bytes < size:
            assert not self.lost, "the gateway closed the connection"
            self.news.clear()
            await self.news.wait()


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no memory")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND  # proc(5): utime and stime


@asynccontextmanager
async def _gateway(*flags: str) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cgbench-")))
        identities = make_hub_identities()
        authority = make_identity("cluster ca")
        serving = make_identity("cluster", issuer=authority, usages=(), hosts=("localhost",))
        cluster = await stack.enter_async_context(BulkCluster(serving))
        hub = AllowingHub(identities, [register("bulk", cluster.address, authority)])
        await stack.enter_async_context(hub)
        gateway, port = await stack.enter_async_context(gateway_before(hub, identities, folder, *_ROOM, *flags))
        tls = client_tls(identities.serving_ca, identities.front_proxy, folder)
        bench = Bench(port=port, tls=tls, pids=children_of(gateway.process.pid), cluster=cluster)
        stack.callback(bench.close)
        await bench.warm_up()
        yield bench


async def _open_all(bench: Bench, count: int, start: Callable[[Client], Awaitable[None]]) -> None:
    """Open so many connections, some at once, and begin on each."""
    slots = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def begin() -> None:
        async with slots:
            await start(await bench.connect())

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(begin())


async def _settled(count: Callable[[], int]) -> None:
    """Wait until a number has stood still for a while."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < _SETTLE_SECONDS:
        await asyncio.sleep(0.1)
        if count() != last:
            last, since = count(), time.monotonic()


def _tell(name: str, streams: int, before: dict[str, int], during: dict[str, int], after: dict[str, int]) -> None:
    _say(f"{name}: {streams} streams")
    total = 0.0
    for role in _ROLES:
        each = (during[role] - before[role]) / streams
        total += each
        _say(
            f"  {role:7} before {before[role] / 1024:7.1f} MiB  during {during[role] / 1024:7.1f}"
            f"  after {after[role] / 1024:7.1f}  {each:7.1f} KiB a stream"
        )
    _say(f"  both    {total:68.1f} KiB a stream")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _hold(
    name: str, streams: int, start: Callable[[Client], Awaitable[None]], progress: Callable[[Bench], int]
) -> None:
    async with _gateway() as bench:
        before = bench.rss_kib()
        await _open_all(bench, streams, start)
        await _settled(lambda: progress(bench))
        during = bench.rss_kib()
        bench.close()
        await _settled(lambda: len(bench.cluster.connections))
        _tell(name, streams, before, during, bench.rss_kib())


async def stalled_readers(parsed: argparse.Namespace) -> None:
    """Clients stop reading in the middle of a list of 10 MiB."""

    async def start(client: Client) -> None:
        client.stall = True
        client.ask("GET", f"/list/{_LIST_BYTES}")
        await client.head_received()

    await _hold("stalled readers", parsed.streams, start, lambda bench: bench.cluster.sent_bytes)


async def stalled_clusters(parsed: argparse.Namespace) -> None:
    """A cluster stops reading in the middle of a request's body."""

    async def start(client: Client) -> None:
        client.ask("POST", "/frozen", f"Content-Length: {_LIST_BYTES}")
        assert client.transport is not None
        client.transport.write(PIECE * (_LIST_BYTES // len(PIECE)))

    await _hold("stalled clusters", parsed.streams, start, lambda bench: bench.unsent_bytes())


async def slow_writers(parsed: argparse.Namespace) -> None:
    """Clients send ten bytes of a body a second."""

    async def start(client: Client) -> None:
        client.ask("POST", "/x", f"Content-Length: {_LIST_BYTES}")

    async with _gateway() as bench:
        before = bench.rss_kib()
        await _open_all(bench, parsed.streams, start)
        for _ in range(4):
            for client in bench.clients:
                assert client.transport is not None
                client.transport.write(b"0123456789")
            await asyncio.sleep(1)
        during = bench.rss_kib()
        bench.close()
        await _settled(lambda: len(bench.cluster.connections))
        _tell("slow writers", parsed.streams, before, during, bench.rss_kib())


async def idle_watches(parsed: argparse.Namespace) -> None:
    """Watches after their first event."""

    async def start(client: Client) -> None:
        client.ask("GET", "/api/v1/pods?watch=true")
        await client.head_received()
        await client.received(1)

    await _hold("idle watches", parsed.watches, start, lambda bench: bench.cluster.requests)


async def download(parsed: argparse.Namespace) -> None:
    """One large body from the cluster to the client."""
    size = parsed.body_mib * 1024 * 1024
    async with _gateway() as bench:
        before, used = bench.rss_kib(), bench.cpu_seconds()
        async with _peaks(bench) as peaks:
            began = time.monotonic()
            client = await bench.connect()
            client.ask("GET", f"/list/{size}")
            await client.received(size)
            seconds = time.monotonic() - began
        assert client.digest.hexdigest() == digest_of(size), "the body has changed on the way"
        _tell_body("download", parsed.body_mib, seconds, bench.cpu_seconds() - used)
        _tell_peaks(before, peaks)


async def upload(parsed: argparse.Namespace) -> None:
    """One large body from the client to the cluster."""
    size = parsed.body_mib * 1024 * 1024
    async with _gateway() as bench:
        before, used = bench.rss_kib(), bench.cpu_seconds()
        async with _peaks(bench) as peaks:
            began = time.monotonic()
            client = await bench.connect()
            client.ask("POST", "/x", f"Content-Length: {size}")
            for _ in range(size // len(PIECE)):
                assert client.transport is not None
                client.transport.write(PIECE)
                await client.writable.wait()
            await client.received(64)
            seconds = time.monotonic() - began
        assert client.tail.decode() == digest_of(size), "the body has changed on the way"
        _tell_body("upload", parsed.body_mib, seconds, bench.cpu_seconds() - used)
        _tell_peaks(before, peaks)


@asynccontextmanager
async def _peaks(bench: Bench) -> AsyncIterator[dict[str, int]]:
    """Watch RSS for the largest."""
    peaks = bench.rss_kib()

    async def look() -> None:
        while True:
            await asyncio.sleep(0.05)
            for role, value in bench.rss_kib().items():
                peaks[role] = max(peaks[role], value)

    task = asyncio.get_running_loop().create_task(look(), name="peaks")
    try:
        yield peaks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tell_body(name: str, mib: int, seconds: float, cpu_seconds: float) -> None:
    cpu = cpu_seconds / mib * 1024
    _say(f"{name}: {mib} MiB in {seconds:.1f} s, {mib / seconds:.0f} MiB/s, {cpu:.1f} CPU s a GiB, SHA-256 equal")


def _tell_peaks(before: dict[str, int], peaks: dict[str, int]) -> None:
    for role in _ROLES:
        grown = (peaks[role] - before[role]) / 1024
        was, peak = before[role] / 1024, peaks[role] / 1024
        _say(f"  {role:7} before {was:7.1f} MiB  peak {peak:7.1f}  grown {grown:6.1f} MiB")


_SCENARIOS: Final = {
    scenario.__name__: scenario
    for scenario in (stalled_readers, stalled_clusters, slow_writers, idle_watches, download, upload)
}


async def run(parsed: argparse.Namespace) -> None:
    """Run what was asked for, one after the other."""
    _say(f"ulimit -n {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}")
    for name in parsed.only or _SCENARIOS:
        await _SCENARIOS[name](parsed)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--watches", type=int, default=1000)
    parser.add_argument("--body-mib", type=int, default=1024)
    parser.add_argument("--only", nargs="+", choices=sorted(_SCENARIOS))
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
