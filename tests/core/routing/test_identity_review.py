"""The contract with services that say whom a cluster is to see."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.routing.identity_review import (
    InvalidIdentityReviewError,
    parse_identity_review,
    render_identity_review,
)

_ALICE = UserInfo(username="alice", uid="7", groups=("dev",), extra=(("k", ("v", "w")),))


def answer(status: Any, **changes: Any) -> bytes:
    whole = {"apiVersion": "cluster.core.oam.dev/v1alpha1", "kind": "ClientIdentityReview", "status": status}
    return json.dumps(whole | changes).encode()


def allowed(**user: Any) -> bytes:
    return answer({"allowed": True, "user": user})


def test_the_question_says_who_for_which_cluster_by_which_rule() -> None:
    assert json.loads(render_identity_review(_ALICE, rule_name="ext", cluster_name="c1")) == {
        "apiVersion": "cluster.core.oam.dev/v1alpha1",
        "kind": "ClientIdentityReview",
        "spec": {
            "cluster": "c1",
            "rule": "ext",
            "user": {"username": "alice", "uid": "7", "groups": ["dev"], "extra": {"k": ["v", "w"]}},
        },
    }


def test_an_answer_names_a_user() -> None:
    assert parse_identity_review(allowed(username="bob")) == UserInfo(username="bob")
    whole = allowed(username="bob", uid="1", groups=["x", "system:masters"], extra={"b": ["1"], "a": []})
    assert parse_identity_review(whole) == UserInfo(
        username="bob", uid="1", groups=("x", "system:masters"), extra=(("a", ()), ("b", ("1",)))
    )


def test_an_answer_may_say_no() -> None:
    assert parse_identity_review(answer({"allowed": False})) is None
    assert parse_identity_review(answer({"allowed": False, "user": {"username": "bob"}})) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        answer({"allowed": True, "user": {"username": "b"}}, kind="TokenReview"),
        answer({"allowed": True, "user": {"username": "b"}}, apiVersion="v1"),
        answer(None),
        answer({}),
        answer({"allowed": "true", "user": {"username": "b"}}),
        answer({"allowed": 1, "user": {"username": "b"}}),
        answer({"allowed": 0}),
        answer({"allowed": None}),
        answer({"allowed": True}),
        answer({"allowed": True, "user": "b"}),
        allowed(),
        allowed(username=""),
        allowed(username=None),
        allowed(groups=["dev"]),
        allowed(username="b", uid=7),
        allowed(username="b", groups="dev"),
        allowed(username="b", groups=["dev", 7]),
        allowed(username="b", groups=[""]),
        allowed(username="b", extra=[]),
        allowed(username="b", extra={"k": "v"}),
        allowed(username="b", extra={"K": ["v"]}),
        allowed(username="b\r\nX: y"),
        allowed(username="b", usergroups=[]),
    ],
)
def test_only_an_unambiguous_answer_counts(content: bytes) -> None:
    with pytest.raises(InvalidIdentityReviewError):
        parse_identity_review(content)


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "a", "\n"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["username", "groups", "uid", "extra", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.fixed_dictionaries({"allowed": st.booleans() | _JSON}, optional={"user": _JSON}))
def test_whatever_is_answered_nobody_is_seen_without_a_name(status: Any) -> None:
    try:
        found = parse_identity_review(answer(status))
    except InvalidIdentityReviewError:
        return
    assert (found is None) == (status["allowed"] is False)
    assert found is None or found.username == status["user"]["username"] != ""
