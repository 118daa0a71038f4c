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


async def trust_with(gateway: RunningFacade, **changes: list[str]) -> None:
    before = gateway.facade._authenticator.trust
    gateway.core.trust(gateway.identities.trust(**changes))
    await gateway.until(lambda: gateway.facade._authenticator.trust is not before)


def forwarded_names(gateway: RunningFacade) -> set[str]:
    return {header.name.decode() for conversation in gateway.core.conversations for header in conversation.head.headers}


OWN_NAMES = {
    "username_headers": ["X-Corp-User"],
    "uid_headers": ["X-Corp-Uid"],
    "group_headers": ["X-Corp-Group", "X-Remote-Group"],
    "extra_header_prefixes": ["X-Corp-Extra-"],
}
OWN_IDENTITY = ("X-Corp-User: alice", "X-Corp-Uid: 7", "x-corp-GROUP: dev", "X-Corp-Extra-Scope: all")


async def test_headers_that_the_hub_s_operator_named_are_read_and_removed(gateway: RunningFacade) -> None:
    """RH-12, RH-14, RH-15; RH-9: look-alikes are neither used nor removed."""
    await trust_with(gateway, **OWN_NAMES)
    async with gateway.as_front_proxy() as client:
        kept = ("X-Group-Bear: stays", "X-Corp-User-2: stays", "Accept: */*")
        standard = ("X-Remote-User: root", "X-Remote-Uid: 0", "X-Remote-Extra-Scope: none")
        assert (await client.get(f"{PROXY}/x", *OWN_IDENTITY, "X_Corp_User: eve", *kept, *standard)).status == 200
    asserted = gateway.core.conversations[0].head.asserted_user
    assert (asserted.username, asserted.uid) == ("alice", "7")
    assert list(asserted.groups) == ["dev", "system:authenticated"]
    assert {key: list(extra.values) for key, extra in asserted.extra.items()} == {"scope": ["all"]}
    usual = {name for name in forwarded_names(gateway) if name.lower().startswith("x-remote-")}
    # What is called X-Remote- is dropped by the core, for every caller.
    assert forwarded_names(gateway) - usual == {"Host", "X-Group-Bear", "X-Corp-User-2", "Accept"}


async def test_headers_that_the_hub_s_operator_named_are_removed_whoever_sends_them(gateway: RunningFacade) -> None:
    """RH-12: an identity that was not believed must not reach a cluster that might believe it."""
    await trust_with(gateway, **OWN_NAMES)
    async with gateway.connect(gateway.identities.user) as client:
        assert (await client.get(f"{PROXY}/x", *OWN_IDENTITY)).status == 200
    assert gateway.core.conversations[0].head.asserted_user.username == "bob"
    assert forwarded_names(gateway) == {"Host"}


@pytest.mark.parametrize("failing", [False, True], ids=["not ok", "error"])
async def test_who_is_not_authenticated_gets_no_further_and_nothing_of_it_is_told(
    gateway: RunningFacade,
    caplog: pytest.LogCaptureFixture,
    failing: bool,  # noqa: FBT001
) -> None:
    """RH-16."""
    caplog.set_level("DEBUG")
    gateway.core.access_failure = grpc.StatusCode.UNAVAILABLE if failing else None
    async with gateway.connect() as client:
        response = await client.get(f"{PROXY}/x", "Authorization: Bearer canary", "X-Remote-Extra-Key: canary", *ALICE)
    assert response.status == (503 if failing else 401)
    assert response.json()["reason"] == ("ServiceUnavailable" if failing else "Unauthorized")
    assert gateway.core.conversations == []
    for told in (response.body, str(response.headers).encode(), caplog.text.encode()):
        assert b"canary" not in told
        assert b"alice" not in told


VARIANTS = [
    "X_Remote_User: root",
    "X-Remote_User: root",
    "x-REMOTE-user: root",
    "X-Remote-Group: system:masters",
    "X_Remote_Group: system:masters",
    "X-Remote-GROUP: system:masters",
    "X-Remote-Uid: 0",
    "X_REMOTE_EXTRA_SCOPE: root",
]


@pytest.mark.parametrize("variant", VARIANTS)
async def test_no_spelling_of_an_identity_header_changes_who_somebody_is(gateway: RunningFacade, variant: str) -> None:
    async with gateway.connect(gateway.identities.user) as client:
        assert (await client.get(f"{PROXY}/x", variant)).status == 200
    assert gateway.core.conversations[0].head.asserted_user == UserInfo(
        username="bob", groups=["ops", "system:authenticated"]
    )


@pytest.mark.parametrize("variant", ["X_Remote_User: root", "X_Remote_Group: system:masters", "X_REMOTE_EXTRA_A: b"])
async def test_a_spelling_with_underscores_is_not_the_front_proxy_s_word(gateway: RunningFacade, variant: str) -> None:
    async with gateway.as_front_proxy() as client:
        assert (await client.get(f"{PROXY}/x", *ALICE, variant)).status == 200
    assert gateway.core.conversations[0].head.asserted_user == UserInfo(
        username="alice", groups=["dev", "system:authenticated"]
    )


@pytest.mark.parametrize("header", ["X-Remote-User : root", "X-Remote-User\t: root", " X-Remote-User: root"])
async def test_white_space_around_an_identity_header_s_name_is_refused(gateway: RunningFacade, header: str) -> None:
    """RFC 9112 section 5.1: two readers of such a line could see two names."""
    async with gateway.connect(gateway.identities.user) as client:
        assert (await client.get(f"{PROXY}/x", header)).status == 400
    assert gateway.core.conversations == []


@pytest.mark.parametrize("name", ["X-Remote-User", "X_Remote_Group", "Impersonate-User", "Authorization", "Cookie"])
async def test_a_trailer_is_no_header_and_goes_nowhere(gateway: RunningFacade, name: str) -> None:
    async with gateway.connect(gateway.identities.user) as client:
        await client.send(
            f"POST {PROXY}/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n"
            f"1\r\na\r\n0\r\n{name}: system:masters\r\n\r\n".encode()
        )
        response = await client.response()
    for conversation in gateway.core.conversations:
        assert conversation.head.asserted_user.username == "bob"
        assert b"system:masters" not in conversation.head.SerializeToString()
    assert response.status in (200, 400)


CONFUSED_NAMES = [
    *("eas", "eastx", "East", "EAST", "east.", "%65ast", "east%00", "east%2f.."),
    *("e\xe4st", ".", "..", "", "-east"),
]


@pytest.mark.parametrize("name", CONFUSED_NAMES)
async def test_a_cluster_is_named_exactly_or_not_at_all(gateway: RunningFacade, name: str) -> None:
    """What is no name of a cluster is refused here; any other name goes on letter by letter."""
    async with gateway.as_front_proxy() as client:
        response = await client.get(PROXY.replace("/east/", f"/{name}/") + "/x", *ALICE)
    told = [conversation.head.cluster_name for conversation in gateway.core.conversations]
    assert told == ([name] if response.status == 200 else [])
    assert "east" not in told


@pytest.mark.parametrize("path", ["east/../west", "west/../east", "east//", "./east", "east/%2e%2e/west"])
async def test_no_cluster_is_reached_through_dot_segments(gateway: RunningFacade, path: str) -> None:
    async with gateway.as_front_proxy() as client:
        response = await client.get(PROXY.replace("/east/", f"/{path}/") + "/x", *ALICE)
    assert response.status in (400, 404)
    assert gateway.core.conversations == []


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


@pytest.mark.parametrize("claim", ["caf\xe9", "192.0.2.7\tx", ""])
async def test_an_address_that_is_none_is_not_told_further(gateway: RunningFacade, claim: str) -> None:
    """The hub hands on what its caller wrote; it must neither fail the request nor reach the cluster."""
    async with gateway.as_front_proxy() as client:
        response = await client.get(f"{PROXY}/x", *ALICE, f"X-Forwarded-For: {claim}", "X-Forwarded-For: 192.0.2.8")
    assert response.status == 200
    assert gateway.core.conversations[0].head.forwarded_for == "192.0.2.8, 127.0.0.1"


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


@pytest.mark.parametrize("target", [f"{GROUP}/clustergateways", f"{GROUP}/clustergateways/x", "/apis", GROUP])
async def test_own_resources_are_shown_to_whom_the_caller_acts_as(gateway: RunningFacade, target: str) -> None:
    gateway.core.impersonated = UserInfo(username="tony", groups=["dev", "system:authenticated"])
    async with gateway.as_front_proxy() as client:
        await client.get(target, *ALICE, "Impersonate-User: tony", "impersonate-GROUP: dev", "X-Other: 1")
    (asked,) = gateway.core.impersonations
    assert asked.user.username == "alice"
    assert [(bytes(one.name), bytes(one.value)) for one in asked.headers] == [
        (b"Impersonate-User", b"tony"),
        (b"impersonate-GROUP", b"dev"),
    ]
    assert {question.user.username for question in gateway.core.questions} <= {"tony"}


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, 403, "Forbidden"),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "BadRequest"),
        (grpc.StatusCode.UNAVAILABLE, 503, "ServiceUnavailable"),
    ],
)
async def test_impersonation_that_fails_shows_nothing(
    gateway: RunningFacade, failure: grpc.StatusCode, code: int, reason: str
) -> None:
    """IM-2, IM-15: with a name that is not known, or spelled with an underscore, it is asked about all the same."""
    gateway.core.access_failure = failure
    async with gateway.as_front_proxy() as client:
        for header in ("Impersonate-User: tony", "Impersonate-Foo: x", "impersonate_user: tony"):
            response = await client.get("/apis", *ALICE, header)
            assert (response.status, response.json()["reason"]) == (code, reason)
    assert len(gateway.core.impersonations) == 3
    assert gateway.core.questions == []


async def test_a_core_hears_of_impersonation_within_the_exchange_and_not_before(gateway: RunningFacade) -> None:
    async with gateway.as_front_proxy() as client:
        await client.get(f"{PROXY}/x", *ALICE, "Impersonate-User: tony")
        await client.get("/apis", *ALICE)
    head = gateway.core.conversations[0].head
    assert head.asserted_user.username == "alice"
    assert (b"Impersonate-User", b"tony") in [(bytes(one.name), bytes(one.value)) for one in head.headers]
    assert gateway.core.impersonations == []
