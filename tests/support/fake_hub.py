"""A hub that answers what a test wrote down, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.support.hub_certificates import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One scripted answer.

    Attributes:
        status: HTTP status.
        body: JSON body; for a watch unused.
        events: Lines of a watch; bytes are sent as they are.
        end: What follows the lines of a watch.
        held: Set to have the answer wait for it.
        headers: Further headers.
    """

    status: int = 200
    body: Any = field(default_factory=dict)
    events: tuple[dict[str, Any] | bytes, ...] = ()
    end: Literal["close", "abort", "hold"] = "hold"
    held: asyncio.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as the hub got it."""

    kind: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    client_name: str = ""
    """Common name of the client's certificate; empty without one."""


class FakeHub:
    """Scripted answers by kind ("LIST", "WATCH", "POST", "PATCH") in order.

    An unscripted watch stays open without events; any other unscripted request is answered 501.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.received: list[Received] = []
        self._answers: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"https://localhost:{port}" if self._tls else f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def script(self, kind: str, *answers: Answer) -> None:
        """Append answers for the next requests of a kind."""
        self._answers[kind].extend(answers)

    def of_kind(self, kind: str) -> list[Received]:
        """The requests of a kind so far."""
        return [received for received in self.received if received.kind == kind]

    async def wait_for(self, kind: str, count: int) -> None:
        """Return once so many requests of a kind have come."""
        async with asyncio.timeout(10):
            while len(self.of_kind(kind)) < count:
                arrived = self._arrived
                await arrived.wait()

    @property
    def open_connections(self) -> int:
        """How many connections clients hold."""
        assert self._runner is not None
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    def write_kubeconfig(
        self, folder: Path, *, token: str = "gateway-token", ca: Identity | None = None, client: Identity | None = None
    ) -> str:
        """Write a kubeconfig for this hub and return its path; one of a hub with TLS and no CA speaks plain HTTP."""
        path = folder / "hub.kubeconfig"
        cluster = {"server": self.url if ca else self.url.replace("https:", "http:")}
        if ca is not None:
            cluster["certificate-authority-data"] = _base64(ca.certificate_pem)
        user = {"token": token}
        if client is not None:
            user["client-certificate-data"] = _base64(client.certificate_pem)
            user["client-key-data"] = _base64(client.key_pem)
        path.write_text(
            json.dumps(
                {
                    "current-context": "hub",
                    "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "gateway"}}],
                    "clusters": [{"name": "hub", "cluster": cluster}],
                    "users": [{"name": "gateway", "user": user}],
                }
            )
        )
        return str(path)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        kind = request.method
        if kind == "GET":
            kind = "WATCH" if request.query.get("watch") else "LIST"
        text = await request.text()
        self.received.append(
            Received(
                kind=kind,
                path=request.path,
                query=dict(request.query),
                headers=dict(request.headers),
                body=json.loads(text) if text else None,
                client_name=_client_name(request),
            )
        )
        self._arrived.set()
        self._arrived = asyncio.Event()
        answers = self._answers[kind]
        unscripted = Answer(status=200 if kind == "WATCH" else 501)
        answer = answers.popleft() if answers else unscripted
        if answer.held is not None:
            await answer.held.wait()
        if kind == "WATCH" and answer.status == 200:
            return await self._serve_watch(request, answer)
        return web.json_response(answer.body, status=answer.status, headers=answer.headers)

    async def _serve_watch(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for event in answer.events:
            await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")
        if answer.end == "hold":
            await self._closing.wait()
        if answer.end == "abort" and request.transport is not None:
            request.transport.abort()
        return response


def _base64(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def _client_name(request: web.BaseRequest) -> str:
    certificate = request.get_extra_info("peercert")
    return str(dict(pair[0] for pair in certificate["subject"])["commonName"]) if certificate else ""


def make_list(*objects: dict[str, Any], version: str = "100", next_page: str = "") -> dict[str, Any]:
    """Make a list, or one page of it."""
    metadata = {"resourceVersion": version, **({"continue": next_page} if next_page else {})}
    return {"metadata": metadata, "items": list(objects)}


def make_status(code: int, reason: str = "", message: str = "") -> dict[str, Any]:
    """Make a metav1.Status of a failure."""
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
