"""The hub's API: a few typed methods that give plain JSON values.

kubernetes_asyncio supplies kubeconfig and service account handling and the connection pool. Its generated
model classes are left out: they cost more than everything else when five thousand Secrets are read. So is
its body logging: a Secret must not reach a log at any level.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from kubernetes_asyncio.client import rest

from cluster_gateway_core.errors import GatewayError, HubUnavailableError
from cluster_gateway_core.hub.condition import Condition
from cluster_gateway_core.hub.status import error_of_status
from cluster_gateway_core.hub.transport import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from cluster_gateway_core.hub.json_values import JSONObject
    from cluster_gateway_core.hub.transport import Connections, HubTransport
    from cluster_gateway_core.settings import HubSettings

# aiohttp is reached through the library that brings it, so that this package depends on one client alone.
_rest: Any = rest
_TRANSPORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    _rest.aiohttp.ClientError,
    OSError,
    ValueError,
)
# A peer that vanished is noticed after 15 + 3 * 5 s; client-go's HTTP/2 pings need 45 s.
_KEEPALIVE_OPTIONS: Final = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"


class HubClient:
    """One identity at the hub's API, made by `open_hub_clients`, which also closes it.

    Every method raises `AccessDeniedError` for 401 and 403, `ConflictError` for 409, `ExpiredError` for
    410 and `HubUnavailableError` for all else; `retry_after_seconds` is set where another try may help.
    """

    def __init__(self, transport: HubTransport, *, timeout_seconds: float, user_agent: str) -> None:
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._user_agent = user_agent

    @property
    def fault(self) -> str:
        """Why the newest credentials are not in force; empty when they are."""
        return self._transport.fault

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> JSONObject | None:
        """Read one object or list; None when there is none (404)."""
        return await self._exchange("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any], *, timeout_seconds: float | None = None) -> JSONObject:
        """Create an object, or ask a review, and return the answer."""
        answer = await self._exchange("POST", path, body=body, timeout_seconds=timeout_seconds)
        if answer is None:
            raise error_of_status("POST", path, 404, b"", None)
        return answer

    async def patch(
        self, path: str, body: Mapping[str, Any], query: Mapping[str, str] | None = None
    ) -> JSONObject | None:
        """Apply a JSON merge patch (RFC 7386) and return the object; None when there is none (404)."""
        return await self._exchange("PATCH", path, query=query, body=body)

    @asynccontextmanager
    async def watch_lines(
        self, path: str, query: Mapping[str, str], *, silence_seconds: float
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a watch; entering returns once the hub accepted it.

        Args:
            path: Path of the collection.
            query: Its parameters, among them `watch` and `timeoutSeconds`.
            silence_seconds: How long the hub may send nothing.

        Yields:
            One line of JSON an event, ending when the hub ends the watch, is silent for too long, or new certificates
            are in force: the watch is then to be resumed on a new connection. Cancellation closes the connection.
        """
        async with self._transport.connections() as connections:
            response = await self._begin_watch(connections, path, query, silence_seconds)
            try:
                if response.status != 200:  # noqa: PLR2004
                    content = await self._read(path, response)
                    raise self._failed("GET", path, response, content)
                _keep_alive(response)
                async with connections.watch(response):
                    yield _lines(path, response, connections)
            finally:
                response.close()

    async def _begin_watch(
        self, connections: Connections, path: str, query: Mapping[str, str], silence_seconds: float
    ) -> Any:
        """Send the request of a watch; its head comes as promptly as any answer."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._send(
                    connections, "GET", path, query=query, timeout=(self._timeout_seconds, silence_seconds)
                )
        except TimeoutError as error:
            raise _unreachable(path, error) from error

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> JSONObject | None:
        async with self._transport.connections() as connections:
            response = await self._send(
                connections, method, path, query=query, body=body, timeout=timeout_seconds or self._timeout_seconds
            )
            try:
                content = await self._read(path, response)
            finally:
                response.release()
        if response.status == 404:  # noqa: PLR2004
            return None
        if not 200 <= response.status < 300:  # noqa: PLR2004
            raise self._failed(method, path, response, content)
        return _parse_object(path, content)

    def _failed(self, method: str, path: str, response: Any, content: bytes) -> GatewayError:
        if response.status == 401:  # noqa: PLR2004
            self._transport.doubt()
        return error_of_status(method, path, response.status, content, _retry_after(response))

    async def _send(
        self,
        connections: Connections,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        timeout: float | tuple[float, float],  # noqa: ASYNC109 - passed to the library, which keeps it
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        headers = {
            "Accept": _JSON,
            "User-Agent": self._user_agent,
            "Content-Type": _MERGE_PATCH if method == "PATCH" else _JSON,
        }
        try:
            api = connections.api
            await api.update_params_for_auth(headers, [], ["BearerToken"])
            return await api.rest_client.request(
                method,
                api.configuration.host + path,
                query_params=list(query.items()) if query else None,
                headers=headers,
                body=body,
                _preload_content=False,
                _request_timeout=timeout,
            )
        except _TRANSPORT_ERRORS as error:
            raise _unreachable(path, error) from error

    async def _read(self, path: str, response: Any) -> bytes:
        try:
            return cast("bytes", await response.read())
        except _TRANSPORT_ERRORS as error:
            raise _unreachable(path, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class HubClients:
    """The identities that the core uses at the hub; often one and the same client.

    Attributes:
        registry: Reads and annotates the Secrets of clusters.
        authentication: Asks token reviews and reads trust anchors.
        authorization: Asks access reviews.
    """

    registry: HubClient
    authentication: HubClient
    authorization: HubClient

    def condition(self) -> Condition:
        """Always ready, for the last good credentials stay in force; the detail says what is wrong with newer ones."""
        clients = dict.fromkeys((self.registry, self.authentication, self.authorization))
        detail = "; ".join(client.fault for client in clients if client.fault)
        return Condition(name="hub-credentials", ready=True, detail=detail)


@asynccontextmanager
async def open_hub_clients(settings: HubSettings) -> AsyncGenerator[HubClients]:
    """Open one client a different kubeconfig and close them all on leaving; no request is sent yet.

    Raises:
        HubUnavailableError: A kubeconfig, or the pod's service account, cannot be used.
    """
    async with AsyncExitStack() as stack:
        opened: dict[str | None, HubClient] = {}
        for kubeconfig in (
            settings.kubeconfig,
            settings.authentication_kubeconfig or settings.kubeconfig,
            settings.authorization_kubeconfig or settings.kubeconfig,
        ):
            if kubeconfig not in opened:
                opened[kubeconfig] = HubClient(
                    await stack.enter_async_context(open_transport(kubeconfig)),
                    timeout_seconds=settings.request_timeout_seconds,
                    user_agent=settings.user_agent,
                )
        yield HubClients(
            registry=opened[settings.kubeconfig],
            authentication=opened[settings.authentication_kubeconfig or settings.kubeconfig],
            authorization=opened[settings.authorization_kubeconfig or settings.kubeconfig],
        )


async def _lines(path: str, response: Any, connections: Connections) -> AsyncIterator[bytes]:
    try:
        async for line in response.content:
            yield line
    except TimeoutError:
        return
    except _TRANSPORT_ERRORS as error:
        if not connections.retired:
            raise _unreachable(path, error) from error


def _keep_alive(response: Any) -> None:
    """Have the kernel probe an idle watch; best effort, the silence limit is the backstop."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS:
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _parse_object(path: str, content: bytes) -> JSONObject:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise HubUnavailableError(f"the hub's answer to {path} is not JSON", retry_after_seconds=1) from error
    if not isinstance(value, dict):
        raise HubUnavailableError(f"the hub's answer to {path} is not an object")
    return cast("JSONObject", value)


def _retry_after(response: Any) -> str | None:
    return cast("str | None", response.headers.get("Retry-After"))


def _unreachable(path: str, error: Exception) -> HubUnavailableError:
    """Say why without the error's own text where that could quote a header."""
    text = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{type(error).__name__}: {error.strerror}"
    return HubUnavailableError(
        f"the hub could not be reached for {path}: {text}",
        hint="Check that the gateway reaches the hub's API server.",
        retry_after_seconds=1,
    )
