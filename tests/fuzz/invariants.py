"""What must hold whatever arrives: one function a parser, each of bytes that a fuzzer made.

Every one raises AssertionError where its rule is broken. `test_invariants.py` runs them with hypothesis, `run.py` with
atheris.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import httptools
import yaml
from aiohttp import web
from google.protobuf.message import DecodeError
from tests.fuzz.simple_readings import accepts_target, decodings, is_token, read_request
from tests.fuzz.source import Source

from cluster_gateway_core.errors import AccessDeniedError, GatewayError, InvalidRequestError
from cluster_gateway_core.model.identity import StaticMapping
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.registry.label_selector import Operator, Requirement, parse_label_selector
from cluster_gateway_core.routing.header_policy import forwarded_headers, returned_headers
from cluster_gateway_core.routing.identity_exchange import render_impersonation
from cluster_gateway_core.routing.identity_rules import InvalidIdentityRulesError, parse_identity_rules
from cluster_gateway_core.routing.request_info import parse_request_info
from cluster_gateway_core.routing.target import check_target
from cluster_gateway_core.server.routing_servicer import _read_head
from cluster_gateway_core.upstream.request_head import choose_framing, render_request_head
from cluster_gateway_core.upstream.response_reader import ResponseReader
from cluster_gateway_facade.handlers.field_selector import FieldSelector, InvalidFieldSelectorError
from cluster_gateway_facade.handlers.proxied_path import parse_proxied_target
from cluster_gateway_facade.serving.connection import Connection, ErrInfo
from clustergateway.routing.v1.routing_service_pb2 import ExchangeRequest, Header, RequestHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster_gateway_core.model.http import Headers

_TARGET_WORDS: Final = (
    *(b"/", b".", b"..", b"/../", b"%2e", b"%2E", b"%25", b"%252e", b"%2f", b"%5c", b"%00", b"%0d%0a", b"\\", b"%"),
    *(b"?", b"&", b"=", b"#", b" ", b"//", b"a", b"/api/v1", b"/apis/apps/v1", b"/namespaces", b"/nodes", b"/n"),
    *(b"/pods", b"/services", b"/proxy", b"/exec", b"watch", b"%zz", b";", b"\xc3\xa4", b"/api/v1/nodes/n/proxy"),
    *(
        b"/api/v1/namespaces/n/pods/p/proxy",
        b"2525",
        b"~",
        b"fieldSelector=metadata.name",
        b"true",
        b"false",
        b"/status",
    ),
)
_STARTS: Final = (
    *(b"/api/v1", b"/apis/apps/v1", b"/namespaces", b"/n", b"/pods", b"/status", b"/finalize", b"/watch", b"/proxy"),
    *(b"/nodes", b"/scale", b"/", b"?watch=1", b"?watch=false&watch", b"&watch=0", b"?", b"/%2e", b"/a%2fb"),
)
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LIST")
_NAME_WORDS: Final = (
    *(b"X-Remote-User", b"X-Remote-Group", b"X-Remote-Extra-a", b"Impersonate-User", b"Authorization", b"Cookie"),
    *(b"Connection", b"Upgrade", b"Host", b"Content-Length", b"Transfer-Encoding", b"TE", b"Trailer", b"Expect"),
    *(b"X-Forwarded-For", b"Forwarded", b"Proxy-Authorization", b"Keep-Alive", b"Sec-WebSocket-Protocol", b"Accept"),
    *(b"X-Thing", b"-", b"_", b" ", b":", b"\t", b"a", b"User-Agent", b"Content-Type"),
)
_VALUE_WORDS: Final = (
    *(b"close", b"keep-alive", b"upgrade", b"X-Thing", b"authorization", b"x-remote-user", b", ", b",", b"\t", b" "),
    *(b"base64url.bearer.authorization.k8s.io.c2VjcmV0", b"v5.channel.k8s.io", b"chunked", b"gzip", b"0", b"12"),
    *(b"\r\n", b"\n", b"\0", b"\x7f", b"websocket", b"SPDY/3.1", b"a", b"\xe4", b"Accept", b"-1", b"text/html"),
)
_HOP_OR_IDENTITY: Final = re.compile(
    rb"(authorization|cookie|host|forwarded|connection|keep-alive|te|trailer|transfer-encoding|upgrade|content-length"
    rb"|expect|http2-settings|(x-remote|x-forwarded|proxy|impersonate)-.*)",
    re.DOTALL,
)
_BEARER: Final = b"base64url.bearer.authorization.k8s.io."


def target(data: bytes) -> None:
    """A target is accepted by both readings or by none, and holds no dot segment however often it is decoded."""
    text = Source(data).join(_TARGET_WORDS)
    accepted = _accepts(text)
    assert accepted is accepts_target(text), text
    if not accepted:
        return
    path, separator, _ = text.partition(b"?")
    for layer in decodings(path):
        assert not {b".", b".."} & set(re.split(rb"[/\\]", layer)), text
    assert not set(b"\r\n\0") & set(text)
    # What is accepted alone is accepted as what it is below proxy, and comes out of the facade as it went in.
    proxied = parse_proxied_target(b"/apis/cluster.core.oam.dev/v1alpha1/clustergateways/c/proxy" + text)
    assert proxied is not None
    assert proxied.target == text or b"__dryRun" in text
    assert _accepts(path + separator)


def header_policy(data: bytes) -> None:
    """Of the caller's headers none of identity, credential or hop gets through, in whatever spelling."""
    headers = _make_headers(Source(data))
    try:
        kept = forwarded_headers(headers)
    except AccessDeniedError:
        assert any(_canonical(name).startswith(b"impersonate-") for name, _ in headers)
        return
    except InvalidRequestError:
        assert any(not is_token(name) or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for name, value in headers)
        return
    _assert_in_order(kept, headers)
    named = _connection_tokens(headers)
    for name, value in kept:
        key = _canonical(name)
        assert not _HOP_OR_IDENTITY.fullmatch(key), name
        assert is_token(name)
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)
        assert name.lower() not in named
        if key == b"sec-websocket-protocol":
            assert not any(part.strip().lower().startswith(_BEARER) for part in value.split(b","))
    swapped = forwarded_headers([(name.swapcase(), value) for name, value in headers])
    assert [(name.swapcase(), value) for name, value in swapped] == kept
    assert forwarded_headers(kept) == kept


def returned_policy(data: bytes) -> None:
    """Of a cluster's headers none of the hop gets through, and the others stay in order."""
    headers = _make_headers(Source(data))
    kept = returned_headers(headers)
    _assert_in_order(kept, headers)
    named = _connection_tokens(headers)
    hop = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authenticate"}
    assert not {name.lower() for name, _ in kept} & (hop | named)


def request_info(data: bytes) -> None:
    """Two readings of a request agree, and what is asked for is found in the path."""
    source = Source(data)
    method = source.pick(_METHODS)
    start = b"".join(source.pick(_STARTS) + source.pick(_STARTS[1:]) for _ in range(source.byte() % 4))
    text = (start + source.join(_TARGET_WORDS)).decode("utf-8", "replace")
    info = parse_request_info(method, text)
    raw_path, _, query = text.partition("?")
    simple = read_request(method, unquote(raw_path), query)
    for key, value in simple.items():
        if key != "name" or "fieldSelector" not in query:
            assert getattr(info, key) == value, (key, method, text)
    segments = set(info.path.split("/"))
    assert {info.namespace, info.resource, info.subresource} <= segments | {""}
    assert info.verb in {"", *_VERBS} if info.is_resource_request else info.verb == method.lower()
    if method not in _METHODS[:-2] and info.is_resource_request:
        assert info.verb in {"", "watch", "proxy"}


_VERBS: Final = (*("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"),)


def exchange_request(data: bytes) -> None:
    """What a gRPC client sends is refused, or becomes exactly one HTTP request on the wire."""
    source = Source(data)
    flags = source.byte()
    first = _parse_message(source) if flags & 1 else _make_message(source)
    if first is None:
        return
    try:
        request = _read_head(first, trusted=bool(flags & 2))
        check_target(request.target)
        headers = forwarded_headers(request.headers)
        framing = choose_framing(request)
    except GatewayError:
        return
    own = b"Host: cluster\r\nAuthorization: Bearer own\r\n"
    wire = render_request_head(request, headers, framing, base_path=b"/base", own_headers=own)
    head, _, rest = wire.partition(b"\r\n\r\n")
    assert rest == b""
    line, *fields = head.split(b"\r\n")
    assert line == b"%b /base%b HTTP/1.1" % (request.method.encode(), request.target)
    pairs = [(name, value) for name, _, value in (field.partition(b": ") for field in fields)]
    assert pairs[:2] == [(b"Host", b"cluster"), (b"Authorization", b"Bearer own")]
    assert pairs[2 : 2 + len(headers)] == headers
    added = [name for name, _ in pairs[2 + len(headers) :]]
    assert added in _ALLOWED_ENDS
    for name in (b"host", b"authorization", b"content-length", b"transfer-encoding", b"connection", b"upgrade"):
        assert sum(key.lower() == name for key, _ in pairs) <= 1
    assert not set(wire.replace(b"\r\n", b"")) & set(b"\r\n\0")
    if wire.isascii():
        _assert_one_request(wire, request.method, b"/base" + request.target)


_FRAMINGS: Final = ([], [b"Content-Length"], [b"Transfer-Encoding"])
_ALLOWED_ENDS: Final = [
    [*forwarded, *framing, *switch]
    for forwarded in ([], [b"X-Forwarded-For"])
    for framing in _FRAMINGS
    for switch in ([], [b"Connection", b"Upgrade"])
]


def response(data: bytes) -> None:
    """How a cluster's bytes are cut into reads decides nothing about what the answer is."""
    source = Source(data)
    method = source.pick(("GET", "HEAD", "POST"))
    cuts = source.take(16)
    text = source.join(_RESPONSE_WORDS, most=40)
    whole = _read_response(method, [text] if text else [])
    assert _read_response(method, Source(cuts).cut(text)) == whole, text
    assert _read_response(method, [text[place : place + 1] for place in range(len(text))]) == whole, text
    head, body, complete, tunnel, failed = whole
    assert not (failed and complete)
    assert not (tunnel and (head is None or head[0] != 101))
    assert head is None or head[0] == 101 or head[0] >= 200
    if head is not None and complete and method == "HEAD":
        assert body == b""


def switched_response(data: bytes) -> None:
    """What follows a 101 is handed over byte for byte, wherever the reads are cut."""
    source = Source(data)
    cuts = source.take(16)
    head = b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n" % (
        source.pick((b"", b"Switching Protocols", b"x")),
        source.pick((b"websocket", b"SPDY/3.1")),
        source.pick((b"", b"A: b\r\n", b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n")),
    )
    tail = source.take(1 << 20)
    got, body, complete, tunnel, failed = _read_response("GET", Source(cuts).cut(head + tail))
    assert (got is not None and got[0], body, complete, tunnel, failed) == (101, tail, False, True, False)


_RESPONSE_WORDS: Final = (
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 103 Early\r\n",
        b"HTTP/1.0 200 OK\r\n",
    ),
    *(
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 304 Not Modified\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: Upgrade\r\n",
        b"Upgrade: websocket\r\n",
    ),
    *(b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello", b"\n", b"\r", b"0\r\nA: b\r\n\r\n", b": ", b"A: b\r\n", b" "),
    *(
        b"Content-Length: 6\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"HTTP/1.1 ",
        b"500",
        b"ffffffffffffffff1\r\n",
        b";a=b",
    ),
)


def held_switch(data: bytes) -> None:
    """What a client sends behind a request to switch protocols is held byte for byte, or the request is refused."""
    source = Source(data)
    cuts = source.take(16)
    upgrade = source.pick((b"SPDY/3.1", b"websocket", b"spdy/3.1", b"h2c"))
    connection = source.pick((b"Upgrade", b"keep-alive, upgrade", b"close", b"upgrade,"))
    method = source.pick((b"GET", b"POST"))
    extra = source.pick(
        (b"", b"A: b\r\n", b"Content-Length: 0\r\n", b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n")
    )
    head = b"%b /x HTTP/1.1\r\nHost: a\r\nConnection: %b\r\nUpgrade: %b\r\n%b\r\n" % (
        method,
        connection,
        upgrade,
        extra,
    )
    before = source.pick((b"", b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"))
    tail = source.take(4096)
    held, refused, asked = asyncio.run(_feed(Source(cuts).cut(before + head + tail)))
    if held is not None:
        assert asked
        assert held == tail, (head, tail)
    else:
        assert refused or not asked


def label_selector(data: bytes) -> None:
    """A selector written out is read back as it was meant, and any text is read or refused."""
    source = Source(data)
    if source.byte() % 2:
        _read_any_selector(source.join(_SELECTOR_WORDS).decode("utf-8", "replace"))
        return
    requirements = tuple(_make_requirement(source) for _ in range(source.byte() % 4))
    text = ",".join(_write_requirement(requirement, source) for requirement in requirements)
    assert parse_label_selector(text).requirements == requirements, text


def field_selector(data: bytes) -> None:
    """Any text is read or refused, and a selector by name selects that name alone."""
    text = Source(data).join(_FIELD_WORDS).decode("utf-8", "replace")
    try:
        selector = FieldSelector.parse(text)
    except InvalidFieldSelectorError:
        return
    for name in ("a", "managed1", ""):
        wanted = [
            term.equal is (term.value == (name if term.field == "metadata.name" else ""))
            for term in selector.requirements
        ]
        assert selector.matches(name) is all(wanted)
    assert len(selector.requirements) == sum(1 for term in text.split(",") if term)


def identity_rules(data: bytes) -> None:
    """All rules of a text are read or none is, each with the user and the reach that a plain reading finds in it."""
    source = Source(data)
    cluster_name = source.pick((None, "managed1"))
    text = _write_rules(source) if source.byte() % 4 else source.join(_RULE_WORDS).decode("utf-8", "replace")
    try:
        rules = parse_identity_rules(text, maximum_bytes=4096, cluster_name=cluster_name)
    except InvalidIdentityRulesError:
        return
    assert len(text.encode()) <= 4096
    written = yaml.safe_load(text)["spec"]["clientIdentityExchanger"]["rules"]
    assert len(rules) == len(written)
    for rule, meant in zip(rules, written, strict=True):
        assert type(rule.exchange).__name__ + "IdentityExchanger" == meant["type"]
        assert any(value is not None for value in meant["source"].values())
        if isinstance(rule.exchange, StaticMapping):
            assert rule.exchange.user == meant["target"]["user"] != ""
    for rule in rules if cluster_name is not None else ():
        # One that could never apply where it is written would leave its callers to the rules behind it.
        pattern = rule.source.cluster_pattern
        assert rule.source.cluster in (None, cluster_name)
        assert pattern is None or re.fullmatch(pattern.text, cluster_name)


def impersonation_headers(data: bytes) -> None:
    """An identity that is told to a cluster is read back as it was, or it is refused."""
    source = Source(data)
    username = _make_text(source)
    uid = _make_text(source)
    groups = tuple(_make_text(source) for _ in range(source.byte() % 4))
    extra = tuple((_make_text(source), (_make_text(source),)) for _ in range(source.byte() % 3))
    try:
        told = render_impersonation(UserInfo(username=username, uid=uid, groups=groups, extra=extra))
    except GatewayError:
        return
    assert told.endswith(b"\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in told[:-2].split(b"\r\n"))]
    assert all(is_token(name) and value == value.strip(b" \t") for name, value in pairs)
    read = [(name, value.decode()) for name, value in pairs]
    assert [value for name, value in read if name == b"Impersonate-User"] == [username] != [""]
    assert [value for name, value in read if name == b"Impersonate-Uid"] == ([uid] if uid else [])
    assert tuple(value for name, value in read if name == b"Impersonate-Group") == groups
    prefix = b"Impersonate-Extra-"
    found = [(unquote(name[len(prefix) :].decode()), value) for name, value in read if name.startswith(prefix)]
    assert found == [(key, values[0]) for key, values in extra]


INVARIANTS: Final[dict[str, Callable[[bytes], None]]] = {
    function.__name__: function
    for function in (
        *(target, header_policy, returned_policy, request_info, exchange_request, response, switched_response),
        *(held_switch, label_selector, field_selector, identity_rules, impersonation_headers),
    )
}
"""Every rule by name."""

_SELECTOR_WORDS: Final = (
    *(b"a", b"region", b"example.com/", b"=", b"==", b"!=", b"!", b",", b"(", b")", b" in ", b" notin ", b">", b"<"),
    *(b" ", b"\t", b"1", b"9" * 70, b"-", b".", b"/", b"in", b"notin", b"\xc3\xa4", b"A_b", b"\n"),
)
_FIELD_WORDS: Final = (
    *(
        b"metadata.name",
        b"metadata.namespace",
        b"=",
        b"==",
        b"!=",
        b",",
        b"a",
        b"managed1",
        b"\\",
        b"spec.x",
        b"!",
        b" ",
    ),
)
_KEYS: Final = ("a", "region", "example.com/tier", "in", "notin", "A_b.c-d")
_VALUES: Final = ("", "a", "eu", "1", "in", "A_b.c-d")


_RULE_WORDS: Final = (
    *(
        b"spec:",
        b"\n",
        b"  ",
        b"clientIdentityExchanger:",
        b"rules:",
        b"- ",
        b"name: a",
        b"type: ",
        b"source:",
        b"user: a",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b"&a ",
        b"*a",
        b"!!python/object:a ",
        b"<<: ",
        b": ",
        b",",
        b'"',
        b"'",
        b"~",
        b"null",
        b"---\n",
    ),
    *(b"target:", b"StaticMappingIdentityExchanger", b"PrivilegedIdentityExchanger", b"#", b"|", b"\t", b"\xc3\xa4"),
)
_TYPES: Final = ("Privileged", "StaticMapping", "External", "PassThrough", "Other")
_SOURCE_FIELDS: Final = ("user", "group", "uid", "cluster", "userPattern", "groupPattern", "clusterPattern", "x")
_RULE_VALUES: Final = (
    "a",
    "b",
    "managed1",
    "",
    None,
    1,
    True,
    "managed.*",
    "(",
    "https://h",
    "http://h",
    [],
    ["a"],
    "a\nb",
)
_TEXTS: Final = (
    *(
        "a",
        "B",
        " ",
        ":",
        "\r\n",
        "\n",
        "\0",
        "%",
        "%41",
        "/",
        "k8s.io/x",
        "\xe4",
        "\u212a",
        "\u0130",
        "\t",
        ", ",
        "_",
        "-",
    ),
    *("system:masters", "\x7f", "\x85", "\ud7ff"),
)


def _write_rules(source: Source) -> str:
    """A configuration with rules that are right but for what the source changes."""
    rules: list[object] = []
    for _ in range(1 + source.byte() % 3):
        rule: dict[str, object] = {
            "name": "r",
            "type": f"{source.pick(_TYPES)}IdentityExchanger",
            "source": {source.pick(_SOURCE_FIELDS): source.pick(_RULE_VALUES) for _ in range(1 + source.byte() % 3)},
        }
        if source.byte() % 2:
            rule["target"] = {source.pick(("user", "groups", "uid", "x")): source.pick(_RULE_VALUES)}
        if source.byte() % 2:
            rule["url"] = source.pick(_RULE_VALUES)
        rules.append(rule)
    return json.dumps({"spec": {"clientIdentityExchanger": {"rules": rules}}})


def _make_text(source: Source) -> str:
    return "".join(source.pick(_TEXTS) for _ in range(source.byte() % 4))


def _accepts(text: bytes) -> bool:
    try:
        check_target(text)
    except InvalidRequestError:
        return False
    return True


def _canonical(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


def _make_headers(source: Source) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    while source.left and len(headers) < 32:
        name = source.join(_NAME_WORDS, most=3)
        spelling = source.byte()
        if spelling & 1:
            name = name.replace(b"-", b"_")
        if spelling & 2:
            name = name.swapcase()
        headers.append((name, source.join(_VALUE_WORDS, most=6)))
    return headers


def _connection_tokens(headers: Headers) -> set[bytes]:
    values = [value for name, value in headers if _canonical(name) == b"connection"]
    return {part.strip(b" \t").lower() for value in values for part in value.split(b",")} - {b""}


def _assert_in_order(kept: Sequence[tuple[bytes, bytes]], headers: Headers) -> None:
    rest = iter(headers)
    for name, value in kept:
        for other, given in rest:
            if other == name and (given == value or _canonical(name) == b"sec-websocket-protocol"):
                break
        else:
            raise AssertionError(f"{name!r} was made up or moved")


def _parse_message(source: Source) -> ExchangeRequest | None:
    message = ExchangeRequest()
    try:
        message.ParseFromString(source.take(1 << 20))
    except DecodeError:
        return None
    return message


def _make_message(source: Source) -> ExchangeRequest:
    flags = source.byte()
    head = RequestHead(
        cluster_name=source.pick(("managed1", "", "a/b")),
        method=source.pick((*_METHODS, "get", "TRACE", "GET /x HTTP/1.1\r\n")),
        target=b"/" + source.join(_TARGET_WORDS, most=12),
        upgrade=source.pick(("", "", "websocket", "SPDY/3.1", "h2c", "websocket\r\nX: y", "\u212a")),
        forwarded_for=source.pick(("", "127.0.0.1", "a\r\nb: c", "\u2028", "1.2.3.4, ::1")),
    )
    head.headers.extend(Header(name=name, value=value) for name, value in _make_headers(source))
    message = ExchangeRequest(head=head, body=b"body" if flags & 1 else b"")
    if flags & 2:
        message.end.SetInParent()
    return message


class _Requests:
    """Counts requests as llhttp reads them."""

    def __init__(self) -> None:
        self.url = b""
        self.begun = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url


def _assert_one_request(wire: bytes, method: str, url: bytes) -> None:
    seen = _Requests()
    parser = httptools.HttpRequestParser(seen)
    with contextlib.suppress(httptools.HttpParserUpgrade):  # told behind the head, which is all there is
        parser.feed_data(wire)
    assert (seen.begun, seen.url, parser.get_method()) == (1, url, method.encode())


def _read_response(method: str, pieces: Sequence[bytes]) -> tuple[tuple[object, ...] | None, bytes, bool, bool, bool]:
    reader = ResponseReader("c", method)
    body = b""
    for piece in pieces:
        reader.feed(piece)
        body += reader.take()
    reader.close()
    head = reader.head
    known = (head.status, head.reason, tuple(head.headers)) if head is not None else None
    return known, body, reader.complete, reader.tunnel, reader.failure is not None


async def _feed(pieces: Sequence[bytes]) -> tuple[bytes | None, bool, bool]:
    """Feed a connection that handles nothing: what it holds, whether it refused, whether a switch was asked for."""
    server = web.Server(_never)
    protocol = Connection(server, header_timeout_seconds=60, loop=asyncio.get_running_loop(), access_log=None)
    for piece in pieces:
        protocol.data_received(piece)
    protocol._stop_timer()
    message = protocol._messages[-1][0]
    refused = isinstance(message, ErrInfo)
    held = bytes(protocol._message_tail) if protocol.holds_switch and not refused else None
    return held, refused, not refused and bool(message.upgrade)


async def _never(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("nothing is handled here")


def _read_any_selector(text: str) -> None:
    try:
        selector = parse_label_selector(text)
    except InvalidRequestError:
        return
    for labels in ({}, {"a": "1"}, {"a": "9" * 63, "region": "eu"}, {"example.com/a": ""}):
        met = [requirement.matches(labels) for requirement in selector.requirements]
        assert selector.matches(labels) is all(met)
    for requirement in selector.requirements:
        assert requirement.key
        assert len(requirement.key.rpartition("/")[2]) <= 63
        absent = requirement.operator in (Operator.NOT_IN, Operator.DOES_NOT_EXIST)
        assert requirement.matches({}) is absent


def _make_requirement(source: Source) -> Requirement:
    key = source.pick(_KEYS)
    operator = source.pick(tuple(Operator))
    match operator:
        case Operator.EXISTS | Operator.DOES_NOT_EXIST:
            return Requirement(key=key, operator=operator)
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            return Requirement(key=key, operator=operator, values=frozenset({source.pick(("0", "7", "123"))}))
        case Operator.IN | Operator.NOT_IN:
            values = frozenset(source.pick(_VALUES) for _ in range(1 + source.byte() % 3))
            return Requirement(key=key, operator=operator, values=values)


def _write_requirement(requirement: Requirement, source: Source) -> str:
    space = source.pick(("", " ", "\t"))
    key, values = requirement.key, sorted(requirement.values)
    match requirement.operator:
        case Operator.EXISTS:
            return f"{space}{key}{space}"
        case Operator.DOES_NOT_EXIST:
            return f"{space}!{space}{key}"
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            return f"{key}{space}{requirement.operator}{space}{values[0]}"
        case Operator.IN if len(values) == 1 and source.byte() % 2:
            return f"{key}{space}{source.pick(('=', '=='))}{space}{values[0]}"
        case Operator.NOT_IN if len(values) == 1 and source.byte() % 2:
            return f"{key}{space}!={space}{values[0]}"
        case Operator.IN | Operator.NOT_IN:
            return f"{key} {requirement.operator} ({space}{f'{space},{space}'.join(values)}{space})"
