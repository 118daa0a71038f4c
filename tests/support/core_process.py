"""A routing core in a process of its own, on uvloop as in production, so that it can be killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import uvloop
from tests.support.fake_core import FakeCore
from tests.support.gateway_pair import Hub, Registry, make_servicer
from tests.support.upstreams import AUTHORITY, make_cluster, make_settings

from cluster_gateway_core.server.drain import Drain
from cluster_gateway_core.server.endpoints import server_options
from cluster_gateway_core.settings import ServingSettings
from cluster_gateway_core.upstream.directory import UpstreamDirectory
from clustergateway.access.v1.access_service_pb2 import WatchTrustResponse

if TYPE_CHECKING:
    from tests.support.fake_core import Conversation

_START_SECONDS = 60.0


class CoreProcess:
    """Stands behind a facade as `FakeCore` does; its one cluster is "managed1".

    Attributes:
        target: Its gRPC address.
        conversations: Always empty: what it carries is not looked at.
    """

    def __init__(self, socket: Path, cluster_address: str) -> None:
        self.target = f"unix:{socket}"
        self.conversations: list[Conversation] = []
        self._socket = socket
        self._address = cluster_address
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tests.support.core_process", self._socket, self._address),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    def trust(self, message: WatchTrustResponse) -> None:
        """Have it stream these trust anchors, and serve; it trusts the clusters of this process."""
        assert self._process is not None
        assert self._process.stdin is not None
        lines = (message.SerializeToString(), AUTHORITY.certificate_pem)
        self._process.stdin.write(b"".join(line.hex().encode() + b"\n" for line in lines))

    async def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()
        await self._process.communicate()


async def _serve(socket: Path, address: str) -> None:
    lines = [bytes.fromhex(line) for line in (sys.stdin.readline(), sys.stdin.readline())]
    cluster = make_cluster(address)
    assert cluster.endpoint is not None
    object.__setattr__(cluster.endpoint, "ca_bundle_pem", lines[1])
    settings = ServingSettings(unix_socket=str(socket))
    registry = Registry({cluster.name: cluster})
    directory = UpstreamDirectory(registry, make_settings())
    servicer = make_servicer(settings, Hub(), directory, Drain())
    async with FakeCore(socket, routing=servicer, options=server_options(settings)) as core:
        core.trust(WatchTrustResponse.FromString(lines[0]))
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), sys.argv[2]))
