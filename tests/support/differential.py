"""The same request to a cluster by several ways, and what may differ between the answers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.support.raw_client import RawClient, RawResponse, raw_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

_CONNECTIONS: Final = 12
_ATTEMPTS: Final = 6
"""How often a comparison is begun anew because the cluster itself changed in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request.

    Attributes:
        method: Its method.
        target: The cluster's own path and query.
        headers: Header lines.
        body: Its body, sent with its length.
        compare_body: False where the body tells the moment at which it was made.
        writes: Whether the answer tells of an object that each request makes anew, with a time and a uid of its own.
    """

    method: str = "GET"
    target: str
    headers: tuple[str, ...] = ()
    body: bytes = b""
    compare_body: bool = True
    writes: bool = False

    def __str__(self) -> str:
        return " ".join((self.method, self.target, *self.headers, self.body[:80].decode("latin-1")))


@dataclass(slots=True, kw_only=True)
class Way:
    """A way to a cluster.

    Attributes:
        name: What it is called.
        port: Where clients connect to.
        tls: How, and as whom.
        prefix: What stands before the cluster's own path.
        identity: Header lines that say who asks.
    """

    name: str
    port: int
    tls: ssl.SSLContext
    prefix: str = ""
    identity: tuple[str, ...] = ()
    _idle: list[RawClient] = field(default_factory=list)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def ask(self, ask: Ask) -> RawResponse:
        """Send a request on a kept connection or a new one."""
        client = (
            self._idle.pop() if self._idle else await self._stack.enter_async_context(raw_client(self.port, self.tls))
        )
        lines = [f"{ask.method} {self.prefix}{ask.target} HTTP/1.1", "Host: 127.0.0.1", *self.identity, *ask.headers]
        if ask.body:
            lines.append(f"Content-Length: {len(ask.body)}")
        head = "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")
        await client.send(head + ask.body)
        response = await client.response(bodiless=ask.method == "HEAD")
        if "close" not in response.values("Connection"):
            self._idle.append(client)
        return response

    async def close(self) -> None:
        """Close its connections."""
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def open_ways(*ways: Way) -> AsyncIterator[None]:
    """Close their connections in the end."""
    try:
        yield
    finally:
        for way in ways:
            await way.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How an answer by another way differs."""

    ask: Ask
    way: str
    direct: RawResponse
    other: RawResponse
    what: str

    def __str__(self) -> str:
        return f"{self.way}: {self.ask}: {self.what}"


OF_ONE_REQUEST: Final = frozenset({"date", "audit-id", "last-modified"})
"""Headers of the one answer: its moment, which kube-apiserver also calls the schema's last change, and its id."""

_OF_ONE_WRITE: Final = re.compile(
    rb'"(uid|creationTimestamp|time|resourceVersion|token|expirationTimestamp|deletionTimestamp|name|generateName)":'
    rb' ?("[^"]*"|null)'
)
"""What of an object that was made anew, or of a dry run, is of that one request."""


_AGE: Final = re.compile(rb'"([0-9]+[smhd]){1,2}"')


async def compare(
    asks: Sequence[Ask], direct: Way, others: Sequence[Way], *, of_the_way: dict[str, frozenset[str]]
) -> list[Difference]:
    """Send each request by every way and return what differs.

    Args:
        asks: Requests.
        direct: The way without a gateway.
        others: The ways with one.
        of_the_way: By a way's name, the headers that something on it other than the gateway changes.
    """
    differences: list[Difference] = []
    queue = list(reversed(asks))

    async def work() -> None:
        while queue:
            ask = queue.pop()
            differences.extend(await _compare(ask, direct, others, of_the_way))

    async with asyncio.TaskGroup() as group:
        for number in range(_CONNECTIONS):
            group.create_task(work(), name=f"comparison {number}")
    return differences


async def _compare(
    ask: Ask, direct: Way, others: Sequence[Way], of_the_way: dict[str, frozenset[str]]
) -> list[Difference]:
    """Ask directly before and after: only where these two agree does a difference count, for clusters change."""
    found: list[Difference] = []
    for _ in range(_ATTEMPTS):
        before = await direct.ask(ask)
        answers = [(way, await way.ask(ask)) for way in others]
        found = [
            Difference(ask=ask, way=way.name, direct=before, other=other, what=what)
            for way, other in answers
            if (what := _differing(ask, before, other, of_the_way.get(way.name, frozenset())))
        ]
        if not found or not _differing(ask, before, await direct.ask(ask), frozenset()):
            break
    return found


def _differing(ask: Ask, one: RawResponse, two: RawResponse, ignored: frozenset[str]) -> str:
    if (one.status, one.reason) != (two.status, two.reason):
        return f"status {one.status} {one.reason}, {two.status} {two.reason}: {two.body[:300]!r}"
    first, second = _body(ask, one), _body(ask, two)
    if first != second:
        at = next((i for i, pair in enumerate(zip(first, second, strict=False)) if len(set(pair)) > 1), 0)
        return f"body at {at}: {first[max(0, at - 60) : at + 60]!r}, {second[max(0, at - 60) : at + 60]!r}"
    lines, others = _headers(ask, one, ignored), _headers(ask, two, ignored)
    if ignored:
        lines, others = sorted(lines), sorted(others)
    return "" if lines == others else f"headers {lines}, {others}"


def _body(ask: Ask, response: RawResponse) -> bytes:
    if not ask.compare_body:
        return b""
    if "as=Table" in " ".join(ask.headers):
        return _AGE.sub(b"age", response.body)
    return _OF_ONE_WRITE.sub(rb'"\1":-', response.body) if ask.writes else response.body


def _headers(ask: Ask, response: RawResponse, ignored: frozenset[str]) -> list[tuple[str, str]]:
    left_out = OF_ONE_REQUEST | ignored
    if ask.writes or not ask.compare_body:
        left_out |= {"content-length"}
    return [(name, value) for name, value in response.headers if name.lower() not in left_out]
