"""An aggregated API server that keeps what the hub's aggregator sends it, headers and targets as they came."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from tests.support.gateway import Stage

VERSION = "v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One request as it came.

    Attributes:
        method: Its method.
        target: Path and query, byte for byte.
        headers: Names as spelled and values, in order.
        peer: Common name of the client certificate; empty without one.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    peer: str

    def values(self, name: str) -> list[str]:
        """Values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(slots=True)
class RecordingServer:
    """Serves discovery of one group, and for the rest what a test put under a path.

    Attributes:
        group: The API group that it serves.
        recorded: Every request, in order.
        answers: Content type and body by path.
        discovery: Called before discovery is answered.
        gave_up: Set when a client ended a request for discovery that was not answered.
    """

    group: str
    tls: ssl.SSLContext
    recorded: list[Recorded] = field(default_factory=list[Recorded])
    answers: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])
    discovery: Callable[[], Awaitable[None]] | None = None
    gave_up: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _runner: web.ServerRunner | None = None

    @property
    def root(self) -> str:
        """Path of the group's version."""
        return f"/apis/{self.group}/{VERSION}"

    @property
    def api_service(self) -> str:
        """Path of its registration at the hub."""
        return f"/apis/apiregistration.k8s.io/v1/apiservices/{VERSION}.{self.group}"

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve, handler_cancellation=True), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def of(self, path: str) -> list[Recorded]:
        """Requests for a path below the group's version, so far."""
        return [recorded for recorded in self.recorded if recorded.path == self.root + path]

    async def register(self, stage: Stage, *, ca: bytes, namespace: str = "default", service: str = "recorder") -> None:
        """Make it an APIService of the hub, as a Service of the given name that leads to this host."""
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"name": "https", "port": self.port}]}
        await create(stage, f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": service}, "spec": spec})
        reference = {"namespace": namespace, "name": service, "port": self.port}
        await create_api_service(stage, self.group, ca=ca, reference=reference)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        certificate: dict[str, Any] = (request.get_extra_info("peercert") if request.transport else None) or {}
        subject = {key: value for name in certificate.get("subject", ()) for key, value in name}
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        recorded = Recorded(
            method=request.method, target=request.raw_path, headers=headers, peer=subject.get("commonName", "")
        )
        self.recorded.append(recorded)
        if recorded.path == self.root:
            return await self._serve_discovery()
        content_type, body = self.answers.get(recorded.path.removeprefix(self.root), ("application/json", b"{}"))
        return web.Response(body=body, headers={"Content-Type": content_type, "Connection": "close"})

    async def _serve_discovery(self) -> web.StreamResponse:
        if self.discovery is not None:
            try:
                await self.discovery()
            except asyncio.CancelledError:
                self.gave_up.set()
                raise
        document = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{self.group}/{VERSION}",
            "resources": [],
        }
        headers = {"Content-Type": "application/json", "Connection": "close"}
        return web.Response(body=json.dumps(document), headers=headers)


async def create(stage: Stage, path: str, value: dict[str, Any]) -> None:
    """Create an object at the hub."""
    answer = await stage.ask_hub(path, method="POST", body=value)
    assert answer.status == 201, answer


async def create_api_service(stage: Stage, group: str, *, ca: bytes, reference: dict[str, Any]) -> None:
    """Have the hub send a group to a Service."""
    spec = {
        "group": group,
        "version": VERSION,
        "groupPriorityMinimum": 100,
        "versionPriority": 10,
        "caBundle": base64.b64encode(ca).decode(),
        "service": reference,
    }
    value = {"metadata": {"name": f"{VERSION}.{group}"}, "spec": spec}
    await create(stage, "/apis/apiregistration.k8s.io/v1/apiservices", value)
