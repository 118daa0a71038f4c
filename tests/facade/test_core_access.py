"""What the facade asks of a core, over real gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.support.fake_core import FakeCore

from cluster_gateway_client.channel import CoreEndpoint
from cluster_gateway_client.client import CoreClient
from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade import core_access
from cluster_gateway_facade.core_access import CoreAccess, TrustWatch
from cluster_gateway_facade.readiness import CoreReadiness
from clustergateway.access.v1.access_service_pb2 import NonResourceAttributes, ResourceAttributes, WatchTrustResponse
from clustergateway.access.v1.user_info_pb2 import UserInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[FakeCore]:
    async with FakeCore(tmp_path / "core.sock") as fake:
        yield fake


@pytest.fixture
async def client(core: FakeCore) -> AsyncIterator[CoreClient]:
    async with CoreClient(CoreEndpoint(target=core.target)) as made:
        yield made


async def test_an_answer_about_a_token_is_believed_for_as_long_as_the_core_says(
    core: FakeCore, client: CoreClient
) -> None:
    core.tokens["good"] = UserInfo(username="robot")
    for seconds, reviews in ((60, 2), (0, 4)):
        access = CoreAccess(client)
        core.believed_seconds = seconds
        core.token_reviews = 0
        for token, user in (("good", UserInfo(username="robot")), ("bad", None)) * 2:
            assert await access.review(token) == user
        assert core.token_reviews == reviews


async def test_a_failed_review_is_not_remembered_and_names_no_token(core: FakeCore, client: CoreClient) -> None:
    core.tokens["s3cr3t"] = UserInfo(username="robot")
    access = CoreAccess(client)
    core.access_failure = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(CoreError) as failed:
        await access.review("s3cr3t")
    assert failed.value.reason == "CORE_UNAVAILABLE"
    assert "s3cr3t" not in repr(failed.value)
    core.access_failure = None
    assert await access.review("s3cr3t") == UserInfo(username="robot")
    assert "s3cr3t" not in repr(access._tokens)


async def test_remembered_tokens_are_bounded(
    core: FakeCore, client: CoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_access, "_CACHED_TOKENS", 2)
    access = CoreAccess(client)
    for number in range(5):
        await access.review(str(number))
    assert len(access._tokens) == 2


@pytest.mark.parametrize(
    "attributes",
    [ResourceAttributes(verb="get", resource="pods"), NonResourceAttributes(verb="get", path="/apis")],
    ids=["resource", "non-resource"],
)
async def test_a_question_carries_user_and_attributes(
    core: FakeCore, client: CoreClient, attributes: ResourceAttributes | NonResourceAttributes
) -> None:
    decision = await CoreAccess(client).authorize(UserInfo(username="a"), attributes)
    assert decision.allowed
    (asked,) = core.questions
    assert asked.user.username == "a"
    assert attributes in (asked.resource, asked.non_resource)


async def test_a_watch_of_the_anchors_survives_its_stream_and_unusable_ones(core: FakeCore, client: CoreClient) -> None:
    applied: list[bytes] = []
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    def apply(anchors: WatchTrustResponse) -> None:
        arrived.put_nowait(anchors.client_ca_pem)
        if anchors.client_ca_pem == b"bad":
            raise ValueError("no PEM")
        applied.append(anchors.client_ca_pem)

    watch = TrustWatch(client, apply)
    assert watch.fault
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run())
        for pem in (b"bad", b"one", b"bad", b"two"):
            core.trust(WatchTrustResponse(client_ca_pem=pem))
            assert await arrived.get() == pem
            assert bool(watch.fault) is (not applied)
            assert bool(watch.note) is (pem == b"bad")
        watching.cancel()
    assert applied == [b"one", b"two"]


async def test_readiness_follows_the_core(core: FakeCore, client: CoreClient) -> None:
    readiness = CoreReadiness(client)
    assert readiness.reachable() == "no routing core has answered yet"
    await readiness._ask()
    assert readiness.reachable() is None
    assert readiness.condition("unknown") is None
    assert readiness.note("unknown") == ""
    core.access_failure = grpc.StatusCode.UNAVAILABLE
    await readiness._ask()
    assert readiness.reachable() == "no routing core answers: UNAVAILABLE: made up"
