"""Identity headers as kube-apiserver reads them (RH-2 to RH-15)."""

from __future__ import annotations

import pytest

from cluster_gateway_facade.authn.anchors import read_trust_anchors
from cluster_gateway_facade.authn.front_proxy import read_front_proxy_user
from clustergateway.access.v1.access_service_pb2 import FrontProxyTrust, WatchTrustResponse
from clustergateway.access.v1.user_info_pb2 import ExtraValues, UserInfo

Headers = list[tuple[str, str]]
USER = ("X-Remote-User", "bob")


def read(headers: Headers, **changes: list[str]) -> UserInfo | None:
    usual = {
        "username_headers": ["X-Remote-User"],
        "uid_headers": ["X-Remote-Uid"],
        "group_headers": ["X-Remote-Group"],
        "extra_header_prefixes": ["X-Remote-Extra-"],
    }
    anchors = read_trust_anchors(WatchTrustResponse(front_proxy=FrontProxyTrust(**usual | changes)))
    assert anchors.front_proxy is not None
    raw = [(name.encode("latin-1"), value.encode()) for name, value in headers]
    return read_front_proxy_user(raw, anchors.front_proxy)


def user(name: str, *, uid: str = "", groups: tuple[str, ...] = (), **extra: list[str]) -> UserInfo:
    return UserInfo(
        username=name,
        uid=uid,
        groups=groups,
        extra={key: ExtraValues(values=values) for key, values in extra.items()},
    )


TWO_NAMES = {"username_headers": ["X-First", "X-Second"]}
CASES: list[tuple[str, Headers, dict[str, list[str]], UserInfo | None]] = [
    ("RH-1", [USER], {"username_headers": []}, None),
    ("RH-2", [("Accept", "*/*")], {}, None),
    ("RH-2-empty", [("X-Remote-User", "")], {}, None),
    ("RH-3", [USER], {}, user("bob")),
    ("RH-4", [("Prefixed-X-Remote-User", "a"), ("X-Remote-User-With-Suffix", "b")], {}, None),
    ("RH-4-underscore", [("X_Remote_User", "a")], {}, None),
    ("RH-5", [("X-Second", "two"), ("X-First", "one")], TWO_NAMES, user("one")),
    ("RH-6", [("X-First", ""), ("X-Second", "two")], TWO_NAMES, user("two")),
    ("RH-6-first-value", [("X-First", ""), ("X-First", "late"), ("X-Second", "two")], TWO_NAMES, user("two")),
    ("RH-6-duplicate", [USER, ("X-Remote-User", "root")], {}, user("bob")),
    ("RH-7", [("X-ReMoTe-UsEr", "bob")], {"username_headers": ["x-REMOTE-user"]}, user("bob")),
    (
        "RH-8",
        [USER, ("X-B", "b1"), ("X-A", "a1"), ("X-A", ""), ("X-B", "b2"), ("x-a", "a2")],
        {"group_headers": ["X-A", "X-B"]},
        user("bob", groups=("a1", "a2", "b1", "b2")),
    ),
    ("RH-9-none", [USER, ("X-Remote-Uid-2", "u")], {}, user("bob")),
    (
        "RH-9",
        [USER, ("X-Uid-B", "b"), ("X-Uid-A", "a")],
        {"uid_headers": ["X-Uid-A", "X-Uid-B"]},
        user("bob", uid="a"),
    ),
    (
        "RH-10",
        [USER, ("X-P2-Scope", "2"), ("x-p1-SCOPE", "1"), ("X-P1-Scope", "1b"), ("X-P1-", "empty")],
        {"extra_header_prefixes": ["X-P1-", "X-P2-"]},
        user("bob", **{"scope": ["1", "1b", "2"], "": ["empty"]}),
    ),
    ("RH-11-once", [USER, ("X-Remote-Extra-a%2520b", "x")], {}, user("bob", **{"a%20b": ["x"]})),
    ("RH-11-malformed", [USER, ("X-Remote-Extra-al%2Dmost%zz", "x")], {}, user("bob", **{"al%2dmost%zz": ["x"]})),
    ("RH-11-cut", [USER, ("X-Remote-Extra-a%2", "x")], {}, user("bob", **{"a%2": ["x"]})),
    ("RH-11-utf-8", [USER, ("X-Remote-Extra-%e1%9b%84%C3%84", "x")], {}, user("bob", ᛄÄ=["x"])),
    ("RH-11-token", [USER, ("X-Remote-Extra-!#$&'*+-.^_`|~", "x")], {}, user("bob", **{"!#$&'*+-.^_`|~": ["x"]})),
    ("RH-11-slash", [USER, ("X-Remote-Extra-k8s.io%2fpod", "x")], {}, user("bob", **{"k8s.io/pod": ["x"]})),
    ("RH-14", [USER], {"username_headers": ["X-Custom-User"]}, None),
]


@pytest.mark.parametrize(
    ("headers", "changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_user_is_read_as_kube_apiserver_does(
    headers: Headers, changes: dict[str, list[str]], expected: UserInfo | None
) -> None:
    assert read(headers, **changes) == expected


def test_bytes_that_are_no_utf_8_do_not_fail_the_request() -> None:
    anchors = read_trust_anchors(WatchTrustResponse(front_proxy=FrontProxyTrust(username_headers=["U"])))
    assert anchors.front_proxy is not None
    named = read_front_proxy_user([(b"U", b"b\xffb")], anchors.front_proxy)
    assert named is not None
    assert named.username == "b\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    "message",
    [
        WatchTrustResponse(client_ca_pem=b"junk"),
        WatchTrustResponse(front_proxy=FrontProxyTrust(ca_pem=b"junk")),
        WatchTrustResponse(front_proxy=FrontProxyTrust(username_headers=["Ü"])),
    ],
    ids=["client-ca", "front-proxy-ca", "header-name"],
)
def test_anchors_that_cannot_be_read_are_refused_whole_rh_20(message: WatchTrustResponse) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_trust_anchors(message)
