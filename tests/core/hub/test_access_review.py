from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.fake_hub import Answer, FakeHub, make_status

from cluster_gateway_core.errors import AccessDeniedError, HubUnavailableError
from cluster_gateway_core.hub.access_review import AccessReviewer, parse_decision, render_review
from cluster_gateway_core.hub.retry import with_retries
from cluster_gateway_core.model.attributes import Decision, NonResourceAttributes, ResourceAttributes
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.settings import ReviewSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster_gateway_core.hub.client import HubClient

ALICE = UserInfo(username="alice", uid="1", groups=("dev", "ops"), extra=(("scopes", ("a", "b")),))
PROXY = ResourceAttributes(verb="get", subresource="proxy", name="c1")
YES = Answer(status=201, body={"status": {"allowed": True, "reason": "RBAC"}})
NO = Answer(status=201, body={"status": {"allowed": False}})
DOWN = Answer(status=404)


@pytest.fixture
async def reviewer(client: HubClient) -> AsyncIterator[AccessReviewer]:
    async with AccessReviewer(client, ReviewSettings()) as made:
        yield made


def test_a_review_is_of_a_resource_or_of_a_path() -> None:
    """SAR-10."""
    assert render_review(ALICE, PROXY)["spec"] == {
        "user": "alice",
        "uid": "1",
        "groups": ["dev", "ops"],
        "extra": {"scopes": ["a", "b"]},
        "resourceAttributes": {
            "verb": "get",
            "group": "cluster.core.oam.dev",
            "version": "v1alpha1",
            "resource": "clustergateways",
            "subresource": "proxy",
            "name": "c1",
        },
    }
    spec = render_review(UserInfo(username="bob"), NonResourceAttributes(verb="get", path="/metrics"))["spec"]
    assert spec == {
        "user": "bob",
        "groups": [],
        "nonResourceAttributes": {"verb": "get", "path": "/metrics"},
    }


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": False}, False),
        ({"allowed": True, "denied": True}, False),
        ({"allowed": "true"}, False),
        ({"denied": False}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_an_unambiguous_yes_is_one(status: Any, *, allowed: bool) -> None:
    """SAR-9: allowed and denied is a denial."""
    assert parse_decision({"status": status}).allowed is allowed


def test_a_contradiction_is_told() -> None:
    """SAR-9."""
    assert "both" in parse_decision({"status": {"allowed": True, "denied": True}}).reason


@pytest.mark.parametrize(("answer", "allowed"), [(YES, True), (NO, False)])
async def test_a_decision_is_kept(hub: FakeHub, reviewer: AccessReviewer, answer: Answer, *, allowed: bool) -> None:
    """SAR-4, SAR-6: the next call is served although the hub fails."""
    hub.script("POST", answer, DOWN)
    assert (await reviewer.review(ALICE, PROXY)).allowed is allowed
    assert (await reviewer.review(ALICE, PROXY)).allowed is allowed
    assert len(hub.of_kind("POST")) == 1
    assert hub.received[0].path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@pytest.mark.parametrize(
    ("user", "attributes"),
    [
        (replace(ALICE, username="bob"), PROXY),
        (replace(ALICE, uid="2"), PROXY),
        (replace(ALICE, groups=("ops", "dev")), PROXY),
        (replace(ALICE, extra=()), PROXY),
        (ALICE, replace(PROXY, verb="create")),
        (ALICE, replace(PROXY, subresource="")),
        (ALICE, replace(PROXY, name="c2")),
        (ALICE, replace(PROXY, namespace="n")),
        (ALICE, replace(PROXY, group="")),
        (ALICE, replace(PROXY, version="v1")),
        (ALICE, replace(PROXY, resource="virtualclusters")),
        (ALICE, NonResourceAttributes(verb="get", path="/")),
    ],
)
async def test_every_attribute_counts(
    hub: FakeHub, reviewer: AccessReviewer, user: UserInfo, attributes: ResourceAttributes
) -> None:
    """SAR-8."""
    hub.script("POST", YES, NO)
    assert (await reviewer.review(ALICE, PROXY)).allowed
    assert not (await reviewer.review(user, attributes)).allowed


@pytest.mark.parametrize("answer", [YES, NO])
async def test_huge_attributes_are_never_kept(hub: FakeHub, reviewer: AccessReviewer, answer: Answer) -> None:
    """SAR-7."""
    hub.script("POST", answer, answer)
    huge = NonResourceAttributes(verb="get", path="/" + "a" * 9_996)
    await reviewer.review(ALICE, huge)
    await reviewer.review(ALICE, huge)
    assert len(hub.of_kind("POST")) == 2


async def test_a_superuser_is_not_asked_about(hub: FakeHub, reviewer: AccessReviewer) -> None:
    admin = UserInfo(username="admin", groups=("system:masters",))
    assert (await reviewer.review(admin, PROXY)).allowed
    assert hub.received == []


async def test_a_failure_denies_and_is_not_kept(hub: FakeHub, reviewer: AccessReviewer) -> None:
    """SAR-3, SAR-5."""
    hub.script("POST", DOWN, YES)
    with pytest.raises(AccessDeniedError, match="could not be asked"):
        await reviewer.review(ALICE, PROXY)
    assert len(hub.of_kind("POST")) == 1
    assert reviewer.condition().ready
    assert "404" in reviewer.condition().detail
    assert (await reviewer.review(ALICE, PROXY)).allowed
    assert reviewer.condition().detail == ""


async def test_a_hub_that_refuses_reviews_names_the_role_to_bind_once_a_minute(
    hub: FakeHub, reviewer: AccessReviewer, caplog: pytest.LogCaptureFixture
) -> None:
    hub.script("POST", *[Answer(status=403, body=make_status(403, message="cannot create"))] * 2)
    for name in ("c1", "c2"):
        with pytest.raises(AccessDeniedError) as caught:
            await reviewer.review(ALICE, replace(PROXY, name=name))
        assert "system:auth-delegator" in caught.value.hint
        assert caught.value.cluster_name == name
    assert caplog.text.count("system:auth-delegator") == 1
    assert "system:auth-delegator" in reviewer.condition().detail


async def test_a_frozen_hub_denies_within_the_limit_and_known_users_go_on(hub: FakeHub, client: HubClient) -> None:
    """SAR-15."""
    thawed = asyncio.Event()
    hub.script("POST", YES, Answer(held=thawed))
    async with AccessReviewer(client, ReviewSettings(), timeout_seconds=0.05) as reviewer:
        await reviewer.review(ALICE, PROXY)
        with pytest.raises(AccessDeniedError, match=r"no answer within 0\.05 s"):
            await reviewer.review(UserInfo(username="bob"), PROXY)
        assert (await reviewer.review(ALICE, PROXY)).allowed
        assert reviewer.condition().ready
    thawed.set()


async def test_require_speaks_like_kube_apiserver(hub: FakeHub, reviewer: AccessReviewer) -> None:
    hub.script("POST", NO, NO, YES)
    with pytest.raises(AccessDeniedError) as caught:
        await reviewer.require(ALICE, PROXY)
    assert caught.value.message == (
        'User "alice" cannot get resource "clustergateways/proxy" in API group "cluster.core.oam.dev" '
        "at the cluster scope"
    )
    with pytest.raises(AccessDeniedError, match='cannot get path "/metrics"'):
        await reviewer.require(ALICE, NonResourceAttributes(verb="get", path="/metrics"))
    await reviewer.require(ALICE, replace(PROXY, name="c2"))


async def test_tries_five_times_with_growing_delays() -> None:
    """SAR-2."""
    delays: list[float] = []

    async def fail() -> Decision:
        raise HubUnavailableError("500", retry_after_seconds=1)

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    with pytest.raises(HubUnavailableError):
        await with_retries(fail, sleep=sleep)
    assert delays == [0.5, 0.75, 1.125, 1.6875]


async def test_a_passing_fault_is_tried_again(hub: FakeHub, reviewer: AccessReviewer) -> None:
    """SAR-2."""
    hub.script("POST", Answer(status=500), YES)
    assert (await reviewer.review(ALICE, PROXY)).allowed
