"""Which answers of a cluster may be relayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import CredentialRejectedError, InvalidResponseError
from cluster_gateway_core.routing.header_policy import first_value

if TYPE_CHECKING:
    from cluster_gateway_core.model.http import Headers, RequestHead, ResponseHead
    from cluster_gateway_core.routing.request_info import RequestInfo

_SWITCHING_PROTOCOLS: Final = 101
_SUBPROTOCOL: Final = b"sec-websocket-protocol"
_UNAUTHORIZED: Final = 401
_LOWEST_ERROR: Final = 400
_LARGEST_SWITCH_BYTES: Final = 64 * 1024
"""Most bytes of headers of a 101, which needs a handful of short ones."""


def check_response(cluster_name: str, request: RequestHead, info: RequestInfo, response: ResponseHead) -> None:
    """Refuse an answer that would mislead the caller or open a tunnel nobody asked for.

    Raises:
        InvalidResponseError: A redirect, which is never followed and never relayed (CVE-2022-3172); a switch to a
            protocol that was not asked for, or with a body; or an upgrade answered by neither 101 nor an error
            (CVE-2018-1002105).
        CredentialRejectedError: The cluster does not accept the gateway's credential. A plain 401 would send the
            caller to log in again at the hub, in vain. Behind a proxy subresource the 401 is the application's own.
    """
    if request.upgrade:
        _check_upgrade(cluster_name, request, response)
    elif response.status == _SWITCHING_PROTOCOLS:
        raise _invalid(cluster_name, "it switched protocol unasked")
    if 300 <= response.status < _LOWEST_ERROR and first_value(response.headers, b"location") is not None:  # noqa: PLR2004
        raise _invalid(cluster_name, f"it redirects ({response.status}), which the gateway neither follows nor relays")
    if response.status == _UNAUTHORIZED and info.subresource != "proxy":
        raise CredentialRejectedError(
            f"cluster {cluster_name} answered 401 to the credential that the gateway holds for it",
            cluster_name=cluster_name,
            hint="Renew the token or certificate in the cluster's Secret; your own login is fine.",
        )


def _check_upgrade(cluster_name: str, request: RequestHead, response: ResponseHead) -> None:
    if response.status == _SWITCHING_PROTOCOLS:
        chosen = (first_value(response.headers, b"upgrade") or b"").decode("latin-1")
        if chosen.lower() != request.upgrade.lower():
            raise _invalid(cluster_name, "it switched to a protocol that was not asked for")
        if not set(_listed(response.headers, _SUBPROTOCOL)) <= set(_listed(request.headers, _SUBPROTOCOL)):
            raise _invalid(cluster_name, "it chose a WebSocket sub-protocol that was not offered")
        # RFC 9110 sections 8.6 and 15.2: a 1xx answer has no body, so these would be about the tunnel's bytes.
        if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in response.headers):
            raise _invalid(cluster_name, "its switch of protocol announces a body")
        if sum(len(name) + len(value) for name, value in response.headers) > _LARGEST_SWITCH_BYTES:
            raise _invalid(cluster_name, "its switch of protocol has too many headers")
    elif response.status < _LOWEST_ERROR:
        raise _invalid(cluster_name, f"invalid upgrade response: status code {response.status}")


def _listed(headers: Headers, name: bytes) -> list[bytes]:
    """Elements of a header's comma-separated lists; empty ones do not count (RFC 9110 section 5.6.1.2).

    kube-apiserver answers a port-forward that offers no sub-protocol with an empty one.
    """
    parts = [part.strip() for key, value in headers if key.lower() == name for part in value.split(b",")]
    return [part for part in parts if part]


def _invalid(cluster_name: str, fault: str) -> InvalidResponseError:
    return InvalidResponseError(
        f"cluster {cluster_name} gave an answer that is not relayed: {fault}", cluster_name=cluster_name
    )
