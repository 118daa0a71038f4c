"""Putting a facade together, and taking it apart in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

import uvloop

from cluster_gateway_client.channel import CoreEndpoint
from cluster_gateway_client.client import CoreClient
from cluster_gateway_facade.authn.anchors import read_trust_anchors
from cluster_gateway_facade.authn.authenticator import Authenticator
from cluster_gateway_facade.core_access import CoreAccess, TrustWatch
from cluster_gateway_facade.gateway import Gateway
from cluster_gateway_facade.handlers.probes import Check
from cluster_gateway_facade.handlers.router import Router
from cluster_gateway_facade.readiness import CoreReadiness
from cluster_gateway_facade.serving.acceptor import listen
from cluster_gateway_facade.serving.server import FacadeServer
from cluster_gateway_facade.serving.tls import ServingContext

if TYPE_CHECKING:
    from aiohttp import web

    from cluster_gateway_facade.settings import CoreSettings, FacadeSettings
    from clustergateway.access.v1.access_service_pb2 import WatchTrustResponse

_log = logging.getLogger(__name__)

_CERTIFICATE_CHECK_SECONDS: Final = 5.0
_CORE_CONDITIONS: Final = (
    "cluster-secrets",
    "trust-anchors",
    "access-reviews",
    "token-reviews",
    "hub-credentials",
    "serving-certificate",
    "identity-rules",
)


def run_facade(settings: FacadeSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status of the process."""
    try:
        uvloop.run(_serve_until_signalled(settings))
    except (OSError, ValueError, RuntimeError) as error:
        _log.error("the facade cannot run: %s", error)
        return 1
    return 0


async def _serve_until_signalled(settings: FacadeSettings) -> None:
    stopping, hurrying = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def notice() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, notice)
    await serve_facade(settings, stopping, hurrying)


async def serve_facade(settings: FacadeSettings, stopping: asyncio.Event, hurrying: asyncio.Event) -> None:
    """Serve until `stopping` is set, then drain, and cut what is open when `hurrying` is set as well.

    Raises:
        OSError: The address cannot be bound, or a certificate file cannot be read or used.
    """
    async with CoreClient(_core_endpoint(settings.core)) as core:
        facade = _Facade(settings, core)
        listener = await facade.listen()
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(facade.trust_watch.run(), name="trust anchors"),
                group.create_task(facade.readiness.run(), name="core readiness"),
                group.create_task(facade.watch_certificate(), name="serving certificate"),
            ]
            try:
                await stopping.wait()
            finally:
                await facade.stop(listener, hurrying)
                for task in background:
                    task.cancel()


class _Facade:
    """The parts of a facade and how they are joined."""

    def __init__(self, settings: FacadeSettings, core: CoreClient) -> None:
        self._settings = settings
        self._core = core
        self._stopping = False
        access = CoreAccess(core)
        self._authenticator = Authenticator(access)
        self._tls = ServingContext(settings.serving.certificate_file, settings.serving.private_key_file)
        self.readiness = CoreReadiness(core)
        self.trust_watch = TrustWatch(core, self._apply_trust)
        self._server = FacadeServer(self._handle, settings.serving)
        self._gateway = Gateway(
            core=core,
            access=access,
            authenticator=self._authenticator,
            router=Router(
                reader=access,
                release=_release(),
                readiness=self._checks(),
                always_allow_paths=settings.authorization.always_allow_paths,
            ),
            peer_certificate=self._server.peer_certificate,
        )

    async def listen(self) -> asyncio.Server:
        """Take connections from now on. Raises OSError when the address cannot be bound."""
        serving = self._settings.serving
        listener = await listen(asyncio.get_running_loop(), self._server, self._tls.listening, serving)
        addresses = ", ".join("{}:{}".format(*sock.getsockname()[:2]) for sock in listener.sockets)
        _log.info("facade serving on %s", addresses)
        return listener

    async def watch_certificate(self) -> None:
        """Take a new serving certificate over when the files change."""
        while True:
            await asyncio.sleep(_CERTIFICATE_CHECK_SECONDS)
            if self._tls.reload_if_changed():
                _log.info("a new serving certificate is in force")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._gateway.handle(request)

    def _apply_trust(self, message: WatchTrustResponse) -> None:
        """Put new trust anchors in force, for handshakes to come and for requests on open connections.

        Raises:
            ValueError: They cannot be used, and the last ones stay in force.
        """
        anchors = read_trust_anchors(message)
        front_proxy_ca = message.front_proxy.ca_pem if message.HasField("front_proxy") else b""
        if not self._tls.trust(front_proxy_ca + b"\n" + message.client_ca_pem):
            raise ValueError("a CA bundle cannot be used")
        self._authenticator.trust = anchors

    def _checks(self) -> tuple[Check, ...]:
        return (
            Check(name="shutdown", probe=lambda: "the facade is shutting down" if self._stopping else None),
            Check(
                name="trust",
                probe=lambda: self.trust_watch.fault or None,
                note=lambda: self.trust_watch.note,
            ),
            Check(name="serving-certificate", probe=lambda: None, note=lambda: self._tls.fault),
            Check(name="core", probe=self.readiness.reachable, note=lambda: self._core.fault),
            *(self._core_check(name) for name in _CORE_CONDITIONS),
        )

    def _core_check(self, name: str) -> Check:
        return Check(
            name=f"core-{name}",
            probe=lambda: self.readiness.condition(name),
            note=lambda: self.readiness.note(name),
        )

    async def stop(self, listener: asyncio.Server, hurrying: asyncio.Event) -> None:
        """Turn readiness red, keep serving for the delay, then take no new connections and drain the open ones.

        `hurrying` cuts what is open, whenever it is set.
        """
        serving = self._settings.serving
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(serving.shutdown_delay_seconds):
                await hurrying.wait()
        listener.close()
        _log.info("facade draining for at most %g s", serving.grace_seconds)
        await self._server.drain(serving.grace_seconds, hurrying)
        await listener.wait_closed()


def _core_endpoint(settings: CoreSettings) -> CoreEndpoint:
    return CoreEndpoint(
        target=settings.target,
        ca_file=settings.ca_file,
        certificate_file=settings.certificate_file,
        private_key_file=settings.private_key_file,
        server_name=settings.server_name,
    )


def _release() -> str:
    try:
        return version("cluster-gateway")
    except PackageNotFoundError:
        return "0.0.0"
