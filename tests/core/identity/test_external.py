"""Asking services whom a cluster is to see, over real TLS."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.hub_certificates import make_identity
from tests.support.scripted_cluster import Close, Hold, Receive, ScriptedCluster, Send, serving_context
from tests.support.upstreams import AUTHORITY

from cluster_gateway_core.errors import AccessDeniedError, IdentityExchangeFailedError
from cluster_gateway_core.identity.external import ExternalExchanger
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_core.settings import IdentitySettings, UpstreamSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from tests.support.scripted_cluster import Step

_ALICE = UserInfo(username="alice", groups=("dev",))
_BOB = UserInfo(username="bob", groups=("x",))
_SERVICE = make_identity("service", issuer=AUTHORITY, usages=(), hosts=("localhost",))


def review(status: Any) -> bytes:
    return json.dumps(
        {"apiVersion": "cluster.core.oam.dev/v1alpha1", "kind": "ClientIdentityReview", "status": status}
    ).encode()


def respond(body: bytes, status: bytes = b"200 OK") -> Sequence[Step]:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return (Receive(b'"spec"'), Send(head + body), Hold())


_YES = respond(review({"allowed": True, "user": {"username": "bob", "groups": ["x"]}}))


@pytest.fixture
async def service() -> AsyncIterator[ScriptedCluster]:
    async with ScriptedCluster(tls=serving_context(_SERVICE)) as service:
        yield service


@pytest.fixture
def url(service: ScriptedCluster) -> str:
    return f"https://localhost:{service.port}/who?realm=1"


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., IdentitySettings]:
    path = tmp_path / "ca.crt"
    path.write_bytes(AUTHORITY.certificate_pem)

    def make(**changes: Any) -> IdentitySettings:
        return IdentitySettings(**{"exchanger_ca_file": str(path), "exchanger_timeout_seconds": 20.0} | changes)

    return make


@pytest.fixture
async def exchanger(settings: Callable[..., IdentitySettings]) -> AsyncIterator[ExternalExchanger]:
    async with ExternalExchanger(settings(), UpstreamSettings()) as exchanger:
        yield exchanger


async def ask(exchanger: ExternalExchanger, url: str, user: UserInfo = _ALICE) -> UserInfo:
    return await exchanger.exchange(url, user, rule_name="ext", cluster_name="c1")


async def test_the_service_hears_who_asks_and_names_whom_the_cluster_sees(
    service: ScriptedCluster, exchanger: ExternalExchanger, url: str
) -> None:
    service.script(_YES)
    assert await ask(exchanger, url) == _BOB
    head, _, body = bytes(service.connections[0].received).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /who?realm=1 HTTP/1.1\r\nHost: localhost:")
    assert b"Authorization" not in head
    spec = json.loads(body)["spec"]
    assert (spec["cluster"], spec["rule"], spec["user"]["username"]) == ("c1", "ext", "alice")
    await service.connections[0].wait_ended()


async def test_an_answer_is_believed_for_its_time_and_for_its_question_only(
    service: ScriptedCluster, settings: Callable[..., IdentitySettings], url: str
) -> None:
    now = 0.0
    async with ExternalExchanger(
        settings(exchanger_ttl_seconds=10.0), UpstreamSettings(), clock=lambda: now
    ) as exchanger:
        service.script(_YES, _YES, _YES)
        for _ in range(3):
            assert await ask(exchanger, url) == _BOB
        assert len(service.connections) == 1
        await ask(exchanger, url, UserInfo(username="alice"))
        assert len(service.connections) == 2
        now = 10.0
        await ask(exchanger, url)
        assert len(service.connections) == 3


async def test_equal_questions_are_asked_once(service: ScriptedCluster, exchanger: ExternalExchanger, url: str) -> None:
    service.script(_YES)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(exchanger, url), name=f"ask {number}") for number in range(20)]
    assert {task.result() for task in asking} == {_BOB}
    assert len(service.connections) == 1


async def test_a_caller_who_leaves_does_not_take_the_others_answer_away(
    service: ScriptedCluster, exchanger: ExternalExchanger, url: str
) -> None:
    go = asyncio.Event()
    service.script((Receive(b'"spec"'), Hold(go), *_YES[1:]))
    loop = asyncio.get_running_loop()
    leaving, staying = (loop.create_task(ask(exchanger, url), name=name) for name in ("leaving", "staying"))
    await service.connection(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    go.set()
    assert await staying == _BOB


async def test_a_no_is_a_denial_and_is_believed_too(
    service: ScriptedCluster, exchanger: ExternalExchanger, url: str
) -> None:
    service.script(respond(review({"allowed": False})))
    for _ in range(2):
        with pytest.raises(AccessDeniedError, match="does not let this caller through to cluster c1"):
            await ask(exchanger, url)
    assert len(service.connections) == 1


@pytest.mark.parametrize(
    "script",
    [
        respond(review({"allowed": True, "user": {"username": ""}})),
        respond(review({"allowed": True, "user": {"username": "bob"}}), b"201 Created"),
        respond(b"no", b"500 Internal Server Error"),
        (Receive(), Send(b"HTTP/1.1 302 Found\r\nLocation: https://canary.example/\r\nContent-Length: 0\r\n\r\n")),
        (Receive(), Send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")),
        respond(b"canary"),
        respond(b" " * 300_000 + review({"allowed": True, "user": {"username": "bob"}})),
        (Receive(), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), Close()),
        (Receive(), Close()),
        (Send(b"canary\r\n\r\n"),),
    ],
    ids=["nobody", "201", "500", "redirect", "switch", "no JSON", "endless", "cut", "silent", "no HTTP"],
)
async def test_anything_but_an_answer_fails_and_is_asked_anew(
    service: ScriptedCluster, exchanger: ExternalExchanger, url: str, script: Sequence[Step]
) -> None:
    service.script(script)
    with pytest.raises(IdentityExchangeFailedError, match='rule "ext": its service did not say') as failed:
        await ask(exchanger, url)
    assert failed.value.cluster_name == "c1"
    assert "canary" not in str(failed.value) + failed.value.hint
    assert "localhost" not in str(failed.value) + failed.value.hint
    service.script(_YES)
    assert await ask(exchanger, url) == _BOB


async def test_a_service_that_does_not_answer_in_time_fails(
    service: ScriptedCluster, settings: Callable[..., IdentitySettings], url: str
) -> None:
    service.script((Hold(),))
    async with ExternalExchanger(settings(exchanger_timeout_seconds=0.2), UpstreamSettings()) as exchanger:
        with pytest.raises(IdentityExchangeFailedError):
            await ask(exchanger, url)


async def test_a_service_that_cannot_be_trusted_or_reached_is_not_asked(
    service: ScriptedCluster, settings: Callable[..., IdentitySettings], url: str, tmp_path: Path
) -> None:
    async with ExternalExchanger(settings(exchanger_ca_file=None), UpstreamSettings()) as exchanger:
        with pytest.raises(IdentityExchangeFailedError):
            await ask(exchanger, url)
    async with ExternalExchanger(settings(exchanger_ca_file=str(tmp_path / "none")), UpstreamSettings()) as exchanger:
        with pytest.raises(IdentityExchangeFailedError):
            await ask(exchanger, url)
    async with ExternalExchanger(settings(), UpstreamSettings()) as exchanger:
        for unreachable in (url.replace("localhost", "127.0.0.1"), "https://localhost:1/"):
            with pytest.raises(IdentityExchangeFailedError):
                await ask(exchanger, unreachable)
    assert service.connections == []


async def test_a_service_at_a_forbidden_address_is_not_asked(
    settings: Callable[..., IdentitySettings], service: ScriptedCluster, url: str
) -> None:
    upstream = UpstreamSettings(denied_endpoint_cidrs=("127.0.0.0/8", "::1/128"))
    async with ExternalExchanger(settings(), upstream) as exchanger:
        with pytest.raises(IdentityExchangeFailedError):
            await ask(exchanger, url)
    assert service.connections == []


async def test_leaving_ends_open_questions(
    service: ScriptedCluster, settings: Callable[..., IdentitySettings], url: str
) -> None:
    async with ExternalExchanger(settings(), UpstreamSettings()) as exchanger:
        asking = asyncio.get_running_loop().create_task(ask(exchanger, url), name="ask")
        service.script((Hold(),))
        await service.connection(0)
    with pytest.raises(asyncio.CancelledError):
        await asking
    await service.connections[0].wait_ended()
