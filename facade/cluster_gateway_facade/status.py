"""Failures as Kubernetes clients read them: `metav1.Status`.

One table says which HTTP code and which `StatusReason` each failure of the gateway gets; every error that
a caller sees is rendered here, so that each names the cluster, the hop that failed and what to do.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cluster_gateway_facade.exchange import Answer
from clustergateway.access.v1.access_service_pb2 import ResourceAttributes

if TYPE_CHECKING:
    from cluster_gateway_client.errors import CoreError
    from clustergateway.access.v1.access_service_pb2 import NonResourceAttributes

API_GROUP: Final = "cluster.core.oam.dev"
"""API group of this gateway."""
CLUSTER_RESOURCE: Final = "clustergateways"
"""Plural name of the resource that stands for a cluster."""

_QUALIFIED_RESOURCE: Final = f"{CLUSTER_RESOURCE}.{API_GROUP}"

# WithCacheControl of kube-apiserver sets this on every answer that says nothing else.
_HEADERS: Final = (("Cache-Control", "no-cache, private"), ("X-Content-Type-Options", "nosniff"))

# metav1 has no StatusReason for 502. client-go itself gives "InternalError" to any 5xx answer whose body is
# no Status and keeps the code (apimachinery, pkg/api/errors, NewGenericServerResponse), so we use the same.
_BAD_GATEWAY: Final = (HTTPStatus.BAD_GATEWAY, "InternalError")
_UNAVAILABLE: Final = (HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable")
_INTERNAL: Final = (HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError")

# A cluster that cannot be used is 503, never 404: a controller takes a 404 on a proxied path as "my object
# is gone" and drops its finalizers.
STATUS_BY_REASON: Final[dict[str, tuple[HTTPStatus, str]]] = {
    "INVALID_REQUEST": (HTTPStatus.BAD_REQUEST, "BadRequest"),
    "UNAUTHENTICATED": (HTTPStatus.UNAUTHORIZED, "Unauthorized"),
    "ACCESS_DENIED": (HTTPStatus.FORBIDDEN, "Forbidden"),
    "CLUSTER_NOT_FOUND": _UNAVAILABLE,
    "CLUSTER_MISCONFIGURED": _UNAVAILABLE,
    "REGISTRY_NOT_SYNCED": _UNAVAILABLE,
    "CLUSTER_UNREACHABLE": _UNAVAILABLE,
    "TLS_FAILED": _UNAVAILABLE,
    "CREDENTIAL_REJECTED": _UNAVAILABLE,
    "INVALID_RESPONSE": _BAD_GATEWAY,
    "RESPONSE_TRUNCATED": _BAD_GATEWAY,
    "TIMEOUT": (HTTPStatus.GATEWAY_TIMEOUT, "Timeout"),
    "OVERLOADED": (HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests"),
    "SHUTTING_DOWN": _UNAVAILABLE,
    "HUB_UNAVAILABLE": _UNAVAILABLE,
    "CORE_UNAVAILABLE": _UNAVAILABLE,
    "CONFLICT": (HTTPStatus.CONFLICT, "Conflict"),
    "EXPIRED": (HTTPStatus.GONE, "Expired"),
    "IDENTITY_EXCHANGE_FAILED": _UNAVAILABLE,
    "INTERNAL": _INTERNAL,
}
"""HTTP code and StatusReason of each `ErrorReason`, and of CORE_UNAVAILABLE, which only a client sees."""

# client-go answers a Retry-After header by silently asking again, ten times: `kubectl get` of a cluster that
# nobody registered took 10 s with a second's Retry-After, and none without (client-go, rest/with_retry.go).
# A person wants to hear of a missing or dead cluster at once; controllers find the delay in the details
# (SuggestsClientDelay).
_NO_RETRY_HEADER: Final = frozenset({"CLUSTER_NOT_FOUND", "CLUSTER_UNREACHABLE"})

_HOP_WORDS: Final = {
    "CALLER": "the request itself",
    "FACADE": "the gateway's facade",
    "CORE": "the gateway's core",
    "HUB": "the hub's API server",
    "NETWORK": "the network between the gateway and the cluster",
    "TLS": "the TLS handshake with the cluster",
    "CREDENTIAL": "the gateway's credential for the cluster",
    "CLUSTER": "the cluster's API server",
}


def render_status(
    code: int,
    reason: str,
    message: str,
    *,
    details: dict[str, Any] | None = None,
    retry_after_seconds: float | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Render a failure.

    Args:
        code: HTTP status code.
        reason: A `metav1.StatusReason`.
        message: What kubectl prints.
        details: `metav1.StatusDetails` without `retryAfterSeconds`.
        retry_after_seconds: When to try again; rounded up to whole seconds, at least one. It is told twice:
            client-go reads the header, people and other clients the details.
        headers: Further headers.
    """
    told = dict(details or {})
    if retry_after_seconds is not None:
        told |= _delay(retry_after_seconds)
        headers = (*headers, ("Retry-After", str(told["retryAfterSeconds"])))
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
    }
    if told:
        status["details"] = told
    status["code"] = int(code)
    body = json.dumps(status, separators=(",", ":")).encode() + b"\n"
    return Answer(status=int(code), body=body, headers=(*_HEADERS, *headers))


def answer_for(error: CoreError) -> Answer:
    """Render the failure of a proxied request.

    `details` always names the clustergateway, never the inner object: so a client can tell "the cluster
    is missing" from "my object is missing". `details.causes` holds the gateway's own reason and hop for
    programs; kubectl prints only the message, so that holds all of it for people.
    """
    code, reason = STATUS_BY_REASON.get(error.reason, _INTERNAL)
    details = _cluster_details(error.cluster_name) | {"causes": [_cause(error)]}
    delay = error.retry_after_seconds
    if delay is not None and error.reason in _NO_RETRY_HEADER:
        details, delay = details | _delay(delay), None
    return render_status(code, reason, _sentence(error), details=details, retry_after_seconds=delay)


def answer_for_object(error: CoreError) -> Answer:
    """Render the failure of a request for a ClusterGateway object: an unknown cluster is a plain 404."""
    if error.reason == "CLUSTER_NOT_FOUND":
        return render_status(
            HTTPStatus.NOT_FOUND,
            "NotFound",
            f'{_QUALIFIED_RESOURCE} "{error.cluster_name}" not found',
            details=_cluster_details(error.cluster_name),
        )
    return answer_for(error)


def forbidden(user_name: str, attributes: ResourceAttributes | NonResourceAttributes, reason: str = "") -> Answer:
    """Render a denial in the words of kube-apiserver.

    Source:
        kubernetes/apiserver, pkg/endpoints/handlers/responsewriters/errors.go, forbiddenMessage;
        kubernetes/apimachinery, pkg/api/errors, NewForbidden.
    """
    if isinstance(attributes, ResourceAttributes):
        resource = "/".join(filter(None, (attributes.resource, attributes.subresource)))
        scope = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
        what = f'{attributes.verb} resource "{resource}" in API group "{attributes.group}" {scope}'
        subject = ".".join(filter(None, (attributes.resource, attributes.group)))
        subject += f' "{attributes.name}"' if attributes.name else ""
        named = {"name": attributes.name, "group": attributes.group, "kind": attributes.resource}
        prefix, details = f"{subject} is forbidden", {key: value for key, value in named.items() if value}
    else:
        what, prefix, details = f'{attributes.verb} path "{attributes.path}"', "forbidden", {}
    message = f'{prefix}: User "{user_name}" cannot {what}' + (f": {reason}" if reason else "")
    return render_status(HTTPStatus.FORBIDDEN, "Forbidden", message, details=details)


def bad_request(message: str) -> Answer:
    """Render a request that breaks a rule of HTTP or of Kubernetes' API, which the message tells."""
    details = {"causes": [_as_cause("INVALID_REQUEST", "CALLER", "Correct the request.")]}
    return render_status(HTTPStatus.BAD_REQUEST, "BadRequest", message, details=details)


def body_too_slow() -> Answer:
    """Refuse a request whose client has stopped within its body."""
    hint = "Send the body without pauses; --request-idle-timeout sets how long one may be."
    return render_status(
        HTTPStatus.REQUEST_TIMEOUT,
        "Timeout",
        "the client sent nothing more of the request's body",
        details={"causes": [_as_cause("TIMEOUT", "CALLER", hint)]},
    )


def head_too_large() -> Answer:
    """Render a request whose head is larger than the gateway takes; metav1 has no reason for 431."""
    hint = "Send fewer or shorter headers; a user in very many groups can reach this too."
    return render_status(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "RequestEntityTooLarge",
        "the request's head is larger than the gateway takes",
        details={"causes": [_as_cause("INVALID_REQUEST", "CALLER", hint)]},
    )


def facade_failed() -> Answer:
    """Render a defect of the facade, of which nothing is told outside its log."""
    hint = "Look at the facade's log, and report what it says."
    return render_status(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "InternalError",
        "the facade failed; its log has the details",
        details={"causes": [_as_cause("INTERNAL", "FACADE", hint)]},
    )


def not_served() -> Answer:
    """Render that nothing is served at this path, in kube-apiserver's words for an unknown resource."""
    return render_status(
        HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource", details={}
    )


def not_acceptable(media_types: tuple[str, ...]) -> Answer:
    """Render that none of the media types that are served is acceptable to the caller."""
    served = ", ".join(media_types)
    return render_status(
        HTTPStatus.NOT_ACCEPTABLE, "NotAcceptable", f"only the following media types are accepted: {served}"
    )


def method_not_allowed(action: str, *, allow: str) -> Answer:
    """Render that clusters cannot be acted upon so.

    Args:
        action: The verb, for example "watch".
        allow: Value of the Allow header, which RFC 9110 section 15.5.6 requires.
    """
    return render_status(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        f'{action} is not supported on resources of kind "{_QUALIFIED_RESOURCE}"',
        details=_cluster_details(""),
        headers=(("Allow", allow),),
    )


def document_method_not_allowed(method: str, path: str) -> Answer:
    """Render that a document can only be read."""
    return render_status(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        f"{method} is not supported on {path}: it can only be read",
        headers=(("Allow", "GET, HEAD"),),
    )


def _cluster_details(cluster_name: str) -> dict[str, Any]:
    named = {"name": cluster_name} if cluster_name else {}
    return named | {"group": API_GROUP, "kind": CLUSTER_RESOURCE}


def _delay(seconds: float) -> dict[str, int]:
    return {"retryAfterSeconds": max(1, math.ceil(seconds))}


def _cause(error: CoreError) -> dict[str, str]:
    return _as_cause(error.reason, error.hop, error.hint or error.message)


def _as_cause(reason: str, hop: str, hint: str) -> dict[str, str]:
    return {"reason": reason, "message": hint, "field": f"hop:{hop}"}


def _sentence(error: CoreError) -> str:
    """Say which cluster, why, where, and as a second sentence what to do."""
    about = "" if error.cluster_name in error.message else f"cluster {error.cluster_name}: "
    hop = _HOP_WORDS.get(error.hop, error.hop.lower())
    told = f"{about}{error.message.rstrip('.')} (failed at {hop})"
    return f"{told}. {error.hint}" if error.hint else told
