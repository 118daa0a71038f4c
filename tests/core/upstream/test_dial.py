"""Dialling: failures are told apart, and nothing stays open after one."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.support.full_backlog import full_backlog
from tests.support.hub_certificates import Identity, make_identity
from tests.support.scripted_cluster import Hold, ScriptedCluster, serving_context
from tests.support.upstreams import AUTHORITY, SERVER, make_cluster, make_settings

from cluster_gateway_core.errors import ClusterUnreachableError, GatewayError, TLSFailedError
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.dial import Destination, dial, split_address
from cluster_gateway_core.upstream.tls import make_client_context

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return LOOPS[request.param]  # type: ignore[no-any-return]


def make_destination(
    port: int, *, host: str = "127.0.0.1", name: str = "cluster.example", ca: Identity = AUTHORITY, tls: bool = True
) -> Destination:
    cluster = make_cluster(f"https://{host}:{port}", ca=ca)
    assert cluster.endpoint is not None
    context = make_client_context("managed1", cluster.endpoint, None) if tls else None
    return Destination(cluster_name="managed1", host=host, port=port, tls=context, server_name=name if tls else None)


def run_cleanly(factory: Callable[[], asyncio.AbstractEventLoop], attempt: Callable[[], object]) -> GatewayError:
    """Run an attempt that fails; any socket or transport left open becomes an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with asyncio.Runner(loop_factory=factory) as runner, pytest.raises(GatewayError) as caught:
            runner.run(attempt())  # type: ignore[arg-type]  # a coroutine function
        error = caught.value
        del caught
        gc.collect()
    return error


@pytest.mark.parametrize(
    ("name", "ca", "cause"),
    [
        ("cluster.example", make_identity("another ca"), "certificate: "),
        ("other.example", AUTHORITY, "certificate: hostname mismatch"),
        ("x" * 64 + ".example", AUTHORITY, ""),
        (".example", AUTHORITY, ""),
    ],
    ids=["UP-7 authority", "UP-8 name", "name too long", "name with a leading dot"],
)
def test_failed_handshake_is_told_and_leaves_nothing_open(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], name: str, ca: Identity, cause: str
) -> None:
    async def attempt() -> None:
        async with ScriptedCluster(tls=serving_context(SERVER)) as cluster:
            await dial(make_destination(cluster.port, name=name, ca=ca), UpstreamContext(make_settings()))

    error = run_cleanly(loop_factory, attempt)

    assert isinstance(error, TLSFailedError)
    assert cause in error.message.lower()


def test_handshake_that_hangs_is_given_up(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def attempt() -> None:
        async with ScriptedCluster() as cluster:
            try:
                await dial(make_destination(cluster.port), UpstreamContext(make_settings(tls_timeout_seconds=0.1)))
            finally:
                await (await cluster.connection(0)).wait_ended()

    assert isinstance(run_cleanly(loop_factory, attempt), TLSFailedError)


def test_cancelled_handshake_leaves_nothing_open(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def attempt() -> None:
        async with ScriptedCluster((Hold(),)) as cluster:
            task = asyncio.get_running_loop().create_task(
                dial(make_destination(cluster.port), UpstreamContext(make_settings())), name="dial"
            )
            await (await cluster.connection(0)).wait_for_bytes(b"\x16\x03\x01")
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            await cluster.connections[0].wait_ended()
        raise ClusterUnreachableError("done")

    run_cleanly(loop_factory, attempt)


def test_server_that_speaks_no_tls_is_told() -> None:
    async def attempt() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            await dial(make_destination(server.sockets[0].getsockname()[1]), UpstreamContext(make_settings()))

    assert isinstance(run_cleanly(asyncio.new_event_loop, attempt), TLSFailedError)


def test_refused_connection_is_told_as_kubevela_expects(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = run_cleanly(loop_factory, lambda: dial(make_destination(port), UpstreamContext(make_settings())))

    assert (
        error.message == f"cluster managed1 cannot be reached: dial tcp 127.0.0.1:{port}: connect: connection refused"
    )
    assert error.retry_after_seconds is not None


def test_connect_that_hangs_is_given_up(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with full_backlog() as port:
        destination = make_destination(port)
        error = run_cleanly(
            loop_factory, lambda: dial(destination, UpstreamContext(make_settings(connect_timeout_seconds=0.1)))
        )

    assert isinstance(error, ClusterUnreachableError)
    assert "dial tcp 127.0.0.1" in error.message
    assert "i/o timeout" in error.message


@pytest.mark.parametrize("host", ["cluster.invalid", "x" * 64 + ".example", "a..b"])
def test_name_without_address_is_told(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def offline(name: str, *args: object, **options: object) -> object:
        if name.endswith(".invalid") and not options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    error = run_cleanly(
        asyncio.new_event_loop,
        lambda: dial(make_destination(1, host=host, tls=False), UpstreamContext(make_settings())),
    )

    assert isinstance(error, ClusterUnreachableError)
    assert f"dial tcp: lookup {host}: " in error.message


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("https://h", ("h", 443, "")),
        ("http://h", ("h", 80, "")),
        ("https://h:6443/", ("h", 6443, "")),
        ("https://h/base/", ("h", 443, "/base")),
        ("https://[::1]:1/a/b", ("::1", 1, "/a/b")),
    ],
)
def test_address_is_split(address: str, parts: tuple[str, int, str]) -> None:
    assert split_address(address) == parts
