"""Putting a core together, and taking it apart in good order."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cluster_gateway_core.errors import GatewayError
from cluster_gateway_core.hub.access_review import AccessReviewer
from cluster_gateway_core.hub.client import open_hub_clients
from cluster_gateway_core.hub.cluster_secrets import ClusterSecrets
from cluster_gateway_core.hub.condition import FaultReport
from cluster_gateway_core.hub.health_store import HealthStore
from cluster_gateway_core.hub.token_review import TokenReviewer
from cluster_gateway_core.hub.trust import TrustStore
from cluster_gateway_core.identity.external import ExternalExchanger
from cluster_gateway_core.identity.passing import IdentityPassing
from cluster_gateway_core.identity.rules_file import IdentityRulesFile
from cluster_gateway_core.model.condition import Condition
from cluster_gateway_core.registry.store import ClusterRegistry
from cluster_gateway_core.server.access_servicer import AccessServicer
from cluster_gateway_core.server.caller import CallerResolver
from cluster_gateway_core.server.drain import Drain
from cluster_gateway_core.server.endpoints import add_endpoints, server_options, serving_fault
from cluster_gateway_core.server.open_servicers import HealthServicer, add_reflection
from cluster_gateway_core.server.reauthorization import Reauthorization
from cluster_gateway_core.server.registry_servicer import RegistryServicer
from cluster_gateway_core.server.routing_servicer import RoutingServicer
from cluster_gateway_core.server.stream_limit import StreamLimit
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from cluster_gateway_core.upstream.guard import Guard
from clustergateway.access.v1 import access_service_pb2, access_service_pb2_grpc
from clustergateway.registry.v1 import registry_service_pb2, registry_service_pb2_grpc
from clustergateway.routing.v1 import routing_service_pb2, routing_service_pb2_grpc

if TYPE_CHECKING:
    from cluster_gateway_core.hub.client import HubClients
    from cluster_gateway_core.settings import CoreSettings

_log = logging.getLogger(__name__)

ROUTING_SERVICE: Final = routing_service_pb2.DESCRIPTOR.services_by_name["RoutingService"].full_name
_SERVICES: Final = (
    ROUTING_SERVICE,
    registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"].full_name,
    access_service_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)
_HOUSEKEEPING_SECONDS: Final = 0.5
_CERTIFICATE_CHECK_SECONDS: Final = 5.0
_FINISH_SECONDS: Final = 1.0
"""How long gRPC may take to send what is written after the last exchange ended or was cut."""


def run_core(settings: CoreSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status of the process."""
    _raise_descriptor_limit()
    try:
        uvloop.run(_serve_until_signalled(settings))
    except (GatewayError, OSError, RuntimeError) as error:
        hint = error.hint if isinstance(error, GatewayError) else ""
        _log.error("the core cannot run: %s%s", error, f" {hint}" if hint else "")
        return 1
    return 0


def _raise_descriptor_limit() -> None:
    """Allow as many open files as may be had: a watch takes two, and the usual limit is 1024, for old programs' sake.

    Source: Go's runtime does the same, os/rlimit.go.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve_until_signalled(settings: CoreSettings) -> None:
    stopping, hurrying = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def notice() -> None:
        (hurrying if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, notice)
    await serve_core(settings, stopping, hurrying)


async def serve_core(settings: CoreSettings, stopping: asyncio.Event, hurrying: asyncio.Event) -> None:
    """Serve until `stopping` is set, then drain, and cut what is open when `hurrying` is set as well.

    Raises:
        GatewayError: The hub's kubeconfig or service account cannot be used.
        OSError: A certificate file cannot be read.
        RuntimeError: An address cannot be bound, or the identity rules cannot be used.
    """
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(open_hub_clients(settings.hub))
        core = _Core(settings, hub)
        await stack.enter_async_context(core.reviewer)
        await stack.enter_async_context(core.tokens)
        await stack.enter_async_context(core.exchanger)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(core.secrets.run(), name="cluster secrets"),
                group.create_task(core.trust.run(), name="trust anchors"),
                group.create_task(core.reauthorization.run(), name="reauthorization"),
                group.create_task(core.identity_rules.run(), name="identity rules"),
                group.create_task(core.keep_house(), name="housekeeping"),
            ]
            try:
                await core.serve(stopping, hurrying)
            finally:
                for task in background:
                    task.cancel()


class _Core:
    """The parts of a core and how they are joined."""

    def __init__(self, settings: CoreSettings, hub: HubClients) -> None:
        self._settings = settings
        self._hub = hub
        timeout = settings.hub.request_timeout_seconds
        self.registry = ClusterRegistry()
        self.secrets = ClusterSecrets(hub.registry, settings.hub, self.registry)
        self.trust = TrustStore(hub.authentication)
        self.reviewer = AccessReviewer(hub.authorization, settings.reviews, timeout_seconds=timeout)
        self.tokens = TokenReviewer(hub.authentication, settings.reviews, timeout_seconds=timeout)
        self.reauthorization = Reauthorization(settings.reviews)
        self.identity_rules = IdentityRulesFile(settings.identity.rules_file)
        self.exchanger = ExternalExchanger(settings.identity, settings.upstream)
        self._drain = Drain()
        self._guard = Guard(settings.limits)
        self._directory = UpstreamDirectory(self.registry, settings.upstream)
        self.registry.subscribe(self._directory.registration_changed)
        self._callers = CallerResolver(settings.serving, trust=lambda: self.trust.current, tokens=self.tokens)
        self._health = HealthServicer(self._callers, StreamLimit(settings.serving.watches_per_client))
        self._health_store = HealthStore(hub.registry, settings.hub)
        self._certificate_faults = FaultReport(_log, "the serving certificates")
        self._certificates_due = 0.0

    def conditions(self) -> list[Condition]:
        """What must be well for this core to serve."""
        return [
            self.secrets.condition(),
            self.trust.condition(),
            self.reviewer.condition(),
            self.tokens.condition(),
            self._hub.condition(),
            Condition(name="serving-certificate", ready=True, detail=self._certificate_faults.text),
            self.identity_rules.condition(),
        ]

    async def serve(self, stopping: asyncio.Event, hurrying: asyncio.Event) -> None:
        server = self._make_server()
        addresses = add_endpoints(server, self._settings.serving, lambda: self.trust.current)
        self._health.set(ROUTING_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        _log.info("core serving on %s", ", ".join(addresses))
        try:
            await stopping.wait()
        finally:
            await self._stop(server, hurrying)

    async def keep_house(self) -> None:
        """Report readiness to gRPC's health service, and close connections that have been unused too long."""
        while True:
            ready = all(condition.ready for condition in self.conditions()) and not self._drain.draining
            status = health_pb2.HealthCheckResponse
            self._health.set("", status.SERVING if ready else status.NOT_SERVING)
            self._directory.expire()
            self._look_at_certificates()
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)

    def _look_at_certificates(self) -> None:
        """Tell of broken files before the next handshake meets them."""
        now = asyncio.get_running_loop().time()
        if now < self._certificates_due:
            return
        self._certificates_due = now + _CERTIFICATE_CHECK_SECONDS
        fault = serving_fault(self._settings.serving)
        if fault:
            self._certificate_faults.report(f"{fault}; the last good ones stay in force")
        else:
            self._certificate_faults.clear()

    def _make_server(self) -> grpc.aio.Server:
        serving = self._settings.serving
        server = grpc.aio.server(options=server_options(serving), maximum_concurrent_rpcs=serving.maximum_calls)
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(
            RoutingServicer(
                callers=self._callers,
                authorizer=self.reviewer,
                reauthorization=self.reauthorization,
                guard=self._guard,
                passing=IdentityPassing(
                    always=self._settings.identity.always, rules=self.identity_rules, exchanger=self.exchanger
                ),
                directory=self._directory,
                drain=self._drain,
                settings=serving,
            ),
            server,
        )
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
            RegistryServicer(
                self.registry,
                callers=self._callers,
                authorizer=self.reviewer,
                reauthorization=self.reauthorization,
                health=self._health_store,
                watches=StreamLimit(serving.watches_per_client),
            ),
            server,
        )
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(
            AccessServicer(
                callers=self._callers,
                trust=self.trust,
                tokens=self.tokens,
                reviewer=self.reviewer,
                conditions=self.conditions,
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection(server, _SERVICES, StreamLimit(serving.watches_per_client))
        return server

    async def _stop(self, server: grpc.aio.Server, hurrying: asyncio.Event) -> None:
        """Send balancers elsewhere, then refuse new work, let open exchanges finish in the grace time, cut the rest."""
        serving = self._settings.serving
        self._health.enter_graceful_shutdown()
        await _pause(serving.shutdown_delay_seconds, hurrying)
        self._drain.begin()
        _log.info("core draining %d exchanges for at most %g s", self._drain.active, serving.grace_seconds)
        async with asyncio.TaskGroup() as group:
            helpers = (
                group.create_task(self._give_up_when(hurrying), name="second signal"),
                group.create_task(self._drain.end_watches(serving.grace_seconds / 2), name="ending watches"),
            )
            if not await self._drain.wait_idle(serving.grace_seconds):
                _log.warning("cutting %d exchanges that are still open", self._drain.active)
            for helper in helpers:
                helper.cancel()
        self._directory.close()
        await server.stop(_FINISH_SECONDS)

    async def _give_up_when(self, hurrying: asyncio.Event) -> None:
        await hurrying.wait()
        self._drain.give_up()


async def _pause(seconds: float, hurrying: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurrying.wait()
