"""Reading identity rules: what is meant, and that nothing else is taken for a rule."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_gateway_core.model.identity import (
    MAXIMUM_PATTERN_BYTES,
    External,
    IdentityRule,
    IdentitySource,
    InvalidPatternError,
    PassThrough,
    Pattern,
    Privileged,
    StaticMapping,
)
from cluster_gateway_core.routing.identity_rules import (
    MAXIMUM_RULES,
    InvalidIdentityRulesError,
    parse_identity_rules,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# As in the original's examples/client-identity-exchanger.
_EXAMPLE = """
apiVersion: cluster.core.oam.dev/v1alpha1
kind: ClusterGatewayProxyConfiguration
spec:
  clientIdentityExchanger:
    rules:
      - name: super-user
        type: PrivilegedIdentityExchanger
        source: {group: sudoer}
      - name: mapping
        type: StaticMappingIdentityExchanger
        source: {user: user-12345, cluster: cluster-34567}
        target: {user: user-34567}
"""
_STATIC = {"type": "StaticMappingIdentityExchanger", "source": {"user": "a"}, "target": {"user": "b"}}


def parse(text: str, cluster_name: str | None = None) -> tuple[IdentityRule, ...]:
    return parse_identity_rules(text, maximum_bytes=100_000, cluster_name=cluster_name)


def parse_rules(*rules: Any, cluster_name: str | None = None) -> tuple[IdentityRule, ...]:
    return parse(json.dumps({"spec": {"clientIdentityExchanger": {"rules": rules}}}), cluster_name)


def test_the_original_s_example_means_what_it_did() -> None:
    assert parse(_EXAMPLE) == (
        IdentityRule(name="super-user", source=IdentitySource(group="sudoer"), exchange=Privileged()),
        IdentityRule(
            name="mapping",
            source=IdentitySource(user="user-12345", cluster="cluster-34567"),
            exchange=StaticMapping(user="user-34567"),
        ),
    )


def test_every_field_is_read() -> None:
    source = {
        "user": "u",
        "group": "g",
        "uid": "i",
        "cluster": "c",
        "userPattern": "u.*",
        "groupPattern": "g.*",
        "clusterPattern": "c.*",
    }
    whole = IdentitySource(
        user="u",
        group="g",
        uid="i",
        cluster="c",
        user_pattern=Pattern("u.*"),
        group_pattern=Pattern("g.*"),
        cluster_pattern=Pattern("c.*"),
    )
    target = {"user": "t", "groups": ["x", "system:masters"], "uid": "7"}
    found = parse_rules(
        _STATIC | {"source": source, "target": target, "name": "n"},
        {"type": "ExternalIdentityExchanger", "source": {"user": "u"}, "url": "https://who.example:8443/ask?k=v"},
        {"type": "PassThroughIdentityExchanger", "source": {"user": "u"}, "privilegedGroups": ["system:masters"]},
        {"type": "PassThroughIdentityExchanger", "source": {"user": "u"}},
    )
    assert [rule.exchange for rule in found] == [
        StaticMapping(user="t", groups=("x", "system:masters"), uid="7"),
        External(url="https://who.example:8443/ask?k=v"),
        PassThrough(privileged_groups=frozenset({"system:masters"})),
        PassThrough(),
    ]
    assert (found[0].name, found[0].source, found[1].name) == ("n", whole, "rules[1]")


@pytest.mark.parametrize(
    "text", ["spec: {clientIdentityExchanger: {}}", "spec: {clientIdentityExchanger: {rules: []}}"]
)
def test_no_rules_are_no_fault(text: str) -> None:
    assert parse(text) == ()


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("x", "not a mapping"),
        (None, "not a mapping"),
        ({}, "has no type"),
        (_STATIC | {"type": "static"}, "type is none of"),
        (_STATIC | {"type": 1}, "type is no text"),
        ({**_STATIC, "source": None}, "has no source"),
        (_STATIC | {"source": {}}, "says nothing"),
        (_STATIC | {"source": {"user": None}}, "says nothing"),
        (_STATIC | {"source": {"user": ""}}, "user is empty"),
        (_STATIC | {"source": {"usrPattern": "a"}}, "unknown field 'usrPattern'"),
        (_STATIC | {"source": {"uid": 7}}, "uid is no text"),
        (_STATIC | {"source": {"userPattern": "("}}, "userPattern: it is no regular expression"),
        (_STATIC | {"source": {"groupPattern": "(?=a)"}}, "groupPattern: it is no regular expression"),
        (_STATIC | {"source": {"clusterPattern": "a" * 1025}}, "clusterPattern: it is longer"),
        (_STATIC | {"source": {"userPattern": "((a{100}){100}){100}"}}, "no regular expression"),
        ({"type": "StaticMappingIdentityExchanger", "source": {"user": "a"}}, "has no target"),
        (_STATIC | {"target": {}}, "has no user"),
        (_STATIC | {"target": {"user": ""}}, "user is empty"),
        (_STATIC | {"target": {"groups": ["dev"]}}, "has no user"),
        (_STATIC | {"target": {"uid": "7"}}, "has no user"),
        (_STATIC | {"target": {"user": "b", "groups": "dev"}}, "groups is not a list"),
        (_STATIC | {"target": {"user": "b", "groups": ["dev", ""]}}, "is empty"),
        (_STATIC | {"target": {"user": "b", "groups": [7]}}, "is no text"),
        (_STATIC | {"target": {"user": "b", "groups": [None]}}, "has no 0"),
        (_STATIC | {"target": {"user": "b\r\nX: y"}}, "control character"),
        (_STATIC | {"target": {"user": "b", "extra": {}}}, "unknown field 'extra'"),
        (_STATIC | {"url": "https://a"}, "has no url"),
        ({"type": "PrivilegedIdentityExchanger", "source": {"user": "a"}, "target": {"user": "b"}}, "has no target"),
        ({"type": "ExternalIdentityExchanger", "source": {"user": "a"}}, "has no url"),
        (_STATIC | {"nmae": "x"}, "unknown field"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_a_fault(rule: Any, fault: str) -> None:
    with pytest.raises(InvalidIdentityRulesError, match=fault):
        parse_rules(_STATIC, rule)


@pytest.mark.parametrize(
    "url",
    [
        "http://who.example",
        "https://",
        "https://:8443/",
        "https://a@who.example/",
        "https://a:b@who.example/",
        "https://who.example/#x",
        "https://who.example:0/",
        "https://who.example:x/",
        "https://who.example/a b",
        "https://who\u00e9.example/",
        "https://who.example\\@evil/",
        "ftp://who.example/",
        "who.example",
    ],
)
def test_only_a_plain_https_url_is_asked(url: str) -> None:
    with pytest.raises(InvalidIdentityRulesError, match="url"):
        parse_rules({"type": "ExternalIdentityExchanger", "source": {"user": "a"}, "url": url})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the configuration is not a mapping"),
        ("x", "the configuration is not a mapping"),
        ("{}", "has no spec"),
        ("spec: {}", "has no clientIdentityExchanger"),
        ("spec: []", "spec is not a mapping"),
        ("spec: {clientIdentityExchanger: {rules: x}}", "rules is not a list"),
        ("spec: {clientIdentityExchanger: {rules: ''}}", "rules is not a list"),
        ("spec: {clientIdentityExchanger: {rules: [], more: 1}}", "unknown field"),
        (f"kind: Secret\n{_EXAMPLE}", "given twice"),
        (_EXAMPLE.replace("kind: Cluster", "kind: Other"), "kind is not"),
        (_EXAMPLE.replace("v1alpha1", "v2"), "apiVersion is not"),
        (_EXAMPLE + "x" * 100_000, "longer"),
        ("spec: &a {clientIdentityExchanger: *a}", "alias"),
    ],
)
def test_a_configuration_that_is_none_is_a_fault(text: str, fault: str) -> None:
    with pytest.raises(InvalidIdentityRulesError, match=fault):
        parse(text)


def test_the_number_of_rules_is_bounded() -> None:
    assert len(parse_rules(*[_STATIC] * (MAXIMUM_RULES // 10))) == MAXIMUM_RULES // 10
    with pytest.raises(InvalidIdentityRulesError, match="more than"):
        parse_identity_rules(
            json.dumps({"spec": {"clientIdentityExchanger": {"rules": [{}] * (MAXIMUM_RULES + 1)}}}),
            maximum_bytes=100_000,
        )


@pytest.mark.parametrize(
    ("source", "applies"),
    [
        ({"user": "a"}, True),
        ({"cluster": "own"}, True),
        ({"clusterPattern": "o.*"}, True),
        ({"cluster": "other"}, False),
        ({"user": "a", "cluster": "other"}, False),
        ({"clusterPattern": "w"}, False),
    ],
)
def test_a_rule_of_an_annotation_that_can_never_apply_is_a_fault(source: dict[str, str], applies: bool) -> None:  # noqa: FBT001
    if applies:
        assert len(parse_rules(_STATIC | {"source": source}, cluster_name="own")) == 1
        return
    with pytest.raises(InvalidIdentityRulesError, match="another cluster"):
        parse_rules(_STATIC | {"source": source}, cluster_name="own")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("ext-.*", "ext-1", True),
        ("ext-.*", "an ext-1", False),
        ("dev", "developer", False),
        ("dev|ops", "ops", True),
        ("a|ab", "ab", True),
        ("^dev$", "dev", True),
        ("dev", "dev\n", False),
        (".*", "a\nb", False),
        ("(?s).*", "a\nb", True),
        ("(?i)DEV", "dev", True),
        ("\u00e9.", "\u00e9\u00fc", True),
        ("", "", True),
        (".*", "\ud800", False),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, name: str, matches: bool) -> None:  # noqa: FBT001
    assert Pattern(pattern).matches(name) is matches


def test_patterns_are_compared_and_shown_by_their_text() -> None:
    assert Pattern("a+") == Pattern("a+") != Pattern("a")
    assert hash(Pattern("a+")) == hash(Pattern("a+"))
    assert repr(Pattern("a+")) == "Pattern(text='a+')"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(?:a?){64}a{64}"])
def test_no_pattern_can_stall_on_a_name(pattern: str) -> None:
    """A backtracking engine would take longer than the universe is old; the suite's limit is the bound."""
    compiled = Pattern(pattern)
    for _ in range(100):
        assert not compiled.matches("a" * 20_000 + "!")


@given(st.text(max_size=40) | st.text("()[]{}|*+?.\\^$a1,-:P<>=!", max_size=40))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    try:
        compiled = Pattern(text)
    except InvalidPatternError:
        return
    assert compiled.matches("some-name") in (True, False)
    assert len(text.encode()) <= MAXIMUM_PATTERN_BYTES


_TEXT = st.sampled_from(["", "a", "system:masters", "https://a.example", "http://a", "(", "a.*", "\n"])
_LEAF: st.SearchStrategy[Any] = _TEXT | st.none() | st.integers() | st.booleans()
_KEYS = ("user", "groups", "uid", "group", "cluster", "userPattern", "groupPattern", "clusterPattern", "x")
_FIELDS: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(_KEYS), _LEAF | st.lists(_LEAF, max_size=2), max_size=3
)
_TYPES = [
    "PrivilegedIdentityExchanger",
    "StaticMappingIdentityExchanger",
    "ExternalIdentityExchanger",
    "PassThroughIdentityExchanger",
    "Other",
]
_RULE = st.fixed_dictionaries(
    {},
    optional={
        "name": _LEAF,
        "type": st.sampled_from(_TYPES),
        "source": _FIELDS | _LEAF,
        "target": _FIELDS | _LEAF,
        "url": _LEAF,
        "privilegedGroups": st.lists(_LEAF, max_size=2) | _LEAF,
        "y": _LEAF,
    },
)


@given(st.lists(_RULE | _LEAF, max_size=3))
def test_whatever_is_written_no_rule_is_wider_than_what_it_says(rules: Sequence[Any]) -> None:
    """All rules are read, or none is; each that is read says whom it is for and whom the cluster is to see."""
    try:
        found = parse_rules(*rules)
    except InvalidIdentityRulesError:
        return
    assert len(found) == len(rules)
    for rule, written in zip(found, rules, strict=True):
        given_conditions = {key for key, value in written["source"].items() if value is not None}
        assert given_conditions
        source = rule.source
        conditions = (source.user, source.group, source.uid, source.cluster)
        patterns = (source.user_pattern, source.group_pattern, source.cluster_pattern)
        assert len([one for one in (*conditions, *patterns) if one is not None]) == len(given_conditions)
        match rule.exchange:
            case StaticMapping(user=user):
                assert user == written["target"]["user"] != ""
            case External(url=url):
                assert url.startswith("https://")
            case Privileged() | PassThrough():
                assert written["type"] in {"PrivilegedIdentityExchanger", "PassThroughIdentityExchanger"}


@given(st.text(max_size=80) | st.text("{}[]&*!:-, \nspecrulyt'\"", max_size=80))
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidIdentityRulesError):
        parse(text)
