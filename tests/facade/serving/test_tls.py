"""Trust and certificates change for the handshakes to come, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.hub_certificates import make_identity
from tests.support.running_facade import client_tls, make_hub_identities, write_pair

from cluster_gateway_facade.serving.tls import ServingContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.hub_certificates import Identity
    from tests.support.running_facade import HubIdentities

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]


@pytest.fixture(scope="module")
def identities() -> HubIdentities:
    return make_hub_identities()


@pytest.fixture
def context(identities: HubIdentities, tmp_path: Path) -> ServingContext:
    return ServingContext(*write_pair(identities.serving, tmp_path, "serving"))


class Handshaker:
    """Makes handshakes with a serving context over loopback."""

    def __init__(self, serving: ServingContext, port: int) -> None:
        self.serving = serving
        self._port = port

    async def shake(self, tls: ssl.SSLContext, name: str | None = None) -> tuple[str, bytes]:
        """Return the client certificate's common name as the server saw it, and the server's certificate."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=tls, server_hostname=name or "")
        try:
            async with asyncio.timeout(10):
                seen = await reader.readline()
            if not seen:
                raise ConnectionResetError
            server = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return seen.decode().strip(), server
        finally:
            writer.transport.abort()

    async def resume(self, tls: ssl.SSLContext, session: Any) -> tuple[Any, bool]:
        """Make a handshake with a session to resume; returns the session afterwards, and whether it was resumed.

        On a socket of its own, because an event loop's client resumes nothing.
        """

        def shake() -> tuple[Any, bool]:
            with (
                socket.create_connection(("127.0.0.1", self._port), timeout=10) as sock,
                tls.wrap_socket(sock, session=session) as secured,
            ):
                assert secured.recv(100).endswith(b"\n")
                return secured.session, bool(secured.session_reused)

        return await asyncio.get_running_loop().run_in_executor(None, shake)


def on_loop(factory: Any, serving: ServingContext, scenario: Callable[[Handshaker], Awaitable[None]]) -> None:
    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        name = dict(pair[0] for pair in shown["subject"])["commonName"] if shown else "nobody"
        writer.write(name.encode() + b"\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(tell, "127.0.0.1", 0, ssl=serving.listening)
        try:
            await scenario(Handshaker(serving, server.sockets[0].getsockname()[1]))
        finally:
            server.close()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())


REFUSED = (ssl.SSLError, ConnectionError)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_swapped_trust_is_in_force_for_new_handshakes_with_and_without_sni(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, factory: Any
) -> None:
    async def scenario(server: Handshaker) -> None:
        old = client_tls(identities.serving_ca, identities.front_proxy, tmp_path)
        new = client_tls(identities.serving_ca, identities.user, tmp_path)
        assert server.serving.trust(identities.front_proxy_ca.certificate_pem)
        for name in (None, "gateway"):
            assert (await server.shake(old, name))[0] == "front-proxy-client"
            with pytest.raises(REFUSED):
                await server.shake(new, name)
        assert server.serving.trust(identities.client_ca.certificate_pem)
        for name in (None, "gateway"):
            assert (await server.shake(new, name))[0] == "bob"
            with pytest.raises(REFUSED):
                await server.shake(old, name)

    on_loop(factory, context, scenario)


@pytest.mark.parametrize("factory", LOOPS)
def test_clients_without_certificate_are_served(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, factory: Any
) -> None:
    async def scenario(server: Handshaker) -> None:
        server.serving.trust(identities.client_ca.certificate_pem)
        assert (await server.shake(client_tls(identities.serving_ca, None, tmp_path)))[0] == "nobody"

    on_loop(factory, context, scenario)


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("kind", ["expired", "server-only", "stranger", "self-signed"])
def test_a_certificate_that_does_not_verify_ends_the_handshake_x5_3_x5_4_x5_7(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, factory: Any, kind: str
) -> None:
    issuer = identities.front_proxy_ca
    shown = {
        "expired": make_identity("front-proxy-client", issuer=issuer, expired=True),
        "server-only": make_identity("front-proxy-client", issuer=issuer, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        "stranger": make_identity("front-proxy-client", issuer=make_identity("front-ca")),
        "self-signed": make_identity("front-proxy-client"),
    }[kind]

    async def scenario(server: Handshaker) -> None:
        server.serving.trust(issuer.certificate_pem)
        with pytest.raises(REFUSED):
            await server.shake(client_tls(identities.serving_ca, shown, tmp_path))

    on_loop(factory, context, scenario)


@pytest.mark.parametrize(
    "broken", [b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"]
)
def test_a_broken_bundle_keeps_the_last(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, broken: bytes
) -> None:
    async def scenario(server: Handshaker) -> None:
        server.serving.trust(identities.client_ca.certificate_pem)
        assert not server.serving.trust(broken)
        assert (await server.shake(client_tls(identities.serving_ca, identities.user, tmp_path)))[0] == "bob"

    on_loop(None, context, scenario)


def renewed(identities: HubIdentities, folder: Path) -> Identity:
    fresh = make_identity(
        "gateway", issuer=identities.serving_ca, usages=(ExtendedKeyUsageOID.SERVER_AUTH,), hosts=("gateway",)
    )
    write_pair(fresh, folder, "serving")
    return fresh


@pytest.mark.parametrize("factory", LOOPS)
def test_a_new_certificate_on_disk_is_taken_over_and_trust_stays(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, factory: Any
) -> None:
    async def scenario(server: Handshaker) -> None:
        server.serving.trust(identities.client_ca.certificate_pem)
        tls = client_tls(identities.serving_ca, identities.user, tmp_path)
        _, before = await server.shake(tls)
        assert not server.serving.reload_if_changed()
        renewed(identities, tmp_path)
        assert server.serving.reload_if_changed()
        assert not server.serving.reload_if_changed()
        name, after = await server.shake(tls)
        assert name == "bob"
        assert before != after

    on_loop(factory, context, scenario)


@pytest.mark.parametrize("damage", ["junk", "other-key", "gone"])
def test_a_broken_pair_on_disk_keeps_the_last_and_a_good_one_heals_tok_2(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, damage: str
) -> None:
    key = tmp_path / "serving.key"

    async def scenario(server: Handshaker) -> None:
        tls = client_tls(identities.serving_ca, None, tmp_path)
        if damage == "gone":
            key.unlink()
        else:
            key.write_bytes(b"junk" if damage == "junk" else identities.user.key_pem)
        assert not server.serving.reload_if_changed()
        await server.shake(tls)
        renewed(identities, tmp_path)
        assert server.serving.reload_if_changed()

    on_loop(None, context, scenario)


def test_trust_that_changed_while_the_pair_was_broken_is_in_force_once_it_is_whole(
    context: ServingContext, identities: HubIdentities, tmp_path: Path
) -> None:
    async def scenario(server: Handshaker) -> None:
        good = (tmp_path / "serving.key").read_bytes()
        (tmp_path / "serving.key").write_bytes(b"junk")
        assert server.serving.trust(identities.client_ca.certificate_pem)
        (tmp_path / "serving.key").write_bytes(good)
        assert server.serving.reload_if_changed()
        assert (await server.shake(client_tls(identities.serving_ca, identities.user, tmp_path)))[0] == "bob"

    on_loop(None, context, scenario)


def test_no_ticket_is_given_and_tls_1_3_resumes_nothing(
    context: ServingContext, identities: HubIdentities, tmp_path: Path
) -> None:
    context.trust(identities.client_ca.certificate_pem)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        tls = client_tls(identities.serving_ca, identities.user, tmp_path)
        tls.maximum_version = version
        session = in_memory(tls, context.listening).session
        assert session is not None
        assert not session.has_ticket
        if version is ssl.TLSVersion.TLSv1_3:
            assert not in_memory(tls, context.listening, session).session_reused


@pytest.mark.parametrize("factory", LOOPS)
def test_a_tls_1_2_session_is_not_resumed_once_the_trust_has_changed(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, factory: Any
) -> None:
    """OpenSSL keeps sessions of TLS 1.2 by their id; a client of a withdrawn CA must not come back by one (F10)."""
    tls = client_tls(identities.serving_ca, identities.front_proxy, tmp_path)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2

    async def scenario(server: Handshaker) -> None:
        assert server.serving.trust(identities.front_proxy_ca.certificate_pem)
        session, resumed = await server.resume(tls, None)
        assert (session is not None, resumed) == (True, False)
        assert (await server.resume(tls, session))[1]  # else this proves nothing
        assert server.serving.trust(identities.client_ca.certificate_pem)
        with pytest.raises(REFUSED):
            await server.resume(tls, session)

    on_loop(factory, context, scenario)


def test_a_fault_of_the_files_is_told_until_it_is_mended(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert context.fault == ""
    (tmp_path / "serving.key").write_bytes(b"junk")
    for _ in range(3):
        context.reload_if_changed()
    assert "cannot be used" in context.fault
    assert caplog.text.count("cannot be used") == 1
    (tmp_path / "serving.key").unlink()
    context.reload_if_changed()
    assert "cannot be read" in context.fault
    renewed(identities, tmp_path)
    assert context.reload_if_changed()
    assert context.fault == ""


@pytest.mark.parametrize("factory", LOOPS)
def test_a_certificate_by_an_intermediate_is_accepted_and_an_expired_intermediate_is_not_x5_8(
    context: ServingContext, identities: HubIdentities, tmp_path: Path, factory: Any
) -> None:
    """X5-8."""
    good = make_identity("issuing", issuer=identities.client_ca, authority=True)
    old = make_identity("issuing", issuer=identities.client_ca, authority=True, expired=True)

    async def scenario(server: Handshaker) -> None:
        server.serving.trust(identities.client_ca.certificate_pem)
        user = make_identity("jane", issuer=good)
        assert (await server.shake(client_tls(identities.serving_ca, user, tmp_path, chain=(good,))))[0] == "jane"
        for chain, issuer in (((), good), ((old,), old)):
            stranger = make_identity("joe", issuer=issuer)
            with pytest.raises(REFUSED):
                await server.shake(client_tls(identities.serving_ca, stranger, tmp_path, chain=chain))
        # The intermediate itself may be what is trusted, as Go has it.
        server.serving.trust(good.certificate_pem)
        assert (await server.shake(client_tls(identities.serving_ca, user, tmp_path)))[0] == "jane"

    on_loop(factory, context, scenario)


def test_only_http_1_1_over_tls_1_2_or_newer_is_offered(
    context: ServingContext, identities: HubIdentities, tmp_path: Path
) -> None:
    tls = client_tls(identities.serving_ca, None, tmp_path)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    assert in_memory(tls, context.listening).selected_alpn_protocol() == "http/1.1"
    assert context._current.minimum_version is ssl.TLSVersion.TLSv1_2


def in_memory(client: ssl.SSLContext, server: ssl.SSLContext, session: Any = None) -> ssl.SSLObject:
    """Make a handshake without sockets; returns the client's side."""
    to_server, to_client, other_in, other_out = (ssl.MemoryBIO() for _ in range(4))
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(other_in, other_out, session=session)
    for _ in range(4):
        for side in (asking, serving):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            to_server.write(other_out.read())
            other_in.write(to_client.read())
    serving.write(b"x")
    other_in.write(to_client.read())
    assert asking.read(1) == b"x"
    return asking
