from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.fake_hub import Answer, FakeHub, make_status

from cluster_gateway_core.errors import HubUnavailableError
from cluster_gateway_core.hub.token_review import TokenReviewer, parse_user
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.settings import ReviewSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster_gateway_core.hub.client import HubClient

USER = {"username": "bob", "uid": "9", "groups": ["a"], "extra": {"Scopes": ["x"]}}
KNOWN = Answer(status=201, body={"status": {"authenticated": True, "user": USER}})
UNKNOWN = Answer(status=201, body={"status": {"error": "expired"}})
BOB = UserInfo(username="bob", uid="9", groups=("a",), extra=(("scopes", ("x",)),))


@pytest.fixture
async def reviewer(client: HubClient) -> AsyncIterator[TokenReviewer]:
    async with TokenReviewer(client, ReviewSettings()) as made:
        yield made


@pytest.mark.parametrize(("answer", "user"), [(KNOWN, BOB), (UNKNOWN, None)])
async def test_an_answer_is_kept(hub: FakeHub, reviewer: TokenReviewer, answer: Answer, user: UserInfo | None) -> None:
    hub.script("POST", answer)
    assert await reviewer.authenticate("canary") == user
    assert await reviewer.authenticate("canary") == user
    assert [received.body["spec"]["token"] for received in hub.received] == ["canary"]


async def test_what_is_left_of_an_answer_s_time_is_told(hub: FakeHub, client: HubClient) -> None:
    """A cache behind this one must not begin anew: a withdrawn token is believed for one time-to-live in all."""
    now = [100.0]
    async with TokenReviewer(client, ReviewSettings(token_ttl_seconds=10), clock=lambda: now[0]) as reviewer:
        hub.script("POST", KNOWN, UNKNOWN)
        assert await reviewer.review("canary") == (BOB, 10.0)
        now[0] += 7.5
        assert await reviewer.review("canary") == (BOB, 2.5)
        now[0] += 2.5
        assert await reviewer.review("canary") == (None, 10.0)


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"authenticated": True},
        {"authenticated": True, "user": {}},
        {"authenticated": True, "user": {"username": ""}},
        {"authenticated": "true", "user": USER},
        {"authenticated": False, "user": USER},
    ],
)
def test_only_an_explicit_yes_identifies(status: Any) -> None:
    assert parse_user({"status": status}) is None


@pytest.mark.parametrize("audiences", [{}, {"audiences": ["https://hub"]}], ids=["none", "the hub's own"])
async def test_a_token_is_judged_for_the_audience_of_the_hub(
    hub: FakeHub, reviewer: TokenReviewer, audiences: dict[str, list[str]]
) -> None:
    """RH-17: the gateway wants no audience of its own, so the hub takes its own and nothing can be disjoint.

    A token for another audience is none of the hub's: it answers that it is not authenticated.
    """
    status = {"authenticated": True, "user": USER, **audiences}
    hub.script("POST", Answer(status=201, body={"status": status}), UNKNOWN)
    assert await reviewer.authenticate("canary") == BOB
    assert "audiences" not in hub.received[0].body["spec"]
    assert await reviewer.authenticate("for-another-audience") is None


async def test_an_empty_token_is_nobodys(hub: FakeHub, reviewer: TokenReviewer) -> None:
    assert await reviewer.authenticate("") is None
    assert hub.received == []


async def test_a_hub_that_refuses_reviews_names_the_role_and_never_the_token(
    hub: FakeHub, reviewer: TokenReviewer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.script("POST", Answer(status=403, body=make_status(403, message="cannot create")))
    with pytest.raises(HubUnavailableError) as caught:
        await reviewer.authenticate("canary")
    assert "system:auth-delegator" in caught.value.hint
    assert "system:auth-delegator" in reviewer.condition().detail
    assert "canary" not in caplog.text + str(caught.value) + reviewer.condition().detail


async def test_the_token_itself_is_not_kept(hub: FakeHub, reviewer: TokenReviewer) -> None:
    hub.script("POST", KNOWN)
    await reviewer.authenticate("canary-" + "x" * 20)
    gc.collect()
    assert "canary-" not in repr(vars(reviewer._cache))
