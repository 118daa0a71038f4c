from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.core_server import CoreServices, FakeTokens
from tests.support.routing_core import serve_core
from tests.support.scripted_cluster import WAIT_SECONDS, ScriptedCluster

from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.registry.store import ClusterRegistry
from cluster_gateway_core.server.caller import CallerResolver
from cluster_gateway_core.settings import ServingSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.routing_core import RoutingCore

    from cluster_gateway_client import CoreClient


@pytest.fixture
def services() -> CoreServices:
    tokens = FakeTokens()
    callers = CallerResolver(ServingSettings(), trust=TrustAnchors, tokens=tokens)
    registry = ClusterRegistry()
    registry.replace([])
    return CoreServices(registry=registry, callers=callers, tokens=tokens)


@pytest.fixture
async def cluster() -> AsyncIterator[ScriptedCluster]:
    async with ScriptedCluster() as cluster:
        yield cluster


@pytest.fixture
async def served(cluster: ScriptedCluster) -> AsyncIterator[tuple[RoutingCore, CoreClient]]:
    """A core's RoutingService before the cluster, and a client of it."""
    async with serve_core(cluster.address) as served, asyncio.timeout(4 * WAIT_SECONDS):
        yield served


@pytest.fixture
def core(served: tuple[RoutingCore, CoreClient]) -> RoutingCore:
    return served[0]


@pytest.fixture
def client(served: tuple[RoutingCore, CoreClient]) -> CoreClient:
    return served[1]
