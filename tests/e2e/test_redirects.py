"""Redirects of a cluster are neither followed nor relayed, by each of the two ways (CVE-2022-3172)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.scripted_cluster import Answer

if TYPE_CHECKING:
    from tests.support.received_request import ReceivedRequest
    from tests.support.routes import Route

_PODS = "/api/v1/namespaces/default/pods"


def redirecting(route: Route, status: int, location: str | None) -> None:
    line = f"Location: {location}\r\n" if location is not None else ""
    length = "" if status == 304 else "Content-Length: 7\r\n"
    body = b"" if status == 304 else b"go away"
    data = f"HTTP/1.1 {status} Elsewhere\r\n{line}{length}\r\n".encode("latin-1") + body

    def answer(request: ReceivedRequest) -> bytes:
        return data

    route.cluster.otherwise = (Answer(answer),)


async def refuse(route: Route, method: str = "GET", target: str = _PODS, body: bytes = b"") -> None:
    """Ask, and expect the gateway's own 502 and one request at the cluster."""
    response = await route.ask(method, target, body=body)
    assert response.status == 502, response
    status = response.json()
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 502, "InternalError")
    assert "neither follows nor relays" in status["message"]
    assert status["details"]["causes"][0]["reason"] == "INVALID_RESPONSE"
    assert response.values("Location") == []
    assert response.values("Content-Length") == [str(len(response.body))]
    assert b"go away" not in response.body
    assert len(route.cluster.requests) == len(route.cluster.connections) == 1  # RD-8


@pytest.mark.parametrize("status", [301, 304], ids=["RD-2", "RD-3"])
async def test_redirect_is_a_gateway_error_of_the_right_length(route: Route, status: int) -> None:
    """RD-2, RD-3, RD-8, RD-9: the same code and Status by both ways, for the gateway answered first."""
    redirecting(route, status, "https://evil.example/")
    await refuse(route)


@pytest.mark.parametrize(("status", "body"), [(200, b"go away"), (300, b"go away"), (304, b"")])
async def test_what_does_not_redirect_passes(route: Route, status: int, body: bytes) -> None:
    """RD-1, RD-4."""
    redirecting(route, status, None)
    response = await route.ask("GET", _PODS)
    assert (response.status, response.body) == (status, body)


@pytest.mark.parametrize("status", [302, 303, 307, 308])
@pytest.mark.parametrize(
    ("method", "target", "body"), [("GET", _PODS, b""), ("POST", _PODS, b"{}"), ("GET", f"{_PODS}?watch=1", b"")]
)
async def test_every_kind_for_every_request(route: Route, status: int, method: str, target: str, body: bytes) -> None:
    """RD-6, RD-8."""
    redirecting(route, status, "https://evil.example/")
    await refuse(route, method, target, body)


@pytest.mark.parametrize(
    "location",
    [
        "/relative",
        "relative",
        "//host/path",
        "https://user:password@evil.example/",
        "javascript:alert(1)",
        "",
        "https://127.0.0.1/same/host",
        "https://gateway/the/callers/host",
        f"/apis/cluster.core.oam.dev/v1alpha1/clustergateways/x/proxy{_PODS}",
        "/must%2Fbe escaped?<script>\xe9",
    ],
)
async def test_every_kind_of_location(route: Route, location: str) -> None:
    """RT-12, RD-7, RD-8: upstream rewrites them; nothing here does."""
    redirecting(route, 302, location)
    await refuse(route)


async def test_location_of_what_was_created_is_no_redirect(route: Route) -> None:
    """RT-12: the gateway leaves it alone; the hub makes an address of its own of it."""
    redirecting(route, 201, "/api/v1/namespaces/default/pods/a")
    response = await route.ask("POST", _PODS, body=b"{}")
    assert (response.status, response.body) == (201, b"go away")
    (location,) = response.values("Location")
    assert location.endswith("/api/v1/namespaces/default/pods/a")
    assert location.startswith("/") or not route.is_raw


async def test_application_behind_a_proxy_cannot_redirect_either(route: Route) -> None:
    """kube-apiserver's aggregator refuses it as well, so it would not work through the hub."""
    redirecting(route, 302, "/login")
    await refuse(route, target="/api/v1/namespaces/default/services/web/proxy/")
