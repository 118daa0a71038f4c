"""What is accepted arrives byte for byte save what docs/headers.md tells; what is not is a 4xx that harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.support.header_tables import forwarded, returned
from tests.support.received_request import split_request
from tests.support.running_gateway import (
    ADMINISTRATOR,
    OWN_AUTHORIZATION,
    PROXY,
    RunningGateway,
    render_head,
    running_gateway,
)
from tests.support.scripted_cluster import Answer, Close, Send, Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from tests.support.raw_client import RawClient
    from tests.support.received_request import ReceivedRequest

Lines = list[tuple[bytes, bytes]]
Answering: TypeAlias = "Callable[[ReceivedRequest], bytes | Sequence[Step]]"

_EXAMPLES = 60
_MUTATIONS = 120
BOUNDED = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE_BYTES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
QUERY_BYTES = bytes(set(range(0x21, 0x7F)) - set(b"#\\"))
SEGMENT_BYTES = bytes(set(QUERY_BYTES) - set(b"/?%"))


def text_of(alphabet: bytes, *, smallest: int = 0, largest: int = 24) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(alphabet), min_size=smallest, max_size=largest).map(bytes)


ESCAPES = st.sampled_from([b"%20", b"%e2%82%ac", b"%41", b"%3F", b"%23", b"%25zz", b"%FF"])
SEGMENTS = st.lists(text_of(SEGMENT_BYTES, smallest=1, largest=8) | ESCAPES, min_size=1, max_size=3).map(b"".join)
PATHS = st.lists(SEGMENTS.filter(lambda segment: segment not in (b".", b"..")), max_size=5).map(
    lambda segments: b"/" + b"/".join(segments)
)
QUERIES = st.none() | text_of(QUERY_BYTES, largest=40)


def without_repeated(lines: Lines, names: Sequence[bytes]) -> Lines:
    """Leave out each second line of these names."""
    seen: set[bytes] = set()
    kept: Lines = []
    for name, value in lines:
        if name.lower() not in seen:
            kept.append((name, value))
        if name.lower() in names:
            seen.add(name.lower())
    return kept


def join_target(path: bytes, slash: bytes, query: bytes | None) -> bytes:
    return (path.rstrip(b"/") + slash or b"/") + (b"" if query is None else b"?" + query)


TARGETS = st.builds(join_target, PATHS, st.sampled_from([b"", b"/"]), QUERIES)
METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])

# Framing and switches of protocol have tests of their own; these would change what the test must send.
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"host", b"upgrade", b"expect", b"x-forwarded-for"})
_SPECIAL_NAMES = [
    b"Authorization", b"Cookie", b"X-Remote-User", b"x_remote_group", b"X-Forwarded-Host", b"Forwarded", b"TE",
    b"Proxy-Authorization", b"Keep-Alive", b"Trailer", b"Accept", b"accept", b"Audit-Id", b"traceparent",
    b"Content-Encoding", b"Set-Cookie", b"Server", b"Date", b"Alt-Svc", b"WWW-Authenticate", b"Warning",
]  # fmt: skip
NAMES = (text_of(TOKEN_BYTES, smallest=1, largest=16) | st.sampled_from(_SPECIAL_NAMES)).filter(
    lambda name: (
        name.lower().replace(b"_", b"-") not in _FRAMING
        and not name.lower().replace(b"_", b"-").startswith(b"impersonate-")
        and name.lower().replace(b"_", b"-") not in (b"sec-websocket-protocol", b"connection", b"location")
    )
)
VALUES = text_of(VALUE_BYTES).map(lambda value: value.strip(b" \t"))
CONNECTIONS = st.lists(
    st.lists(st.sampled_from([b"Accept", b"x-a", b"X_A", b"Audit-Id", b"", b"\t", b"server"]), max_size=3).map(
        lambda tokens: (b"Connection", b" ,".join(tokens).strip(b" \t"))
    ),
    max_size=2,
)
HEADERS = st.tuples(st.lists(st.tuples(NAMES, VALUES), max_size=8), CONNECTIONS).flatmap(
    lambda parts: st.permutations([*parts[0], *parts[1], (b"X-A", b"1")])
)
BODIES = st.binary(max_size=300)


@dataclass(frozen=True)
class Body:
    """A body and how it is framed: None for not at all, "length", or the sizes of its chunks."""

    data: bytes
    framing: str | tuple[int, ...] | None

    @property
    def lines(self) -> Lines:
        if self.framing == "length":
            return [(b"Content-Length", b"%d" % len(self.data))]
        return [] if self.framing is None else [(b"Transfer-Encoding", b"chunked")]

    def render(self) -> bytes:
        if not isinstance(self.framing, tuple):
            return self.data
        pieces, start = [], 0
        for size in (*self.framing, len(self.data)):
            piece = self.data[start : start + size]
            start += size
            if piece:
                pieces.append(b"%X;ext=1\r\n%b\r\n" % (len(piece), piece))
        return b"".join([*pieces, b"0\r\nX-Trailer: x\r\n\r\n"])


SIZES = st.lists(st.integers(1, 200), max_size=4).map(tuple)
# A chunked body that turns out empty before its head is forwarded is none.
REQUEST_BODIES = (
    st.builds(Body, st.just(b""), st.none())
    | st.builds(Body, BODIES, st.just("length"))
    | st.builds(Body, BODIES.filter(bool), SIZES)
)
RESPONSE_BODIES = st.builds(Body, BODIES, st.none() | st.just("length") | SIZES)
# RFC 9110 has these at most once in a request; aiohttp's parser refuses a second.
ONCE = (b"content-location", b"content-range", b"content-type", b"etag", b"max-forwards", b"server", b"user-agent")
REQUEST_HEADERS = HEADERS.map(lambda lines: without_repeated(lines, ONCE))
REASONS = text_of(VALUE_BYTES, largest=20).map(lambda value: value.strip(b" \t"))
STATUSES = st.integers(200, 599).filter(lambda status: status != 401)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


def answering(gateway: RunningGateway, answer: Answering) -> None:
    """Let every connection to the cluster answer so, also those that are open already."""

    def answer_now(request: ReceivedRequest) -> bytes | Sequence[Step]:
        return current[0](request)

    gateway.cluster.otherwise = (Answer(answer_now),)
    current[:] = [answer]


current: list[Answering] = []


def answer_empty(request: ReceivedRequest) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def take_requests(gateway: RunningGateway) -> list[ReceivedRequest]:
    """What the cluster has got since this was last asked."""
    requests = gateway.cluster.requests
    for connection in gateway.cluster.connections:
        assert connection.fault is None, connection.fault
        connection.requests.clear()
    return requests


def expected_at_cluster(gateway: RunningGateway, lines: Lines, body: Body) -> tuple[Lines, bool]:
    """The lines that the page promises, and whether an Audit-Id is among those that the gateway sets."""
    kept = forwarded(lines)
    without_id = not any(name.lower() == b"audit-id" for name, _ in kept)
    own = [(b"Host", b"127.0.0.1:%d" % gateway.cluster.port), OWN_AUTHORIZATION]
    return [*own, *kept, (b"X-Forwarded-For", b"127.0.0.1"), *body.lines], without_id


@BOUNDED
@given(method=METHODS, target=TARGETS, lines=REQUEST_HEADERS, body=REQUEST_BODIES)
async def test_cluster_gets_the_requests_bytes(
    gateway: RunningGateway, method: bytes, target: bytes, lines: Lines, body: Body
) -> None:
    answering(gateway, answer_empty)
    sent = [(b"Host", b"gateway"), *ADMINISTRATOR, *lines, *body.lines]
    async with gateway.connect() as client:
        await client.send(render_head(method, target, sent) + body.render())
        response = await client.response(bodiless=method == b"HEAD")
    assert response.status == 200, response
    (received,) = take_requests(gateway)
    expected, makes_id = expected_at_cluster(gateway, sent, body)
    if makes_id:
        ids = [line for line in received.headers if line[0] == b"Audit-Id"]
        assert len(ids) == 1
        received.headers.remove(ids[0])
    assert received.method == method
    assert received.target == target.replace(b"__dryRun", b"dryRun") or received.target == target
    assert received.headers == expected
    assert received.body == body.data


@pytest.mark.parametrize("name", ONCE)
async def test_header_that_can_come_once_is_refused_twice(gateway: RunningGateway, name: bytes) -> None:
    lines = [(b"Host", b"gateway"), *ADMINISTRATOR, (name, b"a"), (name.upper(), b"a")]
    async with gateway.connect() as client:
        await client.send(render_head(b"GET", b"/api", lines))
        assert (await client.response()).status == 400
    assert gateway.cluster.connections == []


@BOUNDED
@given(method=METHODS, status=STATUSES, reason=REASONS, lines=HEADERS, body=RESPONSE_BODIES)
async def test_client_gets_the_responses_bytes(
    gateway: RunningGateway, method: bytes, status: int, reason: bytes, lines: Lines, body: Body
) -> None:
    without_body = method == b"HEAD" or status in (204, 304)

    def answer(request: ReceivedRequest) -> Sequence[Step]:
        head = b"".join(b"%b: %b\r\n" % line for line in [*lines, *body.lines])
        data = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, head)
        ends = (Close(),) if body.framing is None and not without_body else ()
        return (Send(data if without_body else data + body.render()), *ends)

    answering(gateway, answer)
    async with gateway.connect() as client:
        await client.send(render_head(method, b"/api", [(b"Host", b"gateway"), *ADMINISTRATOR]))
        response = await client.response(bodiless=method == b"HEAD")
        await client.send(render_head(b"OPTIONS", b"/next", [(b"Host", b"gateway"), *ADMINISTRATOR]))
        head, _ = await client.head()  # still in step
    assert head == status
    take_requests(gateway)
    expected = returned([*lines, *body.lines])
    if status == 204:
        expected = [line for line in expected if line[0].lower() != b"content-length"]
    framed = any(name == b"Content-Length" for name, _ in expected)
    if not without_body and not framed:
        expected.append((b"Transfer-Encoding", b"chunked"))
    assert (response.status, response.reason.encode("latin-1")) == (status, reason)
    assert [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers] == expected
    assert response.body == (b"" if without_body else body.data)


_MUTANTS = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"/", b"..", b"/../", b"%2e%2e/",
    b"%2f", b"%00", b"#", b"?", b"\\", b"0", b"-", b"+", b"x", b"\x0b", b"\x80", b"\xff", b"Content-Length: 3\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Content_Length: 3\r\n", b"Host: b\r\n", b"HTTP/1.0", b"HTTP/2.0", b"GET /x HTTP/1.1\r\n", b" folded",
    b"X_Remote_Group: system:masters\r\n", b"Connection: authorization, host, x-forwarded-for\r\n",
    b"Impersonate-User: root\r\n",
]  # fmt: skip
PLACES = st.floats(0, 1, exclude_max=True)
MUTATIONS = st.lists(
    st.tuples(PLACES, st.sampled_from([0, 0, 1, 2, 7]), st.sampled_from(_MUTANTS) | st.binary(max_size=3)),
    min_size=1,
    max_size=3,
)


def mutate(data: bytes, mutations: list[tuple[float, int, bytes]]) -> bytes:
    """Replace bytes at places, the head's last line break apart."""
    for place, removed, inserted in mutations:
        at = int(place * len(data))
        data = data[:at] + inserted + data[at + removed :]
    return data


@settings(BOUNDED, max_examples=_MUTATIONS)
@given(body=st.sampled_from([Body(b"", None), Body(b"abc", "length"), Body(b"abcde", (2,))]), mutations=MUTATIONS)
async def test_garbled_request_is_refused_or_means_the_same_to_the_cluster(
    gateway: RunningGateway, body: Body, mutations: list[tuple[float, int, bytes]]
) -> None:
    """Each request that reaches the cluster must be one that a strict reader finds in the client's bytes, in order."""
    answering(gateway, answer_empty)
    lines = [(b"Host", b"gateway"), *ADMINISTRATOR, (b"X-A", b"1"), *body.lines]
    data = mutate(render_head(b"POST", b"/a?b=c", lines) + body.render(), mutations)
    data += render_head(b"GET", b"/last", [(b"Host", b"gateway"), *ADMINISTRATOR])
    strict = read_strictly(data)
    async with gateway.connect() as client, gateway.connect() as other:
        await client.send(data)
        statuses = await read_statuses(client, len(strict))
        # An answer to what was sent later: by now the gateway has read all that it wanted to of `data`.
        await other.send(render_head(b"GET", b"/barrier", [(b"Host", b"gateway"), *ADMINISTRATOR]))
        assert (await other.response()).status == 200
    received = [request for request in take_requests(gateway) if request.target != b"/barrier"]
    event(f"{len(received)} of {len(strict)} at the cluster")
    # A garbled cluster's name is none that is registered, which is a 503.
    assert all(status in (200, 503) or 400 <= status < 500 for status in statuses), statuses
    meant = iter(strict)
    for got in received:  # each is one of the strict reader's, in order; others may have been refused
        assert any(means_the_same(got, request) for request in meant), (got, data)
        names = {name.lower() for name, _ in got.headers}
        assert names.isdisjoint({b"x-remote-user", b"x-remote-group", b"x_remote_group", b"connection"})
        assert got.values(b"Authorization") == [OWN_AUTHORIZATION[1]]


def means_the_same(got: ReceivedRequest, meant: ReceivedRequest) -> bool:
    proxied, _, rest = meant.target.partition(PROXY)
    target = rest if rest.startswith(b"/") else b"/" + rest
    return (got.method, got.target, got.body) == (meant.method, target, meant.body) and not proxied


def read_strictly(data: bytes) -> list[ReceivedRequest]:
    """The requests up to the first that breaks a rule, by a reader that knows nothing but RFC 9112."""
    found = []
    with contextlib.suppress(AssertionError, ValueError):
        # RFC 9112 section 2.2: empty lines in front of a request are ignored.
        while read := split_request(data.lstrip(b"\r\n"), lenient=True):
            request, length = read
            found.append(request)
            data = data.lstrip(b"\r\n")[length:]
    return found


async def read_statuses(client: RawClient, count: int) -> list[int]:
    """Statuses of so many answers, or of fewer if the gateway closes before."""
    statuses: list[int] = []
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while len(statuses) < count:
            statuses.append((await client.response()).status)
    return statuses
