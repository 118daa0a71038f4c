"""A facade and a core in this process, without a hub, before one scripted cluster: the whole way of a request."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.routing_core import RoutingCore
from tests.support.running_facade import RunningFacade, running_facade
from tests.support.scripted_cluster import ScriptedCluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.support.raw_client import RawClient

CLUSTER_NAME = "managed1"
PROXY = f"/apis/cluster.core.oam.dev/v1alpha1/clustergateways/{CLUSTER_NAME}/proxy"
ADMINISTRATOR = ((b"X-Remote-User", b"root"), (b"X-Remote-Group", b"system:masters"))
OWN_AUTHORIZATION = (b"Authorization", b"Bearer s3cret")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """What tests need of it."""

    facade: RunningFacade
    core: RoutingCore
    cluster: ScriptedCluster

    def connect(self) -> AbstractAsyncContextManager[RawClient]:
        """Connect as the hub's front proxy does."""
        return self.facade.as_front_proxy()


@asynccontextmanager
async def running_gateway(folder: Path) -> AsyncIterator[RunningGateway]:
    """Serve; stop in good order in the end."""
    async with ScriptedCluster() as cluster, running_facade(folder) as facade:
        core = RoutingCore(cluster.address)
        facade.core.router = core.servicer
        try:
            yield RunningGateway(facade=facade, core=core, cluster=cluster)
        finally:
            core.directory.close()


def render_head(method: bytes, target: bytes, lines: list[tuple[bytes, bytes]]) -> bytes:
    """A request's head, byte for byte; `target` is the cluster's own."""
    rendered = [b"%b %b%b HTTP/1.1\r\n" % (method, PROXY.encode(), target)]
    rendered += [b"%b: %b\r\n" % line for line in lines]
    return b"".join([*rendered, b"\r\n"])
