"""A facade and a core in this process before one scripted cluster, for tests that compare bytes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.gateway_pair import GatewayPair, gateway_pair
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.upstreams import make_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.support.raw_client import RawClient

PROXY: Final = GatewayPair.path("").encode()
ADMINISTRATOR: Final = ((b"X-Remote-User", b"root"), (b"X-Remote-Group", b"system:masters"))
OWN_AUTHORIZATION: Final = (b"Authorization", b"Bearer s3cret")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """What tests need of it."""

    pair: GatewayPair
    cluster: ScriptedCluster

    def connect(self) -> AbstractAsyncContextManager[RawClient]:
        """Connect as the hub's front proxy does."""
        return self.pair.facade.as_front_proxy()


@asynccontextmanager
async def running_gateway(folder: Path) -> AsyncIterator[RunningGateway]:
    """Serve; stop in good order in the end."""
    async with ScriptedCluster() as cluster, gateway_pair(folder, make_cluster(cluster.address)) as pair:
        yield RunningGateway(pair=pair, cluster=cluster)


def render_head(method: bytes, target: bytes, lines: list[tuple[bytes, bytes]]) -> bytes:
    """A request's head, byte for byte; `target` is the cluster's own."""
    rendered = [b"%b %b%b HTTP/1.1\r\n" % (method, PROXY, target)]
    rendered += [b"%b: %b\r\n" % line for line in lines]
    return b"".join([*rendered, b"\r\n"])
