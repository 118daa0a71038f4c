"""The core's errors as messages and as gRPC statuses: one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from cluster_gateway_core.errors import (
    AccessDeniedError,
    ClusterMisconfiguredError,
    ClusterNotFoundError,
    ClusterUnreachableError,
    ConflictError,
    CredentialRejectedError,
    ExpiredError,
    GatewayError,
    HubUnavailableError,
    IdentityExchangeFailedError,
    InternalError,
    InvalidRequestError,
    InvalidResponseError,
    OverloadedError,
    RegistryNotSyncedError,
    ResponseTruncatedError,
    ShuttingDownError,
    TLSFailedError,
    UnauthenticatedError,
    UpstreamTimeoutError,
)
from clustergateway.errors.v1 import error_reason_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

ERROR_DOMAIN: Final = "cluster.core.oam.dev"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_MAXIMUM_TEXT_BYTES: Final = 900
"""Message and hint are cut here: together with their copies in trailing metadata they must stay below the
8 KiB from which gRPC refuses metadata at random. The message travels three times, once percent-encoded."""

_CODES: Final[dict[type[GatewayError], grpc.StatusCode]] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    AccessDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    ClusterNotFoundError: grpc.StatusCode.NOT_FOUND,
    ClusterMisconfiguredError: grpc.StatusCode.FAILED_PRECONDITION,
    RegistryNotSyncedError: grpc.StatusCode.UNAVAILABLE,
    ClusterUnreachableError: grpc.StatusCode.UNAVAILABLE,
    TLSFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    CredentialRejectedError: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidResponseError: grpc.StatusCode.INTERNAL,
    ResponseTruncatedError: grpc.StatusCode.UNAVAILABLE,
    UpstreamTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ShuttingDownError: grpc.StatusCode.UNAVAILABLE,
    HubUnavailableError: grpc.StatusCode.UNAVAILABLE,
    ConflictError: grpc.StatusCode.ABORTED,
    ExpiredError: grpc.StatusCode.OUT_OF_RANGE,
    IdentityExchangeFailedError: grpc.StatusCode.UNAVAILABLE,
    InternalError: grpc.StatusCode.INTERNAL,
}


def code_of(error: GatewayError) -> grpc.StatusCode:
    """Code of gRPC for an error."""
    return _CODES[type(error)]


def render_error(error: GatewayError) -> error_reason_pb2.Error:
    """Turn an error into the message that a response ends with."""
    message = error_reason_pb2.Error(
        reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        message=_cut(error.message),
        hop=error_reason_pb2.Hop.Value(f"HOP_{error.hop.value}"),
        cluster_name=error.cluster_name,
        hint=_cut(error.hint),
    )
    if error.retry_after_seconds is not None:
        message.retry_after.CopyFrom(_duration(error.retry_after_seconds))
    return message


def render_status(error: GatewayError) -> status_pb2.Status:
    """Turn an error into a google.rpc.Status whose details hold it whole.

    ErrorInfo and RetryInfo repeat a part of it for clients that know only Google's error model (AIP-193).
    """
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=ERROR_DOMAIN,
        metadata={"cluster": error.cluster_name, "hop": error.hop.value},
    )
    details: list[Message] = [render_error(error), info]
    if error.retry_after_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_seconds)))
    return status_pb2.Status(
        code=code_pb2.Code.Value(code_of(error).name),
        message=_cut(error.message),
        details=[_pack(detail) for detail in details],
    )


async def abort_with(context: grpc.aio.ServicerContext[Any, Any], error: GatewayError) -> NoReturn:
    """End a call with an error; raises what gRPC's abort raises."""
    status = render_status(error)
    await context.abort(code_of(error), status.message, ((_DETAILS_KEY, status.SerializeToString()),))
    raise error


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1_000_000_000))
    return duration


def _cut(text: str) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= _MAXIMUM_TEXT_BYTES:
        return encoded.decode()
    return encoded[: _MAXIMUM_TEXT_BYTES - 3].decode("utf-8", "ignore") + "..."
