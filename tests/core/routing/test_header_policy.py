from __future__ import annotations

import pytest

from cluster_gateway_core.errors import AccessDeniedError, InvalidRequestError
from cluster_gateway_core.routing.header_policy import first_value, forwarded_headers, returned_headers

_BEARER = b"base64url.bearer.authorization.k8s.io.c2VjcmV0"


def test_ordinary_headers_travel_in_order_and_as_spelled() -> None:
    headers = [
        (b"aCCept", b"application/json;as=Table, */*"),
        (b"X-Thing", b"1"),
        (b"x-thing", b"2"),
        (b"X-Empty", b""),
        (b"Content-Encoding", b"gzip"),
        (b"X-Latin", b"caf\xe9\tbar"),
    ]

    assert forwarded_headers(headers) == headers


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",
        b"AUTHORIZATION",
        b"Cookie",
        b"Host",
        b"Content-Length",
        b"Content_Length",
        b"Transfer-Encoding",
        b"transfer_encoding",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"HTTP2-Settings",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"Proxy-Authorization",
        b"Proxy-Anything",
        b"Expect",
        b"Forwarded",
        b"X-Forwarded-For",
        b"X_Forwarded_Proto",
        b"X-Remote-User",
        b"x-remote-group",
        b"X_Remote_User",
        b"X-Remote_Extra-Scopes",
        b"X-Remote-Uid",
    ],
)
def test_identity_credential_and_hop_headers_never_travel(name: bytes) -> None:
    assert forwarded_headers([(b"A", b"1"), (name, b"x"), (b"B", b"2")]) == [(b"A", b"1"), (b"B", b"2")]


@pytest.mark.parametrize(
    "name",
    [b"Impersonate-User", b"impersonate-group", b"Impersonate_User", b"Impersonate-Extra-x", b"Impersonate-Foo"],
)
def test_impersonation_is_refused_and_never_dropped_silently(name: bytes) -> None:
    """Rancher CVE-2021-36776."""
    with pytest.raises(AccessDeniedError, match="impersonation"):
        forwarded_headers([(name, b"admin")])


def test_headers_named_in_any_connection_line_are_dropped() -> None:
    """Rancher CVE-2021-31999, Traefik CVE-2026-29054."""
    headers = [
        (b"Connection", b"close, x-ONE,, \t"),
        (b"X-One", b"1"),
        (b"X-Two", b"2"),
        (b"connection", b"\tX-Two\t,keep-alive"),
        (b"X-Three", b"3"),
    ]

    assert forwarded_headers(headers) == [(b"X-Three", b"3")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"", b"x"),
        (b"A B", b"x"),
        (b"Transfer-Encoding ", b"chunked"),
        (b" Host", b"evil"),
        (b"A:B", b"x"),
        (b"A\r\nB", b"x"),
        (b"A\rB", b"x"),
        (b"A\0", b"x"),
        (b"\xc3\xa9", b"x"),
        (b"A", b"x\r\nX-Remote-User: admin"),
        (b"A", b"x\ny"),
        (b"A", b"x\0"),
        (b"A", b"\x1b[31m"),
        (b"A", b"\x7f"),
    ],
)
def test_header_that_would_break_framing_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="header"):
        forwarded_headers([(name, value)])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"v5.channel.k8s.io, " + _BEARER + b", v4.channel.k8s.io", b"v5.channel.k8s.io, v4.channel.k8s.io"),
        (_BEARER + b",v5.channel.k8s.io", b"v5.channel.k8s.io"),
        (b"v5.channel.k8s.io,v4.channel.k8s.io", b"v5.channel.k8s.io,v4.channel.k8s.io"),
        (b"v5.channel.k8s.io, Base64URL.Bearer.Authorization.K8s.io.x", b"v5.channel.k8s.io"),
    ],
)
def test_bearer_token_among_subprotocols_is_dropped(value: bytes, kept: bytes) -> None:
    assert forwarded_headers([(b"Sec-WebSocket-Protocol", value)]) == [(b"Sec-WebSocket-Protocol", kept)]


def test_bearer_token_alone_leaves_no_subprotocol_line() -> None:
    assert forwarded_headers([(b"sec-websocket-protocol", _BEARER), (b"A", b"1")]) == [(b"A", b"1")]


def test_hop_headers_of_the_cluster_are_not_returned() -> None:
    headers = [
        (b"Content-Type", b"application/json"),
        (b"Connection", b"keep-alive, X-Hop"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"x-hop", b"1"),
        (b"Alt-Svc", b"h3"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"Content-Length", b"5"),
        (b"WWW-Authenticate", b"Basic"),
    ]

    assert returned_headers(headers) == [
        (b"Content-Type", b"application/json"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"Content-Length", b"5"),
        (b"WWW-Authenticate", b"Basic"),
    ]  # RT-16: repeated headers stay apart and in order


def test_first_value_ignores_the_case_of_names() -> None:
    headers = [(b"A", b"1"), (b"LOCATION", b"x"), (b"location", b"y")]

    assert first_value(headers, b"location") == b"x"
    assert first_value(headers, b"upgrade") is None
