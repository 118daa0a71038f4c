from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_gateway_core.errors import InvalidRequestError
from cluster_gateway_core.routing.target import (
    MAXIMUM_QUERY_PAIRS,
    MAXIMUM_TARGET_BYTES,
    check_target,
)

_PROXY = b"/api/v1/namespaces/d/services/s/proxy"


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/api/v1/pods?limit=500&continue=a%2Fb",
        b"/api/v1/namespaces/d/pods/",
        b"/api/v1/pods?labelSelector=a+in+(b,c)",
        b"/api/v1/pods?x=../..&y=a//b&z=%zz&w=%2e%2e",
        b"/.well-known/openid-configuration",
        b"/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        b"/api/v1/namespaces/d/pods/a..b",
        b"/api/v1/namespaces/d/pods/...",
        b"/api/v1/namespaces/d/configmaps/%C3%A9",
        _PROXY + b"//static//x.js",
        _PROXY + b"/a%2Fb?next=//c",
        _PROXY + b"/a%5Cb",
        b"/api/v1/nodes/n/proxy//logs//",
        b"/api/v1/namespaces/d/pods/p/proxy/%2F",
        b"/" + b"a" * (MAXIMUM_TARGET_BYTES - 1),
        b"/x?" + b"&".join([b"a=b"] * MAXIMUM_QUERY_PAIRS),
    ],
)
def test_target_that_every_parser_reads_alike_is_accepted(target: bytes) -> None:
    check_target(target)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"*", id="asterisk"),
        pytest.param(b"http://evil/", id="absolute form"),
        pytest.param(b"evil:443", id="authority form"),
        pytest.param(b"//evil/x", id="looks like an authority"),
        pytest.param(b"//", id="two slashes"),
        pytest.param(b"/a/../b", id="RT-20"),
        pytest.param(b"/a/..", id="RT-20 at the end"),
        pytest.param(b"/./a", id="single dot"),
        pytest.param(b"/..", id="dots alone"),
        pytest.param(b"/a/..?x=y", id="before the query"),
        pytest.param(b"/a/%2e%2e/b", id="RT-21"),
        pytest.param(b"/a/.%2E/b", id="RT-21 half"),
        pytest.param(b"/a/%2e", id="RT-21 single"),
        pytest.param(b"/a/%252e%252e/b", id="RT-22"),
        pytest.param(b"/a/%25252e%25252e/b", id="RT-22 thrice"),
        pytest.param(b"/a%2fb", id="RT-23"),
        pytest.param(b"/a/..%2fb", id="RT-23 with dots"),
        pytest.param(b"/a%5cb", id="RT-24 encoded"),
        pytest.param(b"/a\\b", id="RT-24 raw"),
        pytest.param(b"/a%00", id="RT-25"),
        pytest.param(b"/a\0", id="RT-25 raw"),
        pytest.param(b"/a%0d%0ab", id="RT-26"),
        pytest.param(b"/a\r\nHost: evil", id="RT-26 raw"),
        pytest.param(b"/a?x=\r\nHost:%20evil", id="RT-26 in the query"),
        pytest.param(b"/a b", id="space"),
        pytest.param(b"/a\tb", id="tab"),
        pytest.param(b"/a\x7f", id="delete"),
        pytest.param(b"/a#f", id="fragment"),
        pytest.param(b"/a//b", id="RT-27"),
        pytest.param(b"/a%zz", id="bad escape"),
        pytest.param(b"/a%2", id="cut escape"),
        pytest.param(b"/" + b"a" * MAXIMUM_TARGET_BYTES, id="RT-29"),
        pytest.param(b"/x?" + b"&".join([b"a=b"] * (MAXIMUM_QUERY_PAIRS + 1)), id="too many parameters"),
        pytest.param(_PROXY + b"/../../../secrets/x", id="dots behind proxy"),
        pytest.param(_PROXY + b"/%2e%2e/x", id="encoded dots behind proxy"),
        pytest.param(_PROXY + b"/x%2f..%2f..%2fsecrets", id="dots between encoded separators"),
        pytest.param(_PROXY + b"/x%252f%252e%252e%252fy", id="dots between doubly encoded separators"),
        pytest.param(_PROXY + b"/x%5c..%5cy", id="dots between encoded backslashes"),
        pytest.param(_PROXY + b"/%0a", id="line break behind proxy"),
        pytest.param(_PROXY + b"/%00", id="NUL behind proxy"),
        pytest.param(b"/api/v1/namespaces/proxy//secrets/x", id="a namespace called proxy"),
        pytest.param(b"/api/v1/namespaces/proxy/pods/a%2Fexec", id="encoded separator below a namespace called proxy"),
        pytest.param(b"/api/v1/namespaces/d/configmaps/c/proxy//x", id="proxy of what has none"),
        pytest.param(b"/api/v1/namespaces/pods/x/proxy//y", id="proxy as a name"),
        pytest.param(b"/apis/g/v1/nodes/n/proxy//x", id="nodes of another group"),
    ],
)
def test_target_that_could_be_read_two_ways_is_refused(target: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="is refused"):
        check_target(target)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from(
            [b"/", b".", b"%2e", b"%25", b"%2f", b"\\", b"%", b"proxy", b"api", b"v1", b"nodes", b"n", b"?", b"&", b"a"]
        ),
        max_size=24,
    ).map(b"".join)
)
def test_check_decides_on_any_bytes(target: bytes) -> None:
    try:
        check_target(target)
    except InvalidRequestError:
        return
    assert target.startswith(b"/")
    assert not set(target) & set(b" \r\n\0#\\")
    path = target.partition(b"?")[0]
    assert b".." not in path.split(b"/")
