"""What `Impersonate-*` headers ask for, as kube-apiserver reads them (impersonation_test)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_gateway_core.errors import InvalidRequestError
from cluster_gateway_core.routing.impersonation import MAXIMUM_PIECES, parse_impersonation

_USER = (b"Impersonate-User", b"tony")


def asked(*headers: tuple[bytes, bytes]) -> list[tuple[str, str, str, str, str]]:
    """Reviews as group, resource, subresource, namespace and name."""
    return [
        (one.group, one.resource, one.subresource, one.namespace, one.name)
        for one in parse_impersonation(headers).required
    ]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Impersonate-Group", b"some-group")],
        [(b"Impersonate-Extra-scopes", b"scope-a")],
        [(b"Impersonate-Uid", b"some-uid")],
    ],
    ids=["IM-3 group", "IM-3 extra", "IM-3 uid"],
)
def test_pieces_without_a_user_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidRequestError, match="no user"):
        parse_impersonation(headers)


@pytest.mark.parametrize(
    ("username", "groups", "expected"),
    [
        ("tony", [], ["system:authenticated"]),
        ("tony", ["some-group"], ["some-group", "system:authenticated"]),
        (
            "system:serviceaccount:foo:default",
            [],
            ["system:serviceaccounts", "system:serviceaccounts:foo", "system:authenticated"],
        ),
        ("system:serviceaccount:foo:default", ["dev"], ["dev", "system:authenticated"]),
        ("system:serviceaccount:foo", [], ["system:authenticated"]),
        ("system:serviceaccount:Foo:default", [], ["system:authenticated"]),
        ("system:anonymous", [], ["system:unauthenticated"]),
        ("system:anonymous", ["system:unauthenticated"], ["system:unauthenticated"]),
        ("system:anonymous", ["system:authenticated"], ["system:authenticated", "system:unauthenticated"]),
        ("tony", ["system:authenticated"], ["system:authenticated"]),
        ("tony", ["system:unauthenticated"], ["system:unauthenticated"]),
        ("tony", ["dev", "system:authenticated"], ["dev", "system:authenticated"]),
    ],
    ids=[
        "IM-5 a user alone is authenticated",
        "IM-6 a group replaces nothing but joins",
        "IM-10 an account's groups follow from its name",
        "listed groups of an account are all of them",
        "no account without a name",
        "no account in a namespace that cannot be",
        "IM-11 anonymous",
        "IM-11 anonymous, said twice",
        "anonymous stays unauthenticated",
        "IM-12 authenticated",
        "IM-12 unauthenticated",
        "IM-12 among others",
    ],
)
def test_groups_follow_from_the_name_unless_they_are_listed(
    username: str, groups: list[str], expected: list[str]
) -> None:
    headers = [(b"Impersonate-User", username.encode())]
    headers += [(b"impersonate-GROUP", group.encode()) for group in groups]
    user = parse_impersonation(headers).user
    assert (user.username, list(user.groups)) == (username, expected)


def test_values_of_an_extra_stay_in_order() -> None:
    """IM-7."""
    headers = [_USER, (b"Impersonate-Extra-scopes", b"scope-b"), (b"impersonate-extra-SCOPES", b"scope-a")]
    assert parse_impersonation(headers).user.extra == (("scopes", ("scope-b", "scope-a")),)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"Impersonate-Extra-example.com%2fescaped%e1%9b%84scopes", "example.com/escaped\u16c4scopes"),
        (b"Impersonate-Extra-example.com%2Fescaped%E1%9B%84scopes", "example.com/escaped\u16c4scopes"),
        (b"Impersonate-Extra-almost%zzpercent%xxencoded", "almost%zzpercent%xxencoded"),
        (b"Impersonate-Extra-Alpha", "alpha"),
        (b"Impersonate-Extra-twice%2525", "twice%25"),
        (b"Impersonate-Extra-end%", "end%"),
    ],
)
def test_extra_keys_are_unescaped_once_or_not_at_all(name: bytes, key: str) -> None:
    """IM-8."""
    assert parse_impersonation([_USER, (name, b"v")]).user.extra == ((key, ("v",)),)


def test_each_value_is_reviewed_as_the_resource_that_stands_for_it() -> None:
    """IM-13."""
    assert asked(
        (b"Impersonate-Extra-scopes", b"a"),
        (b"Impersonate-Uid", b"4711"),
        (b"Impersonate-Group", b"dev"),
        (b"Impersonate-Extra-scopes", b"b"),
        (b"Impersonate-Group", b"ops"),
        _USER,
    ) == [
        ("", "users", "", "", "tony"),
        ("", "groups", "", "", "dev"),
        ("", "groups", "", "", "ops"),
        ("authentication.k8s.io", "userextras", "scopes", "", "a"),
        ("authentication.k8s.io", "userextras", "scopes", "", "b"),
        ("authentication.k8s.io", "uids", "", "", "4711"),
    ]


def test_groups_that_follow_from_a_name_are_not_reviewed() -> None:
    assert asked((b"Impersonate-User", b"system:serviceaccount:foo:default")) == [
        ("", "serviceaccounts", "", "foo", "default")
    ]


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ([_USER, (b"impersonate-user", b"admin")], "two"),
        ([_USER, (b"Impersonate-Uid", b"1"), (b"Impersonate-Uid", b"2")], "two"),
        ([(b"Impersonate-User", b"")], "empty"),
        ([_USER, (b"Impersonate-Group", b"")], "empty"),
        ([_USER, (b"Impersonate-Uid", b"")], "empty"),
        ([_USER, (b"Impersonate-Extra-scopes", b"")], "empty"),
        ([_USER, (b"Impersonate-Extra-", b"x")], "empty"),
        ([_USER, (b"Impersonate-Foo", b"x")], "not known"),
        ([_USER, (b"Impersonate-", b"x")], "not known"),
        ([(b"Impersonate_User", b"tony")], "not known"),
        ([_USER, (b"Impersonate-Groups", b"x")], "not known"),
        ([_USER, (b"Impersonate-Extra-\xe9", b"x")], "not known"),
        ([(b"Impersonate-User", b"tony\r\nX: y")], "control"),
        ([(b"Impersonate-User", b"tony\x7f")], "control"),
        ([_USER, (b"Impersonate-Extra-a%0ab", b"x")], "control"),
        ([_USER, (b"Impersonate-Extra-a\nb%zz", b"x")], "control"),
        ([_USER, (b"Impersonate-Extra-a%ff", b"x")], "UTF-8"),
        ([_USER, (b"Impersonate-Group", b"\xff")], "UTF-8"),
        ([_USER, *[(b"Impersonate-Group", b"g%d" % n) for n in range(2000)]], "more than"),
    ],
)
def test_headers_that_could_be_read_in_two_ways_are_refused(headers: list[tuple[bytes, bytes]], fault: str) -> None:
    """IM-15."""
    with pytest.raises(InvalidRequestError, match=fault):
        parse_impersonation(headers)


_NAMES = st.one_of(
    st.sampled_from([b"Impersonate-User", b"Impersonate-Group", b"Impersonate-Uid", b"impersonate-extra-"]),
    st.binary(max_size=12).map(lambda rest: b"Impersonate-Extra-" + rest),
    st.binary(max_size=12).map(lambda rest: b"Impersonate-" + rest),
)


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=8)), min_size=1, max_size=8))
def test_whatever_comes_is_refused_or_reviewed_whole(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        found = parse_impersonation(headers)
    except InvalidRequestError:
        return
    assert len(found.required) == len(headers) <= MAXIMUM_PIECES
    reviewed = {(one.resource, one.name) for one in found.required}
    extra = {("userextras", value) for _, values in found.user.extra for value in values}
    assert extra <= reviewed
