from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.fake_hub import FakeHub

from cluster_gateway_core.hub.client import HubClient, open_hub_clients
from cluster_gateway_core.settings import HubSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as fake:
        yield fake


@pytest.fixture
async def client(hub: FakeHub, tmp_path: Path) -> AsyncIterator[HubClient]:
    settings = HubSettings(kubeconfig=hub.write_kubeconfig(tmp_path), request_timeout_seconds=5)
    async with open_hub_clients(settings) as clients:
        yield clients.registry
