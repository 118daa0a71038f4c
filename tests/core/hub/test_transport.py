"""Credentials and certificates towards the hub change while the core runs."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.fake_hub import Answer, FakeHub
from tests.support.hub_certificates import Identity, make_identity
from tests.support.scripted_cluster import serving_context

from cluster_gateway_core.errors import AccessDeniedError, HubUnavailableError
from cluster_gateway_core.hub import transport
from cluster_gateway_core.hub.client import HubClient, HubClients, open_hub_clients
from cluster_gateway_core.hub.transport import open_transport
from cluster_gateway_core.settings import HubSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

CA = make_identity("hub-ca")
OLD = make_identity("old", issuer=CA)
OK = Answer(body={"kind": "X"})
TOKEN = "tok-canary"


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_a_minute(self) -> None:
        self.now += 61


@dataclass(kw_only=True)
class Stage:
    """A hub over TLS that asks for certificates, a client of it, and the client's files."""

    hub: FakeHub
    client: HubClient
    clock: Clock
    folder: Path
    transport: Any

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def write_client(self, name: str) -> None:
        identity = make_identity(name, issuer=CA)
        self.write("client.key", identity.key_pem)
        self.write("client.crt", identity.certificate_pem)

    async def ask(self) -> tuple[str, str]:
        """Return the certificate name and the token that a request shows."""
        self.hub.script("LIST", OK)
        await self.client.get("/x")
        received = self.hub.of_kind("LIST")[-1]
        return received.client_name, received.headers["Authorization"].removeprefix("Bearer ")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - of closed connections nothing tells
                await asyncio.sleep(0.005)


def kubeconfig(url: str, folder: Path) -> str:
    user = {
        "client-certificate": str(folder / "client.crt"),
        "client-key": str(folder / "client.key"),
        "tokenFile": str(folder / "token"),
    }
    cluster = {"server": url, "certificate-authority": str(folder / "ca.crt"), "tls-server-name": "hub"}
    path = folder / "hub.kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "hub",
                "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "gateway"}}],
                "clusters": [{"name": "hub", "cluster": cluster}],
                "users": [{"name": "gateway", "user": user}],
            }
        )
    )
    return str(path)


def server_of(ca: Identity) -> ssl.SSLContext:
    context = serving_context(make_identity("hub", issuer=ca, usages=(), hosts=("hub",)), client_ca=CA)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with running(tmp_path) as made:
        yield made


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Stage]:
    clock = Clock()
    (folder / "ca.crt").write_bytes(CA.certificate_pem)
    (folder / "token").write_text("one")
    (folder / "client.key").write_bytes(OLD.key_pem)
    (folder / "client.crt").write_bytes(OLD.certificate_pem)
    async with (
        FakeHub(tls=server_of(CA)) as hub,
        open_transport(kubeconfig(hub.url, folder), clock=clock) as opened,
    ):
        client = HubClient(opened, timeout_seconds=5, user_agent="x")
        yield Stage(hub=hub, client=client, clock=clock, folder=folder, transport=opened)


async def test_a_token_is_read_again_after_a_minute_and_not_before(stage: Stage) -> None:
    """TOK-1."""
    assert await stage.ask() == ("old", "one")
    stage.write("token", b"two")
    stage.clock.now += 59
    assert await stage.ask() == ("old", "one")
    stage.clock.now += 2
    assert await stage.ask() == ("old", "two")


@pytest.mark.parametrize("damage", ["gone", "a folder"])
async def test_a_token_that_cannot_be_read_leaves_the_last_good_one(
    stage: Stage, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TOK-1."""
    (stage.folder / "token").unlink()
    if damage == "a folder":
        (stage.folder / "token").mkdir()
    stage.clock.pass_a_minute()
    assert await stage.ask() == ("old", "one")
    clients = HubClients(registry=stage.client, authentication=stage.client, authorization=stage.client)
    assert clients.condition().ready
    assert "last good credentials stay" in clients.condition().detail
    assert caplog.text.count("last good credentials stay") == 1
    if damage == "a folder":
        (stage.folder / "token").rmdir()
    stage.write("token", b"two")
    stage.clock.pass_a_minute()
    assert await stage.ask() == ("old", "two")
    assert clients.condition().detail == ""


async def test_the_first_reading_must_succeed(tmp_path: Path) -> None:
    """TOK-1."""
    async with running(tmp_path) as stage:
        (stage.folder / "token").unlink()
        with pytest.raises(HubUnavailableError, match="cannot be used"):
            async with open_transport(kubeconfig(stage.hub.url, stage.folder)):
                pass


async def test_many_who_ask_while_it_is_read_again_are_all_served_and_it_is_read_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOK-1."""
    readings = 0
    load = transport.load_configuration

    async def count(path: str | None) -> Any:
        nonlocal readings
        readings += 1
        await asyncio.sleep(0)
        return await load(path)

    monkeypatch.setattr(transport, "load_configuration", count)
    stage.write("token", b"two")
    stage.clock.pass_a_minute()
    answers = await asyncio.gather(*(stage.ask() for _ in range(20)))
    assert {name for name, _ in answers} == {"old"}
    assert {token for _, token in answers} <= {"one", "two"}
    assert readings == 1
    assert await stage.ask() == ("old", "two")


async def test_a_refused_credential_is_read_again_soon(stage: Stage) -> None:
    """The hub withdrew the old one as the new one was written; nobody waits for a minute then."""
    stage.clock.now += 11
    stage.hub.script("LIST", Answer(status=401))
    stage.write("token", b"two")
    with pytest.raises(AccessDeniedError):
        await stage.client.get("/x")
    assert await stage.ask() == ("old", "two")


async def test_a_new_client_certificate_makes_new_connections_and_closes_the_old(stage: Stage) -> None:
    """TOK-2."""
    assert (await stage.ask())[0] == "old"
    stage.write_client("new")
    stage.clock.pass_a_minute()
    assert (await stage.ask())[0] == "new"
    await stage.until(lambda: stage.hub.open_connections == 1)


async def test_a_new_authority_counts_for_the_next_connections(stage: Stage) -> None:
    """TOK-2."""
    await stage.ask()
    other = make_identity("other-ca")
    stage.write("ca.crt", other.certificate_pem)
    stage.clock.pass_a_minute()
    with pytest.raises(HubUnavailableError):
        await stage.ask()
    async with FakeHub(tls=server_of(other)) as moved:
        kubeconfig(moved.url, stage.folder)
        stage.clock.pass_a_minute()
        moved.script("LIST", OK)
        assert await stage.client.get("/x") == {"kind": "X"}


@pytest.mark.parametrize("name", ["ca.crt", "client.key", "client.crt", "hub.kubeconfig"])
@pytest.mark.parametrize("damage", ["gone", "empty", "junk"])
async def test_broken_files_leave_the_last_good_certificates(stage: Stage, name: str, damage: str) -> None:
    """TOK-2."""
    good = (stage.folder / name).read_bytes()
    if damage == "gone":
        (stage.folder / name).unlink()
    else:
        stage.write(name, b"" if damage == "empty" else b"junk")
    stage.clock.pass_a_minute()
    assert await stage.ask() == ("old", "one")
    assert "last good credentials stay" in stage.transport.fault
    stage.write(name, good)
    stage.write_client("new")
    stage.clock.pass_a_minute()
    assert await stage.ask() == ("new", "one")
    assert stage.transport.fault == ""


async def test_after_many_rotations_one_connection_is_left(stage: Stage) -> None:
    """TOK-3."""
    for number in range(6):
        stage.write_client(f"client-{number}")
        stage.clock.pass_a_minute()
        assert (await stage.ask())[0] == f"client-{number}"
    await stage.until(lambda: stage.hub.open_connections == 1)
    assert (await stage.ask())[0] == "client-5"
    assert stage.hub.open_connections == 1


async def test_a_request_in_progress_ends_on_the_old_connections_which_do_not_take_the_new_with_them(
    stage: Stage,
) -> None:
    """TOK-2, TOK-3."""
    held = asyncio.Event()
    stage.hub.script("POST", Answer(held=held, body={"kind": "late"}))
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(stage.client.post("/x", {}))
        await stage.hub.wait_for("POST", 1)
        stage.write_client("new")
        stage.clock.pass_a_minute()
        assert (await stage.ask())[0] == "new"
        held.set()
        assert await slow == {"kind": "late"}
    await stage.until(lambda: stage.hub.open_connections == 1)
    assert (await stage.ask())[0] == "new"


async def test_a_watch_ends_so_that_it_is_resumed_with_the_new_certificate(stage: Stage) -> None:
    """TOK-2."""
    old = stage.transport._connections
    stage.hub.script("WATCH", Answer(events=({"type": "X"},)))
    async with stage.client.watch_lines("/x", {"watch": "1"}, silence_seconds=60) as lines:
        assert await anext(lines) == b'{"type": "X"}\n'
        stage.write_client("new")
        stage.clock.pass_a_minute()
        await stage.ask()
        assert [line async for line in lines] == []
        assert not old.api.rest_client.pool_manager.closed  # it is closed by the last who uses it
    assert old.api.rest_client.pool_manager.closed


async def test_the_same_content_makes_no_new_connection(stage: Stage) -> None:
    """TOK-5."""
    await stage.ask()
    before = stage.transport._connections
    for name in ("ca.crt", "client.key", "client.crt", "hub.kubeconfig"):
        stage.write(name, (stage.folder / name).read_bytes())
    stage.write("token", b"two")
    stage.clock.pass_a_minute()
    assert await stage.ask() == ("old", "two")
    assert stage.transport._connections is before
    assert stage.hub.open_connections == 1


async def test_a_pods_account_is_read_again_likewise(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOK-1, TOK-2."""
    load = transport._config.load_incluster_config
    ca_file, token_file = str(stage.folder / "ca.crt"), str(stage.folder / "token")

    def with_files(**options: Any) -> None:
        load(token_filename=token_file, cert_filename=ca_file, **options)

    async with FakeHub(tls=serving_context(make_identity("h", issuer=CA, usages=(), hosts=("127.0.0.1",)))) as hub:
        monkeypatch.setattr(transport._config, "load_incluster_config", with_files)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", hub.url.rpartition(":")[2])
        async with open_transport(None, clock=stage.clock) as opened:
            client = HubClient(opened, timeout_seconds=5, user_agent="x")
            seen = []
            for token in ("one", "two", ""):
                stage.write("token", token.encode())
                stage.clock.pass_a_minute()
                hub.script("LIST", OK)
                await client.get("/x")
                seen.append(hub.received[-1].headers["Authorization"])
            assert seen == ["Bearer one", "Bearer two", "Bearer two"]
            assert "the pod's service account" not in opened.fault
            assert "stay in force" in opened.fault


async def test_no_credential_is_shown_by_a_fault_or_a_log(
    stage: Stage, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG, "cluster_gateway_core")
    stage.write("token", TOKEN.encode())
    stage.write("client.key", b"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n")
    stage.clock.pass_a_minute()
    await stage.ask()
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("cluster_gateway"))
    assert ours
    assert "canary" not in ours + stage.transport.fault


async def test_identities_of_two_kubeconfigs_are_renewed_each_for_itself(stage: Stage, tmp_path: Path) -> None:
    """TOK-3."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("ca.crt", "client.key", "client.crt"):
        (other / name).write_bytes((stage.folder / name).read_bytes())
    (other / "token").write_text("reviewer")
    settings = HubSettings(
        kubeconfig=kubeconfig(stage.hub.url, stage.folder),
        authorization_kubeconfig=kubeconfig(stage.hub.url, other),
    )
    async with open_hub_clients(settings) as clients:
        for client, token in ((clients.registry, "one"), (clients.authorization, "reviewer")):
            stage.hub.script("LIST", OK)
            await client.get("/x")
            assert stage.hub.received[-1].headers["Authorization"] == f"Bearer {token}"
        assert clients.condition().detail == ""
