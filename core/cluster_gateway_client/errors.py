"""Failures as a client of a core sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from clustergateway.errors.v1 import error_reason_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from clustergateway.errors.v1.error_reason_pb2 import Error

_REASON_PREFIX = "ERROR_REASON_"
_HOP_PREFIX = "HOP_"


class CoreError(Exception):
    """A request that the gateway failed; an HTTP error that a cluster answered is never one.

    Attributes:
        reason: Name of the `ErrorReason` without its prefix, for example "ACCESS_DENIED".
        message: One sentence for people.
        hop: Name of the `Hop` without its prefix, for example "NETWORK".
        cluster_name: The cluster it was for; empty for none.
        hint: What to do about it; may be empty.
        retry_after_seconds: When another try may help; None when it will not.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        hop: str = "CORE",
        cluster_name: str = "",
        hint: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hop = hop
        self.cluster_name = cluster_name
        self.hint = hint
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def from_message(cls, error: Error) -> CoreError:
        """Read the error that an exchange ended with."""
        return cls(
            _name(error_reason_pb2.ErrorReason, error.reason, _REASON_PREFIX, "INTERNAL"),
            error.message,
            hop=_name(error_reason_pb2.Hop, error.hop, _HOP_PREFIX, "CORE"),
            cluster_name=error.cluster_name,
            hint=error.hint,
            retry_after_seconds=_seconds(error),
        )

    @classmethod
    def from_rpc_error(cls, failure: grpc.aio.AioRpcError) -> CoreError:
        """Read the failure of a whole call: its details where the core sent some, else its status code."""
        status = rpc_status.from_call(failure)  # type: ignore[arg-type]  # AioRpcError has the same methods
        for detail in status.details if status else ():
            error = error_reason_pb2.Error()
            if detail.Unpack(error):
                return cls.from_message(error)
        code = failure.code()
        reason = _REASON_BY_CODE.get(code, "INTERNAL")
        retry = 1.0 if code is grpc.StatusCode.UNAVAILABLE else None
        return cls(
            reason,
            f"the routing core failed the call: {code.name}: {failure.details() or 'no details'}",
            hint="Look at the cores' health and logs." if reason == "CORE_UNAVAILABLE" else "",
            retry_after_seconds=retry,
        )


_REASON_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "CORE_UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "TIMEOUT",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "ACCESS_DENIED",
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_REQUEST",
    grpc.StatusCode.NOT_FOUND: "CLUSTER_NOT_FOUND",
}


def _name(enum: EnumTypeWrapper[Any], number: int, prefix: str, unknown: str) -> str:
    """Name of an enum value without its prefix; a number from a newer peer reads as `unknown`."""
    name = enum.Name(number) if number in enum.values() else ""
    return name.removeprefix(prefix) if number else unknown


def _seconds(error: Error) -> float | None:
    return error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None
