from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.core_server import FakeTokens
from tests.support.hub_certificates import Identity, make_identity

from cluster_gateway_core.errors import AccessDeniedError, UnauthenticatedError
from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.server import caller
from cluster_gateway_core.server.caller import CallerResolver
from cluster_gateway_core.settings import ServingSettings
from clustergateway.access.v1 import user_info_pb2

if TYPE_CHECKING:
    from pathlib import Path

FACADE_CA = make_identity("facade-ca")
HUB_CA = make_identity("hub-ca")
NAME = "cluster-gateway-facade"
FACADE = make_identity(NAME, issuer=FACADE_CA)
ALICE = make_identity("alice", issuer=HUB_CA, organizations=("dev", "ops"))
BOB = UserInfo(username="bob")
ASSERTED = user_info_pb2.UserInfo(
    username="carol",
    uid="3",
    groups=["b", "a"],
    extra={"Z": user_info_pb2.ExtraValues(values=["1"]), "a": user_info_pb2.ExtraValues(values=["2", "3"])},
)
CAROL = UserInfo(username="carol", uid="3", groups=("b", "a"), extra=(("a", ("2", "3")), ("z", ("1",))))


@dataclass
class FakeContext:
    auth: dict[str, list[bytes]] = field(default_factory=lambda: {"transport_security_type": [b"insecure"]})
    address: str = "ipv4:10.0.0.9:1"
    metadata: tuple[tuple[str, str], ...] = ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.auth

    def peer(self) -> str:
        return self.address

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata


def with_certificate(identity: Identity, *chain: Identity) -> Any:
    authentication = {"transport_security_type": [b"ssl"], "x509_pem_cert": [identity.certificate_pem]}
    if chain:
        authentication["x509_pem_cert_chain"] = [b"".join(one.certificate_pem for one in chain)]
    return FakeContext(auth=authentication)


def with_token(*values: str, security: bytes = b"ssl") -> Any:
    return FakeContext(
        auth={"transport_security_type": [security]},
        metadata=tuple(("authorization", value) for value in values),
    )


def on_socket() -> Any:
    return FakeContext(address="unix:/run/core.sock")


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "facade-ca.crt"
    path.write_bytes(FACADE_CA.certificate_pem)
    return path


@pytest.fixture
def resolver(ca_file: Path) -> CallerResolver:
    return CallerResolver(
        ServingSettings(facade_ca_file=str(ca_file)),
        trust=lambda: TrustAnchors(client_ca_pem=HUB_CA.certificate_pem),
        tokens=FakeTokens({"good": BOB}),
    )


@pytest.mark.parametrize("context", [on_socket(), with_certificate(FACADE)])
async def test_a_facade_asks_for_others_and_must_name_them(resolver: CallerResolver, context: Any) -> None:
    assert resolver.is_facade(context)
    resolver.require_facade(context)
    assert await resolver.resolve(context, ASSERTED) == CAROL
    for nobody in (None, user_info_pb2.UserInfo()):
        with pytest.raises(UnauthenticatedError):
            await resolver.resolve(context, nobody)


@pytest.mark.parametrize(
    "identity",
    [
        make_identity(NAME, issuer=HUB_CA),
        make_identity(NAME, issuer=make_identity("facade-ca")),
        make_identity("other", issuer=FACADE_CA),
        make_identity(NAME, issuer=FACADE_CA, expired=True),
        make_identity(NAME, issuer=FACADE_CA, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        make_identity(NAME),
    ],
    ids=["hub's CA", "CA of the same name", "other name", "expired", "server only", "self-signed"],
)
async def test_the_name_alone_makes_no_facade(resolver: CallerResolver, identity: Identity) -> None:
    """X5-3, X5-4, X5-6, X5-7."""
    context = with_certificate(identity)
    assert not resolver.is_facade(context)
    with pytest.raises(AccessDeniedError, match="only facades"):
        resolver.require_facade(context)
    with pytest.raises((AccessDeniedError, UnauthenticatedError)):
        await resolver.resolve(context, ASSERTED)


async def test_a_certificate_of_the_hubs_client_ca_is_its_user(resolver: CallerResolver) -> None:
    """X5-5."""
    user = UserInfo(username="alice", groups=("dev", "ops", "system:authenticated"))
    assert await resolver.resolve(with_certificate(ALICE), None) == user
    with pytest.raises(AccessDeniedError, match="may not ask for another"):
        await resolver.resolve(with_certificate(ALICE), ASSERTED)


@pytest.mark.parametrize(
    "identity",
    [
        make_identity("alice", issuer=make_identity("hub-ca")),
        make_identity("alice", issuer=HUB_CA, expired=True),
        make_identity("alice", issuer=HUB_CA, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        make_identity("alice", issuer=FACADE_CA),
    ],
)
async def test_any_other_certificate_is_nobodys(resolver: CallerResolver, identity: Identity) -> None:
    """X5-3, X5-4, X5-7."""
    with pytest.raises(UnauthenticatedError):
        await resolver.resolve(with_certificate(identity), None)


INTERMEDIATE = make_identity("issuing", issuer=FACADE_CA, authority=True)
HUB_INTERMEDIATE = make_identity("issuing", issuer=HUB_CA, authority=True)


async def test_a_certificate_by_an_intermediate_is_believed_as_its_root(resolver: CallerResolver) -> None:
    """X5-8."""
    facade = with_certificate(make_identity(NAME, issuer=INTERMEDIATE), INTERMEDIATE)
    assert resolver.is_facade(facade)
    assert await resolver.resolve(facade, ASSERTED) == CAROL
    user = await resolver.resolve(
        with_certificate(make_identity("dora", issuer=HUB_INTERMEDIATE), HUB_INTERMEDIATE), None
    )
    assert user.username == "dora"
    assert not resolver.is_facade(with_certificate(make_identity(NAME, issuer=HUB_INTERMEDIATE), HUB_INTERMEDIATE))


@pytest.mark.parametrize(
    ("issuer", "chain"),
    [
        (INTERMEDIATE, ()),
        (INTERMEDIATE, (HUB_INTERMEDIATE,)),
        (old := make_identity("issuing", issuer=FACADE_CA, authority=True, expired=True), (old,)),
        (leaf := make_identity(NAME, issuer=FACADE_CA), (leaf,)),
        (
            servers := make_identity(
                "issuing", issuer=FACADE_CA, authority=True, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)
            ),
            (servers,),
        ),
    ],
    ids=["not sent", "another's of the same name", "expired", "no authority", "for servers only"],
)
async def test_an_intermediate_that_is_missing_or_unfit_proves_nothing(
    resolver: CallerResolver, issuer: Identity, chain: tuple[Identity, ...]
) -> None:
    """X5-8."""
    assert not resolver.is_facade(with_certificate(make_identity(NAME, issuer=issuer), *chain))


async def test_an_intermediate_that_expires_ends_what_it_vouched_for(ca_file: Path) -> None:
    """X5-8."""
    now = [time.time()]
    short = make_identity("issuing", issuer=FACADE_CA, authority=True, days=1)
    resolver = CallerResolver(
        ServingSettings(facade_ca_file=str(ca_file)),
        trust=TrustAnchors,
        tokens=FakeTokens(),
        wall_clock=lambda: now[0],
    )
    context = with_certificate(make_identity(NAME, issuer=short), short)
    assert resolver.is_facade(context)
    now[0] += 2 * 86_400
    assert not resolver.is_facade(context)


async def test_a_certificate_ends_on_an_open_connection(ca_file: Path) -> None:
    now = [time.time()]
    resolver = CallerResolver(
        ServingSettings(facade_ca_file=str(ca_file)),
        trust=TrustAnchors,
        tokens=FakeTokens(),
        wall_clock=lambda: now[0],
    )
    assert resolver.is_facade(with_certificate(FACADE))
    now[0] += 30 * 86_400
    assert not resolver.is_facade(with_certificate(FACADE))


async def test_a_bearer_token_is_reviewed(resolver: CallerResolver) -> None:
    assert await resolver.resolve(with_token("Bearer good"), None) == BOB
    assert await resolver.resolve(with_token("Basic x", "bearer good "), None) == BOB
    with pytest.raises(AccessDeniedError):
        await resolver.resolve(with_token("Bearer good"), ASSERTED)


@pytest.mark.parametrize(
    "context",
    [
        with_token("Bearer bad"),
        with_token("good"),
        with_token("Bearer "),
        with_token(),
        with_token("Bearer good", security=b"insecure"),
        FakeContext(),
        FakeContext(auth={}),
        FakeContext(auth={"transport_security_type": [b"ssl"], "x509_pem_cert": [b"garbage"]}, address="unix:/x"),
    ],
)
async def test_everybody_else_is_unauthenticated(resolver: CallerResolver, context: Any) -> None:
    """X5-1, X5-2."""
    with pytest.raises(UnauthenticatedError) as caught:
        await resolver.resolve(context, None)
    assert "good" not in str(caught.value)
    assert not resolver.is_facade(context)


def test_a_rotated_facade_ca_counts_and_a_broken_one_does_not(
    resolver: CallerResolver, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "_FILE_CHECK_SECONDS", 0.0)
    assert resolver.is_facade(with_certificate(FACADE))
    ca_file.write_text("garbage")
    os.utime(ca_file, (1, 1))
    assert resolver.is_facade(with_certificate(FACADE))
    new_ca = make_identity("new")
    ca_file.write_bytes(new_ca.certificate_pem)
    os.utime(ca_file, (2, 2))
    assert not resolver.is_facade(with_certificate(FACADE))
    assert resolver.is_facade(with_certificate(make_identity(NAME, issuer=new_ca)))


def test_remembered_certificates_are_bounded(resolver: CallerResolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "_CAPACITY", 2)
    for identity in (FACADE, ALICE, make_identity("x"), FACADE):
        resolver.is_facade(with_certificate(identity))
    assert len(resolver._peers) == 2
    assert resolver.is_facade(with_certificate(FACADE))
