"""The way of a request: who asks, what is allowed, who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from tests.support.running_facade import ALICE, PROXY

from clustergateway.access.v1.access_service_pb2 import Condition
from clustergateway.access.v1.user_info_pb2 import UserInfo

if TYPE_CHECKING:
    from tests.support.running_facade import RunningFacade

GROUP = "/apis/cluster.core.oam.dev/v1alpha1"


async def test_identity_is_the_request_s_on_a_shared_connection_a1(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        for number in range(50):
            await client.get(f"{PROXY}/x", f"X-Remote-User: user-{number % 2}", f"X-Remote-Group: g{number % 2}")
    users = [conversation.head.asserted_user for conversation in gateway.core.conversations]
    assert users == [
        UserInfo(username=f"user-{n % 2}", groups=[f"g{n % 2}", "system:authenticated"]) for n in range(50)
    ]


async def test_a_user_s_own_certificate_never_unlocks_identity_headers_a1(gateway: RunningFacade) -> None:
    async with gateway.connect(gateway.identities.user) as client:
        await client.get(f"{PROXY}/x", "X-Remote-User: root", "X-Remote-Group: system:masters")
    asserted = gateway.core.conversations[0].head.asserted_user
    assert asserted == UserInfo(username="bob", groups=["ops", "system:authenticated"])


async def test_without_credentials_the_core_hears_of_an_anonymous_user(gateway: RunningFacade) -> None:
    async with gateway.connect() as client:
        await client.get(f"{PROXY}/x", *ALICE)
    assert gateway.core.conversations[0].head.asserted_user.username == "system:anonymous"


async def test_a_certificate_of_nobody_is_401_and_the_core_is_not_asked(gateway: RunningFacade) -> None:
    gateway.core.trust(gateway.identities.trust(allowed_names=["another"]))
    await gateway.until(
        lambda: "another" in gateway.facade._authenticator.trust.front_proxy.allowed_names  # type: ignore[union-attr]
    )
    async with gateway.as_front_proxy() as client:
        for target in (f"{PROXY}/x", f"{GROUP}/clustergateways", "/apis"):
            response = await client.get(target, *ALICE)
            assert response.status == 401
            assert response.json()["reason"] == "Unauthorized"
    assert gateway.core.conversations == []
    assert gateway.core.questions == []


async def test_a_bearer_token_is_reviewed_once_and_remembered(gateway: RunningFacade) -> None:
    gateway.core.tokens["good"] = UserInfo(username="robot")
    async with gateway.connect() as client:
        for _ in range(3):
            assert (await client.get(f"{PROXY}/x", "Authorization: Bearer good")).status == 200
        assert (await client.get(f"{PROXY}/x", "Authorization: Bearer bad")).status == 401
    assert gateway.core.token_reviews == 2
    assert gateway.core.conversations[0].head.asserted_user.username == "robot"


async def test_what_is_denied_is_403_before_it_is_looked_for(gateway: RunningFacade) -> None:
    gateway.core.denied.update({"/apis", "secrets"})
    async with gateway.as_front_proxy() as client:
        for target in ("/apis", "/api/v1/secrets"):
            response = await client.get(target, *ALICE)
            assert response.status == 403
            assert "alice" in response.json()["message"]
        assert (await client.get("/api/v1/pods", *ALICE)).status == 404
    assert gateway.core.questions[0].user.username == "alice"


async def test_a_review_that_fails_denies_sar(gateway: RunningFacade) -> None:
    gateway.core.access_failure = grpc.StatusCode.UNAVAILABLE
    async with gateway.as_front_proxy() as client:
        assert (await client.get("/apis", *ALICE)).status == 503
    async with gateway.connect() as client:
        assert (await client.get(f"{PROXY}/x", "Authorization: Bearer t")).status == 503
    assert gateway.core.conversations == []


async def test_probes_need_nobody_s_review(gateway: RunningFacade) -> None:
    async with gateway.connect() as client:
        for path in ("/livez", "/readyz", "/healthz"):
            assert (await client.get(path)).body == b"ok"
    assert gateway.core.questions == []


async def test_a_name_that_no_cluster_can_have_is_400_for_who_is_authenticated(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        assert (await client.get(f"{GROUP}/clustergateways/a%00/proxy/x", *ALICE)).status == 400
    assert gateway.core.conversations == []


async def test_too_many_query_parameters_are_refused(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        query = "&".join("a=b" for _ in range(1001))
        assert (await client.get(f"/apis?{query}", *ALICE)).status == 400
    assert gateway.core.questions == []


async def test_addresses_are_believed_from_the_front_proxy_alone_io_10(gateway: RunningFacade) -> None:
    claim = "X-Forwarded-For: 192.0.2.7"
    async with gateway.as_front_proxy() as client:
        await client.get(f"{PROXY}/x", *ALICE, claim)
    async with gateway.connect(gateway.identities.user) as client:
        await client.get(f"{PROXY}/x", claim)
    told = [conversation.head.forwarded_for for conversation in gateway.core.conversations]
    assert told == ["192.0.2.7, 127.0.0.1", "127.0.0.1"]


async def test_a_defect_is_a_status_without_detail(
    gateway: RunningFacade, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_down(*_: object) -> None:
        raise LookupError("inner secret")

    monkeypatch.setattr(gateway.facade._authenticator, "authenticate", break_down)
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE)
        assert await client.rest() == b""
    assert response.status == 500
    assert response.json()["reason"] == "InternalError"
    assert b"inner secret" not in response.body
    assert "inner secret" in caplog.text


async def test_anchors_that_cannot_be_used_leave_the_last_in_force_and_say_so_rh_20(gateway: RunningFacade) -> None:
    gateway.core.trust(gateway.identities.trust(ca_pem=b"junk"))
    await gateway.until(lambda: gateway.facade.trust_watch.note)
    async with gateway.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE)).status == 200
        verbose = (await client.get("/readyz?verbose", *ALICE)).body.decode()
    assert "[+]trust ok (the hub's newest trust anchors cannot be used)" in verbose
    gateway.core.trust(gateway.identities.trust())
    await gateway.until(lambda: not gateway.facade.trust_watch.note)


async def test_a_front_proxy_ca_that_changed_counts_on_open_connections_and_new_ones(
    gateway: RunningFacade,
) -> None:
    async with gateway.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE)).status == 200
        before = gateway.facade._authenticator.trust
        gateway.core.trust(gateway.identities.trust(ca_pem=gateway.identities.serving_ca.certificate_pem))
        await gateway.until(lambda: gateway.facade._authenticator.trust is not before)
        assert (await client.get(f"{PROXY}/x", *ALICE)).status == 401
    with pytest.raises((OSError, EOFError), match=r"."):
        async with gateway.as_front_proxy() as client:
            await client.get(f"{PROXY}/x", *ALICE)


async def test_readiness_tells_the_core_s_conditions(gateway: RunningFacade) -> None:
    gateway.core.conditions = [
        Condition(name="cluster-secrets", ready=False, detail="listing the Secrets"),
        Condition(name="access-reviews", ready=True, detail="slow"),
    ]
    await gateway.until(lambda: gateway.facade.readiness.condition("cluster-secrets"))
    async with gateway.connect() as client:
        assert (await client.get("/readyz")).status == 500
        text = (await client.get("/readyz?verbose")).body.decode()
    assert "[-]core-cluster-secrets failed: listing the Secrets" in text
    assert "[+]core-access-reviews ok (slow)" in text
