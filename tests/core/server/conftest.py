from __future__ import annotations

import pytest
from tests.support.core_server import CoreServices, FakeTokens

from cluster_gateway_core.model.trust import TrustAnchors
from cluster_gateway_core.registry.store import ClusterRegistry
from cluster_gateway_core.server.caller import CallerResolver
from cluster_gateway_core.settings import ServingSettings


@pytest.fixture
def services() -> CoreServices:
    tokens = FakeTokens()
    callers = CallerResolver(ServingSettings(), trust=TrustAnchors, tokens=tokens)
    registry = ClusterRegistry()
    registry.replace([])
    return CoreServices(registry=registry, callers=callers, tokens=tokens)
