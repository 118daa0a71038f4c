"""A cluster that dies at a random byte (fault F1): what was cut never looks whole, and nothing falls out of step."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.support.effort import effort
from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.running_facade import ALICE, client_tls
from tests.support.stream_cluster import stream_cluster
from tests.support.strict_parser import MoreToRead, Outcome, parse_responses
from tests.support.upstreams import make_cluster

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

_RUNS = effort("TRUNCATION_RUNS", 1000)
"""On each event loop; the catalogue's own figure is 10,000."""
_AT_ONCE = 16
_HANG_SECONDS = 30.0
_LINES = b'{"type":"ADDED","object":{"kind":"Pod"}}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, all of it from its seed.

    Attributes:
        seed: The seed.
        framing: How the cluster delimits its answer.
        secure: Whether the cluster speaks TLS.
        end: How the cluster ends: in good order, by a FIN (over TLS without a close_notify), by a RST, or not at all.
        cut: How many bytes of its answer it sends.
        answer: The whole answer.
        body: The body, without framing.
        late: Whether it ends only after the client has seen something.
        old: Whether the client speaks HTTP/1.0.
        pipelined: Whether the client sends its second request right behind the first.
        watch: Whether the request asks for a watch.
        posted: What the client sends.
    """

    seed: int
    framing: Literal["length", "chunked", "close"]
    secure: bool
    end: Literal["order", "FIN", "RST", "none"]
    cut: int
    answer: bytes
    body: bytes
    late: bool
    old: bool
    pipelined: bool
    watch: bool
    posted: bytes | None

    @property
    def head_bytes(self) -> int:
        return self.answer.index(b"\r\n\r\n") + 4

    @property
    def whole(self) -> bytes | None:
        """The body of a whole answer; None where what was sent is none."""
        if self.framing != "close":
            return self.body if self.cut >= len(self.answer) else None
        # The end of the connection is the end of the body: over TLS where TLS says so, else by any FIN.
        orderly = self.end == "order" or (self.end == "FIN" and not self.secure)
        return self.body[: self.cut - self.head_bytes] if orderly and self.cut >= self.head_bytes else None

    @property
    def must_arrive(self) -> bool:
        """Whether a whole answer must reach the client: a RST may overtake what was sent in front of it."""
        return self.whole is not None and self.end != "RST"


def make_plan(seed: int) -> Plan:
    chance = random.Random(seed)  # noqa: S311 - reproducible
    watch = chance.random() < 0.2
    size = chance.choice([0, 1, chance.randint(2, 200), chance.randint(200, 20_000), chance.randint(20_000, 150_000)])
    body = _LINES * (size // len(_LINES) + 1) if watch else chance.randbytes(size)
    framing: Any = chance.choice(["length", "chunked", "close"])
    answer = frame(chance, framing, body)
    end: Any = chance.choice(["order", "FIN", "RST", "none"])
    cut = len(answer)
    if chance.random() < 0.85:
        cut = chance.randint(0, len(answer))
    if end == "none":
        cut = len(answer)
        if framing == "close":
            end = "order"
    old = chance.random() < 0.3
    return Plan(
        seed=seed,
        framing=framing,
        secure=chance.random() < 0.7,
        end=end,
        cut=cut,
        answer=answer,
        body=body,
        late=chance.random() < 0.5,
        old=old,
        pipelined=not old and chance.random() < 0.5,
        watch=watch,
        posted=chance.randbytes(chance.randint(0, 3000)) if chance.random() < 0.3 and not watch else None,
    )


def frame(chance: random.Random, framing: str, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == "close":
        return head + b"\r\n" + body
    pieces = [head, b"Transfer-Encoding: chunked\r\n\r\n"]
    start = 0
    while start < len(body):
        size = chance.randint(1, 30_000)
        piece = body[start : start + size]
        pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        start += size
    return b"".join([*pieces, b"0\r\n\r\n"])


class DyingServer:
    """Answers `/a/SEED` as its plan says and `/b/SEED` with the seed.

    Attributes:
        seen: By seed: set once the client has seen something.
    """

    def __init__(self) -> None:
        self.seen: dict[int, asyncio.Event] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        writer.transport.set_write_buffer_limits(high=1, low=0)  # of 0, asyncio's TLS makes a pause for ever
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            kind, seed = head.split(b" ", 2)[1].partition(b"?")[0].split(b"/")[1:3]
            if kind == b"b":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nb%b" % (1 + len(seed), seed))
            elif not await self._die(make_plan(int(seed)), writer):
                return

    async def _die(self, plan: Plan, writer: asyncio.StreamWriter) -> bool:
        """Answer so far, and end; returns whether the connection lives."""
        writer.write(plan.answer[: plan.cut])
        await writer.drain()
        if plan.end == "none":
            return True
        # Where nothing of it can have reached the client there is nothing to wait for.
        if plan.late and plan.cut >= plan.head_bytes:
            await self.seen[plan.seed].wait()
        raw = writer.transport.get_extra_info("socket")
        if plan.end == "order":
            writer.close()
            await writer.wait_closed()
        elif plan.end == "FIN":
            with socket.socket(fileno=os.dup(raw.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        else:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


@dataclass(slots=True, kw_only=True)
class Client:
    """One connection with two requests."""

    plan: Plan
    seen: asyncio.Event
    data: bytearray = field(default_factory=bytearray)

    async def run(self, port: int, tls: ssl.SSLContext) -> Outcome:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            first, second = self._requests()
            writer.write(first + second if self.plan.pipelined else first)
            outcome = await self._until(reader, 2 if self.plan.pipelined else 1)
            if outcome is None and not self.plan.pipelined:
                with contextlib.suppress(ConnectionError):
                    writer.write(second)
                outcome = await self._until(reader, 2)
            return outcome or parse_responses(bytes(self.data), MoreToRead())
        finally:
            self.seen.set()
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _until(self, reader: asyncio.StreamReader, count: int) -> Outcome | None:
        """Read until that many answers are whole (None), or until the connection ends: what there is then."""
        while True:
            with contextlib.suppress(MoreToRead):
                if len(parse_responses(bytes(self.data), MoreToRead()).answers) >= count:
                    return None
            try:
                piece = await reader.read(65536)
            except ConnectionError as reset:
                return parse_responses(bytes(self.data), reset)
            if not piece:
                return parse_responses(bytes(self.data), None)
            self.data += piece
            self.seen.set()

    def _requests(self) -> tuple[bytes, bytes]:
        plan = self.plan
        cluster = "secure" if plan.secure else "plain"
        version = "HTTP/1.0" if plan.old else "HTTP/1.1"
        common = "\r\n".join(("Host: gateway", *ALICE))
        target = GatewayPair.path(f"/a/{plan.seed}{'?watch=1' if plan.watch else ''}", cluster)
        if plan.posted is None:
            first = f"GET {target} {version}\r\n{common}\r\n\r\n".encode()
        else:
            length = f"Content-Length: {len(plan.posted)}"
            first = f"POST {target} {version}\r\n{common}\r\n{length}\r\n\r\n".encode() + plan.posted
        second = f"GET {GatewayPair.path(f'/b/{plan.seed}', cluster)} {version}\r\n{common}\r\n\r\n".encode()
        return first, second


def judge(plan: Plan, outcome: Outcome) -> str:
    """What is wrong with a run; "" for nothing."""
    if not outcome.answers:
        return "a whole answer did not arrive" if plan.must_arrive else ""
    status, body = outcome.answers[0]
    if status == 200:
        if plan.whole is None:
            return "what was cut looks whole"
        if body != plan.whole:
            return "the answer is another one"
    elif status not in (502, 503) or b'"kind":"Status"' not in body.replace(b" ", b""):
        return f"{status} is no answer of anybody"
    elif plan.must_arrive and not (plan.posted is not None and b"ended before it answered" in body):
        # What may not be sent twice can meet a kept connection that the cluster is just closing.
        return f"a whole answer became {status}"
    if len(outcome.answers) > 2 or (outcome.cut and len(outcome.answers) > 1):
        return "there is more than was asked for"
    for answer in outcome.answers[1:]:
        if answer != (200, b"b%d" % plan.seed):
            return "the second answer is not that of the second request"
    return ""


async def run_seed(pair: GatewayPair, cluster: DyingServer, seed: int, tls: ssl.SSLContext) -> Outcome:
    plan = make_plan(seed)
    seen = cluster.seen[seed] = asyncio.Event()
    client = Client(plan=plan, seen=seen)
    try:
        async with asyncio.timeout(_HANG_SECONDS):
            outcome = await client.run(pair.facade.port, tls)
    except TimeoutError:
        raise AssertionError(f"seed {seed} hangs after {bytes(client.data[:300])!r}") from None
    finally:
        del cluster.seen[seed]
    fault = judge(plan, outcome)
    sent = f"{plan.framing} ended by {plan.end} after {plan.cut} of {len(plan.answer)} bytes"
    assert not fault, f"{fault}: seed {seed}, {sent}; got {bytes(client.data[:900])!r}"
    return outcome


@pytest.mark.timeout(120 + _RUNS // 10)
async def test_a_cluster_killed_at_any_byte_never_looks_whole_and_nothing_falls_out_of_step(tmp_path: Path) -> None:
    """RT-35, F1: TRUNCATION_RUNS sets how often."""
    seeds = iter(range(_RUNS))
    counts = {"whole": 0, "cut": 0, "status": 0, "second": 0}
    dying = DyingServer()
    async with stream_cluster(dying.serve) as served:
        clusters = make_cluster(served.plain, name="plain"), make_cluster(served.secure, name="secure")
        async with gateway_pair(tmp_path, *clusters) as pair:
            identities = pair.facade.identities
            tls = client_tls(identities.serving_ca, identities.front_proxy, tmp_path)

            async def work() -> None:
                for seed in seeds:
                    outcome = await run_seed(pair, dying, seed, tls)
                    first = outcome.answers[0][0] if outcome.answers else 0
                    counts["whole" if first == 200 else "status" if first else "cut"] += 1
                    counts["second"] += len(outcome.answers) == 2

            async with asyncio.TaskGroup() as group:
                for number in range(_AT_ONCE):
                    group.create_task(work(), name=f"client {number}")
            await pair.until_idle()
    # A test that only ever saw one of these would prove nothing.
    assert min(counts.values()) > _RUNS / 20, counts
    print(counts)  # noqa: T201 - shown on request
