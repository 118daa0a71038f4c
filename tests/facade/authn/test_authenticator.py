"""Who asks: front proxy, client certificate, bearer token, anonymous (a1, RH, X5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.hub_certificates import make_identity
from tests.support.running_facade import HubIdentities, make_hub_identities

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade.authn.anchors import load_ca_bundle, read_trust_anchors
from cluster_gateway_facade.authn.authenticator import Authenticator
from cluster_gateway_facade.authn.peer_certificate import PeerCertificate
from clustergateway.access.v1.access_service_pb2 import WatchTrustResponse
from clustergateway.access.v1.user_info_pb2 import UserInfo

if TYPE_CHECKING:
    from tests.support.hub_certificates import Identity

MASTERS = [(b"X-Remote-User", b"alice"), (b"X-Remote-Group", b"system:masters")]
ANONYMOUS = UserInfo(username="system:anonymous", groups=["system:unauthenticated"])
BOB = UserInfo(username="bob", groups=["ops", "system:authenticated"])


class Tokens:
    """Accepts one token and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def review(self, token: str) -> UserInfo | None:
        self.asked.append(token)
        return UserInfo(username="robot") if token == "good" else None


@pytest.fixture(scope="module")
def hub() -> HubIdentities:
    return make_hub_identities()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def authenticator(hub: HubIdentities, tokens: Tokens) -> Authenticator:
    made = Authenticator(tokens)
    made.trust = read_trust_anchors(hub.trust())
    return made


def shown(identity: Identity, *chain: Identity) -> PeerCertificate:
    leaf, *others = (one.certificate.public_bytes(serialization.Encoding.DER) for one in (identity, *chain))
    return PeerCertificate(leaf, others)


async def test_the_front_proxy_s_word_is_believed(authenticator: Authenticator, hub: HubIdentities) -> None:
    user = await authenticator.authenticate(MASTERS, shown(hub.front_proxy))
    assert user == UserInfo(username="alice", groups=["system:masters", "system:authenticated"])


@pytest.mark.parametrize(
    ("name", "groups", "expected"),
    [
        ("alice", [], ["system:authenticated"]),
        ("alice", ["system:authenticated", "dev"], ["system:authenticated", "dev"]),
        ("alice", ["system:unauthenticated"], ["system:unauthenticated"]),
        ("system:anonymous", [], []),
    ],
    ids=["none", "there-already", "unauthenticated", "anonymous"],
)
async def test_the_group_of_known_users_is_added_once(
    authenticator: Authenticator, hub: HubIdentities, name: str, groups: list[str], expected: list[str]
) -> None:
    headers = [(b"X-Remote-User", name.encode()), *((b"X-Remote-Group", group.encode()) for group in groups)]
    user = await authenticator.authenticate(headers, shown(hub.front_proxy))
    assert (user.username, list(user.groups)) == (name, expected)


@pytest.mark.parametrize("kind", ["wrong-name", "wrong-ca", "expired", "server-only", "same-ca-name", "self-signed"])
async def test_identity_headers_of_anybody_else_unlock_nothing_a1_x5_6(
    authenticator: Authenticator, hub: HubIdentities, tokens: Tokens, kind: str
) -> None:
    issuer, name = hub.front_proxy_ca, "front-proxy-client"
    certificate = {
        "wrong-name": make_identity("other", issuer=issuer),
        "wrong-ca": make_identity(name, issuer=make_identity("elsewhere")),
        "expired": make_identity(name, issuer=issuer, expired=True),
        "server-only": make_identity(name, issuer=issuer, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        "same-ca-name": make_identity(name, issuer=make_identity("front-ca")),
        "self-signed": make_identity(name),
    }[kind]
    with pytest.raises(CoreError) as refused:
        await authenticator.authenticate(MASTERS, shown(certificate))
    assert refused.value.reason == "UNAUTHENTICATED"
    assert not authenticator.is_front_proxy(shown(certificate))
    assert tokens.asked == []


async def test_a_certificate_of_the_hub_s_ca_is_its_user_and_never_unlocks_headers_a1(
    authenticator: Authenticator, hub: HubIdentities
) -> None:
    assert await authenticator.authenticate(MASTERS, shown(hub.user)) == BOB
    front_proxy_by_name = make_identity("front-proxy-client", issuer=hub.client_ca)
    user = await authenticator.authenticate(MASTERS, shown(front_proxy_by_name))
    assert user == UserInfo(username="front-proxy-client", groups=["system:authenticated"])
    assert not authenticator.is_front_proxy(shown(front_proxy_by_name))


async def test_headers_without_a_certificate_are_nothing(authenticator: Authenticator) -> None:
    assert await authenticator.authenticate(MASTERS, None) == ANONYMOUS


async def test_an_empty_list_of_names_allows_every_name_of_that_ca_x5_6(
    authenticator: Authenticator, hub: HubIdentities
) -> None:
    authenticator.trust = read_trust_anchors(hub.trust(allowed_names=[]))
    any_name = make_identity("any", issuer=hub.front_proxy_ca)
    assert (await authenticator.authenticate(MASTERS, shown(any_name))).username == "alice"
    with pytest.raises(CoreError):
        await authenticator.authenticate(MASTERS, shown(make_identity("any", issuer=make_identity("x"))))


async def test_the_front_proxy_without_a_user_is_nobody_rh_2(authenticator: Authenticator, hub: HubIdentities) -> None:
    with pytest.raises(CoreError):
        await authenticator.authenticate([], shown(hub.front_proxy))


async def test_no_anchors_trust_nobody(authenticator: Authenticator, hub: HubIdentities) -> None:
    for trust in (None, read_trust_anchors(WatchTrustResponse())):
        authenticator.trust = trust
        for identity in (hub.front_proxy, hub.user):
            with pytest.raises(CoreError):
                await authenticator.authenticate(MASTERS, shown(identity))


async def test_a_withdrawn_ca_counts_no_more_on_open_connections(
    authenticator: Authenticator, hub: HubIdentities
) -> None:
    certificate = shown(hub.front_proxy)
    assert (await authenticator.authenticate(MASTERS, certificate)).username == "alice"
    authenticator.trust = read_trust_anchors(hub.trust(ca_pem=make_identity("front-ca").certificate_pem))
    with pytest.raises(CoreError):
        await authenticator.authenticate(MASTERS, certificate)


async def test_a_certificate_that_expires_counts_no_more_on_open_connections_x5_7(
    authenticator: Authenticator, hub: HubIdentities, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = shown(hub.front_proxy)
    assert authenticator.is_front_proxy(certificate)
    for moment in (certificate._not_after + 1, certificate._not_before - 1):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        assert not authenticator.is_front_proxy(certificate)


async def test_a_certificate_by_an_intermediate_is_believed_as_its_root(
    authenticator: Authenticator, hub: HubIdentities
) -> None:
    """X5-8."""
    issuing = make_identity("issuing", issuer=hub.front_proxy_ca, authority=True)
    higher = make_identity("higher", issuer=hub.client_ca, authority=True)
    lower = make_identity("lower", issuer=higher, authority=True)
    front_proxy = shown(make_identity("front-proxy-client", issuer=issuing), issuing)
    assert (await authenticator.authenticate(MASTERS, front_proxy)).username == "alice"
    user = await authenticator.authenticate(MASTERS, shown(make_identity("jane", issuer=lower), lower, higher))
    assert user.username == "jane"
    assert not authenticator.is_front_proxy(shown(make_identity("front-proxy-client", issuer=higher), higher))


@pytest.mark.parametrize("kind", ["not sent", "expired", "no authority", "for servers only"])
async def test_an_intermediate_that_is_missing_or_unfit_proves_nothing(
    authenticator: Authenticator, hub: HubIdentities, kind: str
) -> None:
    """X5-8."""
    root = hub.front_proxy_ca
    issuing = {
        "not sent": make_identity("issuing", issuer=root, authority=True),
        "expired": make_identity("issuing", issuer=root, authority=True, expired=True),
        "no authority": make_identity("issuing", issuer=root),
        "for servers only": make_identity(
            "issuing", issuer=root, authority=True, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)
        ),
    }[kind]
    leaf = make_identity("front-proxy-client", issuer=issuing)
    certificate = shown(leaf) if kind == "not sent" else shown(leaf, issuing)
    assert not authenticator.is_front_proxy(certificate)
    with pytest.raises(CoreError):
        await authenticator.authenticate(MASTERS, certificate)


async def test_an_intermediate_that_expires_ends_what_it_vouched_for(
    authenticator: Authenticator, hub: HubIdentities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X5-8."""
    issuing = make_identity("issuing", issuer=hub.front_proxy_ca, authority=True, days=1)
    certificate = shown(make_identity("front-proxy-client", issuer=issuing), issuing)
    assert authenticator.is_front_proxy(certificate)
    later = issuing.certificate.not_valid_after_utc.timestamp() + 1
    monkeypatch.setattr("time.time", lambda: later)
    assert not authenticator.is_front_proxy(certificate)


TOKEN_CASES = [
    (b"Bearer good", "good"),
    (b"bearer good", "good"),
    (b"  BEARER good  ", "good"),
    (b"Bearer good extra", "good"),
    (b"Bearer", None),
    (b"Bearer ", None),
    (b"Bearer  good", None),
    (b"Basic good", None),
    (b"good", None),
    (b"", None),
]


@pytest.mark.parametrize(("value", "token"), TOKEN_CASES)
async def test_a_bearer_token_is_read_as_kube_apiserver_does(
    authenticator: Authenticator, tokens: Tokens, value: bytes, token: str | None
) -> None:
    user = await authenticator.authenticate([(b"authorization", value)], None)
    assert tokens.asked == ([token] if token else [])
    assert user.username == ("robot" if token else "system:anonymous")


async def test_the_first_authorization_header_counts(authenticator: Authenticator, tokens: Tokens) -> None:
    await authenticator.authenticate([(b"Authorization", b"Basic x"), (b"Authorization", b"Bearer good")], None)
    assert tokens.asked == []


async def test_a_token_that_is_not_accepted_is_no_anonymous_user(authenticator: Authenticator) -> None:
    with pytest.raises(CoreError) as refused:
        await authenticator.authenticate([(b"Authorization", b"Bearer s3cr3t")], None)
    assert refused.value.reason == "UNAUTHENTICATED"
    assert "s3cr3t" not in f"{refused.value!r} {refused.value.message} {refused.value.hint}"


async def test_a_certificate_comes_before_a_token_and_a_token_helps_one_that_is_unknown(
    authenticator: Authenticator, hub: HubIdentities, tokens: Tokens
) -> None:
    headers = [(b"Authorization", b"Bearer good")]
    assert await authenticator.authenticate(headers, shown(hub.user)) == BOB
    assert tokens.asked == []
    unknown = shown(make_identity("x", issuer=make_identity("y")))
    assert (await authenticator.authenticate(headers, unknown)).username == "robot"


def test_a_certificate_without_usages_is_for_clients_too(hub: HubIdentities) -> None:
    certificate = shown(make_identity("a", issuer=hub.client_ca, usages=()))
    assert certificate.is_issued_by(load_ca_bundle(hub.client_ca.certificate_pem))


@pytest.mark.parametrize("pem", [b"", b" \n"])
def test_an_empty_bundle_vouches_for_nobody(hub: HubIdentities, pem: bytes) -> None:
    assert not shown(hub.user).is_issued_by(load_ca_bundle(pem))


def test_every_certificate_of_a_bundle_counts(hub: HubIdentities) -> None:
    both = hub.front_proxy_ca.certificate_pem + hub.client_ca.certificate_pem
    assert shown(hub.user).is_issued_by(load_ca_bundle(both))


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        PeerCertificate(b"junk")
