from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.fake_hub import Answer, FakeHub, make_status
from tests.support.hub_certificates import make_identity
from tests.support.running_facade import write_pair

from cluster_gateway_core.errors import AccessDeniedError, HubUnavailableError
from cluster_gateway_core.hub.access_review import AccessReviewer, parse_decision, render_review
from cluster_gateway_core.hub.client import open_hub_clients
from cluster_gateway_core.hub.retry import with_retries
from cluster_gateway_core.model.attributes import Decision, NonResourceAttributes, ResourceAttributes
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.settings import HubSettings, ReviewSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.hub_certificates import Identity

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
    with pytest.raises(HubUnavailableError, match="could not be asked"):
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
        with pytest.raises(HubUnavailableError) as caught:
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
        assert AccessReviewer.__init__.__kwdefaults__["timeout_seconds"] == 10
        with pytest.raises(HubUnavailableError, match=r"no answer within 0\.05 s"):
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


async def test_decisions_are_believed_for_ten_seconds_and_8192_are_kept(hub: FakeHub, client: HubClient) -> None:
    """SAR-11."""
    assert ReviewSettings().capacity == 8192
    now = 0.0
    hub.script("POST", YES, NO, NO, YES)
    async with AccessReviewer(client, ReviewSettings(), clock=lambda: now) as reviewer:
        other = replace(PROXY, name="c2")
        assert (await reviewer.review(ALICE, PROXY)).allowed
        assert not (await reviewer.review(ALICE, other)).allowed
        now = 9.9
        assert (await reviewer.review(ALICE, PROXY)).allowed
        assert not (await reviewer.review(ALICE, other)).allowed
        assert len(hub.of_kind("POST")) == 2
        now = 10.0
        assert not (await reviewer.review(ALICE, PROXY)).allowed
        assert (await reviewer.review(ALICE, other)).allowed


async def test_no_more_decisions_are_kept_than_the_capacity(hub: FakeHub, client: HubClient) -> None:
    """SAR-11: whoever asks most cannot fill the memory."""
    hub.script("POST", *[YES] * 4)
    async with AccessReviewer(client, ReviewSettings(capacity=2)) as reviewer:
        for name in ("c1", "c2", "c3", "c1"):
            await reviewer.review(ALICE, replace(PROXY, name=name))
    assert len(hub.of_kind("POST")) == 4


HUB_CA, OTHER_CA, USERS_CA = (make_identity(name) for name in ("hub-ca", "other-ca", "users-ca"))
SERVER = make_identity("hub", issuer=HUB_CA, usages=(ExtendedKeyUsageOID.SERVER_AUTH,), hosts=("localhost",))
KNOWN, STRANGER = make_identity("gateway", issuer=USERS_CA), make_identity("gateway", issuer=OTHER_CA)


@pytest.mark.parametrize(
    ("trusted", "shown", "asks_for_certificate", "fault"),
    [
        pytest.param(HUB_CA, KNOWN, True, "", id="mutual"),
        pytest.param(HUB_CA, KNOWN, False, "", id="the hub wants no certificate"),
        pytest.param(OTHER_CA, KNOWN, True, "could not be reached", id="the gateway distrusts the hub"),
        pytest.param(HUB_CA, STRANGER, True, "could not be reached", id="the hub distrusts the gateway"),
        pytest.param(HUB_CA, None, True, "could not be reached", id="the gateway shows no certificate"),
        pytest.param(None, KNOWN, True, "could not be reached", id="plain HTTP to a TLS hub"),
    ],
)
async def test_only_a_hub_that_both_sides_verified_can_allow(
    tmp_path: Path,
    trusted: Identity | None,
    shown: Identity | None,
    asks_for_certificate: bool,  # noqa: FBT001
    fault: str,
) -> None:
    """SAR-1."""
    tls = make_hub_tls(tmp_path, clients=USERS_CA if asks_for_certificate else None)
    async with FakeHub(tls) as hub:
        hub.script("POST", *[YES] * 5)
        settings = HubSettings(kubeconfig=hub.write_kubeconfig(tmp_path, ca=trusted, client=shown))
        async with (
            open_hub_clients(settings) as clients,
            AccessReviewer(clients.registry, ReviewSettings(), timeout_seconds=0.1 if fault else 20) as reviewer,
        ):
            if fault:
                with pytest.raises(HubUnavailableError, match=fault):
                    await clients.registry.get("/api")
                with pytest.raises(HubUnavailableError, match="could not be asked"):
                    await reviewer.review(ALICE, PROXY)
            else:
                assert (await reviewer.review(ALICE, PROXY)).allowed
        assert bool(hub.of_kind("POST")) is not bool(fault)


def make_hub_tls(folder: Path, *, clients: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_pair(SERVER, folder, "hub"))
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.certificate_pem.decode())
    return context


async def test_decisions_about_a_huge_user_are_never_kept(hub: FakeHub, reviewer: AccessReviewer) -> None:
    """Thousands of them could fill the memory."""
    huge = UserInfo(username="alice", groups=tuple(f"group{number:04}" for number in range(5000)))
    hub.script("POST", YES, NO)
    assert (await reviewer.review(huge, PROXY)).allowed
    assert not (await reviewer.review(huge, PROXY)).allowed
