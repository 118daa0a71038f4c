"""What the hub's HTTP errors mean to the core; pure."""

from __future__ import annotations

import json
from typing import Final

from cluster_gateway_core.errors import (
    AccessDeniedError,
    ConflictError,
    ExpiredError,
    GatewayError,
    HubUnavailableError,
)
from cluster_gateway_core.hub.json_values import as_object, as_text

_MAXIMUM_QUOTE_CHARACTERS: Final = 300
_RETRIABLE: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Codes after which kube-apiserver's own webhook clients try again, or that a load balancer gives.

Source: kubernetes/apiserver, pkg/util/webhook/webhook.go, DefaultShouldRetry.
"""


def error_of_status(method: str, path: str, status: int, body: bytes, retry_after: str | None) -> GatewayError:
    """Turn an HTTP error of the hub into the core's error.

    Args:
        method: Method of the request.
        path: Its path.
        status: HTTP status code, 300 or above.
        body: Body of the answer, normally a metav1.Status.
        retry_after: The answer's Retry-After header.

    Returns:
        An error whose message names the code. The hub's own words are quoted only where they cannot
        repeat what was posted: a token under review must not come back in an error.
    """
    quote = _quote(body, with_message=method == "GET" or status in (401, 403))
    message = f"the hub answered {status} to {method} {path}{quote}"
    if status in (401, 403):
        return AccessDeniedError(message, hint="Grant the gateway's identity this right on the hub.")
    if status == 409:  # noqa: PLR2004
        return ConflictError(message, hint="Read the object again and repeat the change.")
    if status == 410:  # noqa: PLR2004
        return ExpiredError(message)
    return HubUnavailableError(message, retry_after_seconds=_seconds(retry_after) if status in _RETRIABLE else None)


def _quote(body: bytes, *, with_message: bool) -> str:
    try:
        status = as_object(json.loads(body))
    except ValueError:
        return ""
    text = as_text(status.get("message" if with_message else "reason"))
    return f": {text[:_MAXIMUM_QUOTE_CHARACTERS]}" if text else ""


def _seconds(retry_after: str | None) -> float:
    """Read Retry-After as Kubernetes sends it: whole seconds."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else 1.0
