"""What a changed registration does to connections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.support.scripted_cluster import Hold, Receive, ScriptedCluster, Send
from tests.support.upstreams import fetch, make_cluster, make_request, make_settings, read_rest

from cluster_gateway_core.errors import (
    ClusterMisconfiguredError,
    ClusterNotFoundError,
    ResponseTruncatedError,
)
from cluster_gateway_core.model.cluster import Cluster, Credential, CredentialType, Endpoint, EndpointType
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from cluster_gateway_core.upstream.exchange import UpstreamExchange
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_END = b"\r\n\r\n"
_OK = (Receive(_END), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))


class Registry:
    """A registry that tells of changes, or is asked first."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster: Cluster | None = cluster

    def get(self, name: str) -> Cluster:
        if self.cluster is None or self.cluster.name != name:
            raise ClusterNotFoundError(name)
        return self.cluster


@pytest.fixture
async def server() -> AsyncIterator[ScriptedCluster]:
    async with ScriptedCluster((*_OK, *_OK, Hold()), (*_OK, *_OK, Hold())) as server:
        yield server


@pytest.fixture
def registry(server: ScriptedCluster) -> Registry:
    return Registry(make_cluster(server.address))


@pytest.fixture
async def directory(registry: Registry, server: ScriptedCluster) -> AsyncIterator[UpstreamDirectory]:
    directory = UpstreamDirectory(registry, make_settings())
    yield directory
    directory.close()
    await server.wait_all_ended()


def change(registry: Registry, directory: UpstreamDirectory, new: Cluster | None, *, told: bool = True) -> None:
    old, registry.cluster = registry.cluster, new
    if told:
        directory.registration_changed("managed1", old, new)


@pytest.mark.parametrize("told", [True, False])
async def test_changed_labels_keep_the_connections(
    registry: Registry,
    directory: UpstreamDirectory,
    server: ScriptedCluster,
    told: bool,  # noqa: FBT001
) -> None:
    await fetch(directory.resolve("managed1"))
    assert registry.cluster is not None
    new = replace(registry.cluster, labels={"a": "b"}, resource_version="2")
    change(registry, directory, new, told=told)

    upstream = directory.resolve("managed1")
    await fetch(upstream)

    assert upstream.cluster is new
    assert len(server.connections) == 1


@pytest.mark.parametrize("told", [True, False])
async def test_changed_credential_closes_unused_connections_and_ends_no_exchange(
    registry: Registry,
    directory: UpstreamDirectory,
    server: ScriptedCluster,
    told: bool,  # noqa: FBT001
) -> None:
    old = directory.resolve("managed1")
    await fetch(old)
    async with UpstreamExchange(old, make_request(), []) as running:
        change(registry, directory, make_cluster(server.address, token="another"), told=told)
        await fetch(directory.resolve("managed1"))
        await running.response_head(limited=True)
        assert await read_rest(running) == b"ok"

    await server.connections[0].wait_ended()
    assert b"Bearer another" in server.connections[1].received
    assert b"Bearer another" not in server.connections[0].received


async def test_deletion_cuts_running_exchanges(
    registry: Registry, directory: UpstreamDirectory, server: ScriptedCluster
) -> None:
    server.script()
    upstream = directory.resolve("managed1")
    async with UpstreamExchange(upstream, make_request(), []) as running:
        await (await server.connection(0)).wait_for_bytes(_END)
        change(registry, directory, None)
        with pytest.raises(ResponseTruncatedError, match="registration has changed"):  # noqa: PT012 - either
            await running.response_head(limited=True)
            await read_rest(running)

    await server.connections[0].wait_ended()
    with pytest.raises(ClusterNotFoundError):
        directory.resolve("managed1")


async def test_change_of_an_unused_cluster_is_no_matter(registry: Registry, directory: UpstreamDirectory) -> None:
    change(registry, directory, None)

    directory.registration_changed("other", None, None)


async def test_unused_connections_expire(registry: Registry, server: ScriptedCluster) -> None:
    directory = UpstreamDirectory(registry, make_settings(idle_seconds=0))
    await fetch(directory.resolve("managed1"))

    directory.expire()

    await server.connections[0].wait_ended()
    directory.close()


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(name="c", fault="no endpoint"),
        Cluster(name="c"),
        Cluster(name="c", endpoint=Endpoint(type=EndpointType.CLUSTER_PROXY)),
        make_cluster("https://host:99999", name="c"),
        make_cluster("https://h\xe9st/p\xe4th", name="c"),
        make_cluster("https://host", name="c", token="s3cr\xe9t"),
        make_cluster("https://host", name="c", token="s3cret\r\nX-Evil: 1"),
    ],
    ids=["fault", "empty", "tunnel", "port", "path", "token", "line break in the token"],
)
def test_registration_that_cannot_be_used_is_told_without_its_secret(cluster: Cluster) -> None:
    with pytest.raises(ClusterMisconfiguredError, match="cluster c ") as caught:
        Upstream(cluster, UpstreamContext(make_settings()))

    assert "s3cr" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cr" not in repr(vars(caught.value.__cause__))


def test_representation_holds_no_secret() -> None:
    upstream = Upstream(make_cluster("http://host"), UpstreamContext(make_settings()))

    assert "s3cret" not in repr(upstream)
    assert "s3cret" not in repr(Credential(type=CredentialType.SERVICE_ACCOUNT_TOKEN, token="s3cret"))


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://host", b"host"),
        ("https://host:443", b"host"),
        ("https://host:6443/", b"host:6443"),
        ("http://host:80", b"host"),
        ("http://host:443", b"host:443"),
        ("https://[fd00::1]:6443", b"[fd00::1]:6443"),
        ("https://[fd00::1]", b"[fd00::1]"),
    ],
)
def test_host_is_the_endpoints_authority(address: str, host: bytes) -> None:
    own = Upstream(make_cluster(address), UpstreamContext(make_settings())).own_headers

    assert own == b"Host: " + host + b"\r\nAuthorization: Bearer s3cret\r\n"
