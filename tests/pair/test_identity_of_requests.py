"""Connections are shared, what travels on them is not: identity is a request's, and a connection is one cluster's."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.effort import effort
from tests.support.gateway_pair import gateway_pair
from tests.support.hub_certificates import make_identity
from tests.support.scripted_cluster import serving_context
from tests.support.stream_cluster import StreamCluster, stream_cluster
from tests.support.upstreams import make_cluster

from cluster_gateway_core.model.cluster import Credential, CredentialType

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.support.hub_certificates import Identity
    from tests.support.raw_client import RawClient

    from cluster_gateway_core.model.cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

_REQUESTS = effort("SHARED_REQUESTS", 1000)
"""On each event loop; the threat table asks for 10,000."""


async def tell_target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own target."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ", 2)[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))


@pytest.mark.parametrize("pipelined", [False, True], ids=["one by one", "pipelined"])
async def test_two_users_on_one_connection_are_never_mixed_up(tmp_path: Path, pipelined: bool) -> None:  # noqa: FBT001
    """Threat of part a1: each user may reach one cluster, and asks for both in random order."""
    chance = random.Random(1)  # noqa: S311 - reproducible
    asked = [(f"user-{chance.randrange(2)}", f"cluster-{chance.randrange(2)}") for _ in range(_REQUESTS)]
    async with stream_cluster(tell_target) as served:
        clusters = [make_cluster(served.secure, name=f"cluster-{number}") for number in range(2)]
        async with gateway_pair(tmp_path, *clusters) as pair, pair.facade.as_front_proxy() as client:
            pair.hub.may = lambda user, attributes: (
                user.username[-1] == attributes.name[-1] and user.groups == (user.username[-1], "system:authenticated")
            )

            async def send() -> None:
                for number, (user, cluster) in enumerate(asked):
                    await client.send(
                        f"GET {pair.path(f'/{number}', cluster)} HTTP/1.1\r\nHost: gateway\r\n"
                        f"X-Remote-User: {user}\r\nX-Remote-Group: {user[-1]}\r\n\r\n".encode()
                    )
                    if not pipelined:
                        await expect(number)

            async def expect(number: int) -> None:
                user, cluster = asked[number]
                response = await client.response()
                if user[-1] == cluster[-1]:
                    assert (response.status, response.body) == (200, b"/%d" % number)
                else:
                    assert response.status == 403
                    assert f"{user} may not get {cluster}" in response.json()["message"]

            if pipelined:
                async with asyncio.TaskGroup() as group:
                    group.create_task(send(), name="requests")
                    for number in range(_REQUESTS):
                        await expect(number)
            else:
                await send()
            # The facade asks for one request after the other, so the hub's questions are in their order.
            assert [(user.username, attributes.name) for user, attributes in pair.hub.asked] == asked


def by_server_name(contexts: dict[str, ssl.SSLContext]) -> ssl.SSLContext:
    """A context that serves each name as its own; a connection with any other ends."""
    nobody = make_identity("nobody")
    listening = serving_context(nobody, client_ca=nobody)  # OpenSSL keeps this one's demand for a certificate

    def choose(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = contexts[name or ""]

    listening.sni_callback = choose
    return listening


def make_tenant(name: str, port: int, authority: Identity, client: Identity) -> Cluster:
    """A cluster that shares its address with others and nothing else."""
    cluster = make_cluster(f"https://127.0.0.1:{port}", name=name, ca=authority, tls_server_name=f"{name}.example")
    credential = Credential(
        type=CredentialType.X509_CERTIFICATE,
        token=f"token-of-{name}",
        certificate_pem=client.certificate_pem,
        private_key_pem=client.key_pem,
    )
    object.__setattr__(cluster, "credential", credential)
    return cluster


async def test_two_clusters_on_one_address_never_share_a_connection(tmp_path: Path) -> None:
    """Threat of part a4: same host and port, other SNI, CA, certificate and token."""
    names = ("red", "blue")
    authorities = {name: make_identity(f"ca of {name}") for name in names}
    contexts = {
        f"{name}.example": serving_context(
            make_identity(name, issuer=authorities[name], usages=(), hosts=(f"{name}.example",)),
            client_ca=authorities[name],
        )
        for name in names
    }
    connections: list[set[str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen: set[str] = set()
        connections.append(seen)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            tls = writer.get_extra_info("ssl_object")
            subject = dict(entry[0] for entry in tls.getpeercert()["subject"])["commonName"]
            token = head.partition(b"Authorization: Bearer token-of-")[2].partition(b"\r\n")[0].decode()
            seen.update((subject, token))
            body = f"{subject} {token} {head.split(b' ', 2)[1].decode()}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    served = StreamCluster(serve)
    server = await asyncio.start_server(served.accept, "127.0.0.1", 0, ssl=by_server_name(contexts))
    port = server.sockets[0].getsockname()[1]
    clusters = [
        make_tenant(name, port, authorities[name], make_identity(name, issuer=authorities[name])) for name in names
    ]
    async with server, gateway_pair(tmp_path, *clusters) as pair:
        chance = random.Random(4)  # noqa: S311 - reproducible
        numbers = iter(range(_REQUESTS))

        async def ask(client: RawClient) -> None:
            for number in numbers:
                name = chance.choice(names)
                response = await client.get(pair.path(f"/{number}", name), "X-Remote-User: alice")
                assert (response.status, response.body) == (200, f"{name} {name} /{number}".encode())

        async def work() -> None:
            async with pair.facade.as_front_proxy() as client:
                await ask(client)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(work(), name=f"client {number}")
        await pair.until_idle()
        await served.stop()
    assert all(len(seen) == 1 for seen in connections), connections
    assert {name for seen in connections for name in seen} == set(names)
    assert len(connections) < _REQUESTS / 10  # they were kept and used again
