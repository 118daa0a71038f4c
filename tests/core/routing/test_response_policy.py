from __future__ import annotations

import pytest

from cluster_gateway_core.errors import CredentialRejectedError, GatewayError, InvalidResponseError
from cluster_gateway_core.model.http import Headers, RequestHead, ResponseHead
from cluster_gateway_core.routing.request_info import parse_request_info
from cluster_gateway_core.routing.response_policy import check_response

_LOCATION = (b"location", b"https://evil/")
_WEBSOCKET = (b"Upgrade", b"websocket")


def check(
    status: int, *headers: tuple[bytes, bytes], target: str = "/api/v1/pods", upgrade: str = "", asked: Headers = ()
) -> None:
    request = RequestHead(method="GET", target=target.encode(), headers=asked, upgrade=upgrade)
    response = ResponseHead(status=status, reason=b"", headers=headers)
    check_response("managed1", request, parse_request_info("GET", target), response)


@pytest.mark.parametrize("status", [200, 204, 304, 400, 403, 404, 410, 429, 500, 503])
def test_ordinary_answers_are_relayed(status: int) -> None:
    """RD-1, RD-4, RT-34."""
    check(status)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("location", [b"/x", b"//host", b"https://u:p@h/", b"javascript:x", b""])
def test_redirect_is_neither_followed_nor_relayed(status: int, location: bytes) -> None:
    """RD-2, RD-3, RD-6, RD-7; the address that it names stays untold."""
    with pytest.raises(InvalidResponseError) as caught:
        check(status, (b"LOCATION", location))
    assert "javascript" not in caught.value.message


def test_location_of_a_created_object_is_relayed() -> None:
    check(201, _LOCATION)


def test_refused_credential_is_told_as_such() -> None:
    """RT-34: the caller must not log in again in vain."""
    with pytest.raises(CredentialRejectedError, match="managed1 answered 401"):
        check(401, (b"WWW-Authenticate", b"Bearer"))


def test_an_applications_own_401_is_relayed() -> None:
    check(401, target="/api/v1/namespaces/d/services/s/proxy/login")


@pytest.mark.parametrize("status", [200, 204, 300, 302, 307])
def test_upgrade_answered_by_neither_101_nor_error_is_refused(status: int) -> None:
    """UP-14, UP-15."""
    with pytest.raises(InvalidResponseError, match=f"invalid upgrade response: status code {status}"):
        check(status, upgrade="websocket")


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_error_to_an_upgrade_is_relayed(status: int) -> None:
    """UP-11."""
    check(status, upgrade="SPDY/3.1")


def test_switch_to_the_protocol_asked_for_passes() -> None:
    check(101, (b"upgrade", b"WebSocket"), upgrade="websocket")
    check(101, (b"Upgrade", b"SPDY/3.1"), (b"X-Stream-Protocol-Version", b"v4.channel.k8s.io"), upgrade="SPDY/3.1")


@pytest.mark.parametrize(
    ("headers", "upgrade"),
    [
        pytest.param((_WEBSOCKET,), "", id="UP-26 unasked"),
        pytest.param((_WEBSOCKET,), "SPDY/3.1", id="UP-25 another protocol"),
        pytest.param((), "websocket", id="UP-25 no protocol"),
        pytest.param((_WEBSOCKET, (b"Content-Length", b"5")), "websocket", id="UP-25 with a length"),
        pytest.param((_WEBSOCKET, (b"transfer-encoding", b"chunked")), "websocket", id="UP-25 chunked"),
        pytest.param((_WEBSOCKET, (b"Sec-WebSocket-Protocol", b"evil")), "websocket", id="UP-25 sub-protocol"),
    ],
)
def test_other_switch_is_refused(headers: tuple[tuple[bytes, bytes], ...], upgrade: str) -> None:
    with pytest.raises(InvalidResponseError):
        check(101, *headers, upgrade=upgrade)


def test_chosen_subprotocol_must_have_been_offered() -> None:
    asked = [(b"Sec-WebSocket-Protocol", b"v5.channel.k8s.io, v4.channel.k8s.io")]

    check(101, _WEBSOCKET, (b"sec-websocket-protocol", b"v4.channel.k8s.io"), upgrade="websocket", asked=asked)
    with pytest.raises(GatewayError, match="not offered"):
        check(101, _WEBSOCKET, (b"sec-websocket-protocol", b"v3"), upgrade="websocket", asked=asked)


def test_no_subprotocol_is_chosen_by_an_empty_header() -> None:
    check(101, _WEBSOCKET, (b"Sec-WebSocket-Protocol", b""), upgrade="websocket")
