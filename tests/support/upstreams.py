"""Clusters and exchanges with them, for tests of the way to a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.hub_certificates import Identity, make_identity
from tests.support.scripted_cluster import WAIT_SECONDS

from cluster_gateway_core.model.cluster import Cluster, Credential, CredentialType, Endpoint, EndpointType
from cluster_gateway_core.model.http import RequestHead
from cluster_gateway_core.settings import UpstreamSettings
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.exchange import UpstreamExchange
from cluster_gateway_core.upstream.upstream import Upstream

if TYPE_CHECKING:
    from cluster_gateway_core.model.http import Headers, ResponseHead

AUTHORITY = make_identity("cluster ca")
SERVER = make_identity("cluster", issuer=AUTHORITY, usages=(), hosts=("cluster.example", "127.0.0.1"))


def make_cluster(
    address: str, *, name: str = "managed1", token: str = "s3cret", ca: Identity | None = AUTHORITY, **endpoint: object
) -> Cluster:
    """A cluster at an address, with a bearer token."""
    return Cluster(
        name=name,
        endpoint=Endpoint(
            type=EndpointType.CONST,
            address=address,
            ca_bundle_pem=ca.certificate_pem if ca else None,
            tls_server_name=str(endpoint.pop("tls_server_name", "cluster.example")),
            insecure=bool(endpoint.pop("insecure", False)),
        ),
        credential=Credential(type=CredentialType.SERVICE_ACCOUNT_TOKEN, token=token),
    )


def make_upstream(address: str, **settings: float) -> Upstream:
    """The way to a cluster at an address."""
    return Upstream(make_cluster(address), UpstreamContext(make_settings(**settings)))


def make_settings(**changes: float) -> UpstreamSettings:
    """Settings with generous limits."""
    values: dict[str, float] = {"connect_timeout_seconds": WAIT_SECONDS, "tls_timeout_seconds": WAIT_SECONDS, **changes}
    return UpstreamSettings(**values)  # type: ignore[arg-type]  # numbers all


def make_request(
    method: str = "GET", target: bytes = b"/api", headers: Headers = (), *, upgrade: str = "", has_body: bool = False
) -> RequestHead:
    """A request."""
    return RequestHead(method=method, target=target, headers=headers, upgrade=upgrade, has_body=has_body)


async def read_rest(exchange: UpstreamExchange) -> bytes:
    """Read a body to its end."""
    body = b""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            piece, complete = exchange.take_body()
            body += piece
            if complete:
                return body
            await exchange.body_readable(limited=False)


async def fetch(upstream: Upstream, request: RequestHead | None = None) -> tuple[ResponseHead, bytes]:
    """Carry one request without a body to its end."""
    request = request or make_request()
    async with asyncio.timeout(WAIT_SECONDS), UpstreamExchange(upstream, request, request.headers) as exchange:
        head = await exchange.response_head(limited=False)
        return head, await read_rest(exchange)


__all__ = [
    "AUTHORITY",
    "SERVER",
    "fetch",
    "make_cluster",
    "make_request",
    "make_settings",
    "make_upstream",
    "read_rest",
]
