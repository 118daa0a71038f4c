"""As whom a cluster sees a caller, and how it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_gateway_core.errors import AccessDeniedError, InternalError
from cluster_gateway_core.model.identity import (
    External,
    IdentityRule,
    IdentitySource,
    PassThrough,
    Pattern,
    Privileged,
    StaticMapping,
)
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.routing.header_policy import forwarded_headers
from cluster_gateway_core.routing.identity_exchange import (
    asks_impersonation,
    check_nothing_left,
    escape_extra_key,
    exchange_identity,
    find_rule,
    render_impersonation,
)
from cluster_gateway_core.routing.impersonation import parse_impersonation

if TYPE_CHECKING:
    from cluster_gateway_core.model.identity import Exchange

_ALICE = UserInfo(username="alice", uid="7", groups=("dev", "ops"), extra=(("scopes", ("a", "b")),))
_ANYBODY = IdentitySource(user_pattern=Pattern(".*"))


def rule(exchange: Exchange, source: IdentitySource = _ANYBODY, name: str = "r") -> IdentityRule:
    return IdentityRule(name=name, source=source, exchange=exchange)


@pytest.mark.parametrize(
    ("source", "applies"),
    [
        (IdentitySource(user="alice"), True),
        (IdentitySource(user="alic"), False),
        (IdentitySource(group="ops"), True),
        (IdentitySource(group="op"), False),
        (IdentitySource(uid="7"), True),
        (IdentitySource(uid="8"), False),
        (IdentitySource(cluster="c1"), True),
        (IdentitySource(cluster="c"), False),
        (IdentitySource(user_pattern=Pattern("al.*")), True),
        (IdentitySource(user_pattern=Pattern("lic")), False),
        (IdentitySource(group_pattern=Pattern("o..")), True),
        (IdentitySource(group_pattern=Pattern("o.")), False),
        (IdentitySource(cluster_pattern=Pattern("c[0-9]")), True),
        (IdentitySource(cluster_pattern=Pattern("[0-9]")), False),
        (IdentitySource(user="alice", group="ops", uid="7", cluster="c1"), True),
        (IdentitySource(user="alice", group="ops", uid="7", cluster="c2"), False),
        (IdentitySource(user="alice", group_pattern=Pattern("none")), False),
    ],
)
def test_a_rule_applies_when_all_that_it_says_is_so(source: IdentitySource, applies: bool) -> None:  # noqa: FBT001
    assert (find_rule(_ALICE, "c1", [rule(Privileged(), source)]) is not None) is applies


def test_the_first_rule_counts_and_the_cluster_s_own_come_first() -> None:
    own, general = rule(Privileged(), name="own"), rule(PassThrough(), name="general")
    other = rule(Privileged(), IdentitySource(user="bob"), name="other")
    assert find_rule(_ALICE, "c1", [other, own], [general]) is own
    assert find_rule(_ALICE, "c1", [other], [general, own]) is general
    assert find_rule(_ALICE, "c1", [other], []) is None


def test_by_default_a_cluster_sees_the_caller() -> None:
    assert exchange_identity(_ALICE, None) == _ALICE


def test_a_mapping_is_exactly_its_target() -> None:
    target = StaticMapping(user="bob", groups=("system:masters",), uid="1")
    expected = UserInfo(username="bob", uid="1", groups=("system:masters",))
    assert exchange_identity(_ALICE, rule(target)) == expected


def test_only_a_rule_that_says_so_shows_the_gateway_itself() -> None:
    assert exchange_identity(_ALICE, rule(Privileged())) == Privileged()
    for other in (None, rule(PassThrough()), rule(StaticMapping(user="b")), rule(External(url="https://a"))):
        assert exchange_identity(_ALICE, other) != Privileged()


@pytest.mark.parametrize(
    "group",
    [
        "system:masters",
        "system:nodes",
        "system:kube-scheduler",
        "system:kube-anything",
        "system:serviceaccounts",
        "system:serviceaccounts:kube-system",
        "system:bootstrappers",
        "system:authenticated",
        "system:unauthenticated",
        "kubeadm:cluster-admins",
    ],
)
def test_groups_that_mean_something_else_in_a_cluster_are_not_passed(group: str) -> None:
    """IO-7 for those that the cluster adds itself; kcp GHSA-c7xh-gjv4-4jgv for the others."""
    user = UserInfo(username="alice", groups=("dev", group))
    assert exchange_identity(user, None) == UserInfo(username="alice", groups=("dev",))
    named = rule(PassThrough(privileged_groups=frozenset({group})))
    assert exchange_identity(user, named) == user
    unnamed = rule(PassThrough(privileged_groups=frozenset({"system:other"})))
    assert exchange_identity(user, unnamed) == UserInfo(username="alice", groups=("dev",))


def test_a_service_account_of_the_hub_is_in_no_group_of_a_cluster_s_accounts() -> None:
    """Were no group sent, the cluster would add them: so one is sent that says nothing."""
    account = UserInfo(
        username="system:serviceaccount:ns:builder",
        groups=("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"),
    )
    told = exchange_identity(account, None)
    assert told == UserInfo(username=account.username, groups=("system:authenticated",))
    by_rule = exchange_identity(account, rule(PassThrough(privileged_groups=frozenset({"system:serviceaccounts:ns"}))))
    assert isinstance(by_rule, UserInfo)
    assert by_rule.groups == ("system:serviceaccounts:ns",)


@pytest.mark.parametrize("name", ["system:kube-scheduler", "system:node:n1", "system:admin", "system:masters"])
def test_a_user_whose_name_kubernetes_reserves_is_refused_unless_a_rule_speaks(name: str) -> None:
    user = UserInfo(username=name)
    with pytest.raises(AccessDeniedError, match=f'user "{name}" has a name that Kubernetes reserves'):
        exchange_identity(user, None)
    assert exchange_identity(user, rule(PassThrough())) == user
    assert exchange_identity(user, rule(StaticMapping(user="b"))) == UserInfo(username="b")


def test_nobody_is_nobody_there_too() -> None:
    nobody = UserInfo(username="system:anonymous", groups=("system:unauthenticated",))
    assert exchange_identity(nobody, None) == UserInfo(username="system:anonymous")


def test_what_describes_the_credential_at_the_hub_is_not_told() -> None:
    extra = (
        ("authentication.kubernetes.io/credential-id", ("JTI=1",)),
        ("authentication.kubernetes.io/node-name", ("node1",)),
        ("example.com/scopes", ("a",)),
    )
    told = exchange_identity(UserInfo(username="alice", extra=extra), None)
    assert told == UserInfo(username="alice", extra=(("example.com/scopes", ("a",)),))


@pytest.mark.parametrize("key", ["kubernetes.io/x", "node.kubernetes.io/x", "k8s.io/x", "scopes.authorization.k8s.io/"])
def test_an_extra_whose_key_kubernetes_reserves_is_refused(key: str) -> None:
    """IO-6."""
    for applying in (None, rule(PassThrough())):
        with pytest.raises(AccessDeniedError, match="reserves"):
            exchange_identity(UserInfo(username="alice", extra=((key, ("x",)),)), applying)


def test_an_identity_is_told_whole_and_in_order() -> None:
    """IO-1."""
    user = UserInfo(username="\u00e9va", uid="7", groups=("b", "a"), extra=(("k", ("2", "1")), ("m", ("",))))
    assert render_impersonation(user) == (
        b"Impersonate-User: \xc3\xa9va\r\n"
        b"Impersonate-Uid: 7\r\n"
        b"Impersonate-Group: b\r\nImpersonate-Group: a\r\n"
        b"Impersonate-Extra-k: 2\r\nImpersonate-Extra-k: 1\r\nImpersonate-Extra-m: \r\n"
    )
    assert render_impersonation(UserInfo(username="a")) == b"Impersonate-User: a\r\n"


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        ("alpha", b"alpha"),
        ("alpha9numeric", b"alpha9numeric"),
        ("percent%20encoded", b"percent%2520encoded"),
        ("almost%zzpercent%xxencoded", b"almost%25zzpercent%25xxencoded"),
        ("a/b%20c", b"a%2Fb%2520c"),
        ("example.com/escaped\u16c4scopes", b"example.com%2Fescaped%E1%9B%84scopes"),
        ("!#$&'*+-.^_`|~", b"!#$&'*+-.^_`|~"),
        ("@=:", b"%40%3D%3A"),
    ],
)
def test_extra_keys_are_escaped_as_client_go_does_it(key: str, escaped: bytes) -> None:
    """IO-2."""
    assert escape_extra_key(key) == escaped
    assert unquote(escaped.decode("ascii")) == key


_TELLABLE = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: text == text.strip(" ")
)
_KEYS = _TELLABLE.filter(lambda text: not any(letter.isascii() and letter.isupper() for letter in text))


@given(
    st.builds(
        UserInfo,
        username=_TELLABLE.filter(lambda name: not name.startswith("system:")),
        uid=_TELLABLE | st.just(""),
        groups=st.lists(_TELLABLE.filter(lambda name: not name.startswith("system:")), max_size=3).map(tuple),
        extra=st.dictionaries(_KEYS, st.lists(_TELLABLE, min_size=1, max_size=2).map(tuple), max_size=3).map(
            lambda extra: tuple(sorted(extra.items()))
        ),
    )
)
def test_what_is_told_is_read_back_by_kube_apiserver_s_rules(user: UserInfo) -> None:
    """IO-2: by the reader of our own callers' headers, which the rules of both are."""
    lines = render_impersonation(user).split(b"\r\n")[:-1]
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    read = parse_impersonation(headers).user
    groups = read.groups[:-1] if read.groups[-1] == "system:authenticated" else read.groups
    assert (read.username, read.uid, groups, read.extra) == (user.username, user.uid, user.groups, user.extra)


@pytest.mark.parametrize(
    "user",
    [
        UserInfo(username="a\r\nImpersonate-Group: system:masters"),
        UserInfo(username=" a"),
        UserInfo(username="a "),
        UserInfo(username="a\x7f"),
        UserInfo(username="a\ud800"),
        UserInfo(username="a", uid="1\n"),
        UserInfo(username="a", uid=" "),
        UserInfo(username="a", groups=("g\t",)),
        UserInfo(username="a", groups=("",)),
        UserInfo(username="a", extra=(("Scopes", ("x",)),)),
        UserInfo(username="a", extra=(("", ("x",)),)),
        UserInfo(username="a", extra=(("a\nb", ("x",)),)),
        UserInfo(username="a", extra=(("k", ("x\0",)),)),
        UserInfo(username="a", extra=(("k", ("x ",)),)),
    ],
)
def test_what_would_arrive_as_something_else_is_refused(user: UserInfo) -> None:
    """IO-6."""
    with pytest.raises(AccessDeniedError, match="not passed"):
        render_impersonation(user)


def test_nobody_at_all_is_never_told() -> None:
    """IO-5: a missing user would be the gateway's own credential."""
    with pytest.raises(InternalError):
        render_impersonation(UserInfo(username="", groups=("dev",)))


@pytest.mark.parametrize(
    "name",
    [
        b"Impersonate-User",
        b"impersonate-group",
        b"Impersonate-Extra-x",
        b"Impersonate-Foo",
        b"Impersonate_User",
        b"Authorization",
        b"AUTHORIZATION",
    ],
)
def test_an_identity_never_travels_with_one_of_the_caller_s(name: bytes) -> None:
    """IO-3, IO-4, IO-5."""
    with pytest.raises(InternalError):
        check_nothing_left([(b"Accept", b"x"), (name, b"x")])
    taken: list[tuple[bytes, bytes]] = []
    check_nothing_left(forwarded_headers([(b"Accept", b"x"), (name, b"x")], taken))


@pytest.mark.parametrize(
    ("target", "asks"),
    [
        (b"/api?impersonate=true", True),
        (b"/api?a=b&impersonate=true&c=d", True),
        (b"/api?impersonate=true&impersonate=false", True),
        (b"/api?impersonate=false&impersonate=true", False),
        (b"/api?impersonate=TRUE", False),
        (b"/api?impersonate=", False),
        (b"/api?impersonate", False),
        (b"/api?xximpersonate=true", False),
        (b"/impersonate=true", False),
        (b"/api", False),
    ],
)
def test_a_request_asks_with_exactly_true(target: bytes, asks: bool) -> None:  # noqa: FBT001
    assert asks_impersonation(target) is asks
