"""Failures as a client of a core sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
from grpc_status import rpc_status

from clustergateway.errors.v1 import error_reason_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clustergateway.errors.v1.error_reason_pb2 import Error

_REASONS: Mapping[int, str] = {number: name for name, number in error_reason_pb2.ErrorReason.items()}
_HOPS: Mapping[int, str] = {number: name for name, number in error_reason_pb2.Hop.items()}
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
            _name(_REASONS, error.reason, _REASON_PREFIX, "INTERNAL"),
            error.message,
            hop=_name(_HOPS, error.hop, _HOP_PREFIX, "CORE"),
            cluster_name=error.cluster_name,
            hint=error.hint,
            retry_after_seconds=_seconds(error),
        )

    @classmethod
    def from_rpc_error(cls, failure: grpc.aio.AioRpcError) -> CoreError:
        """Read the failure of a whole call: its details where the core sent some, else its status code."""
        # AioRpcError has the methods that this reads; google.rpc has no types.
        status = cast("Any", rpc_status).from_call(failure)
        for detail in status.details if status else ():
            error = error_reason_pb2.Error()
            if detail.Unpack(error):
                return cls.from_message(error)
        code = failure.code()
        reason = _REASON_BY_CODE.get(code, "INTERNAL")
        retry = 1.0 if reason in ("CORE_UNAVAILABLE", "OVERLOADED") else None
        return cls(
            reason,
            f"the routing core failed the call: {code.name}: {failure.details() or 'no details'}",
            hint=_HINTS.get(reason, _LOOK_AT_CORES),
            retry_after_seconds=retry,
        )


_LOOK_AT_CORES = "Look at the cores' health and logs."
_HINTS = {
    "OVERLOADED": "Ask again a little later.",
    "UNAUTHENTICATED": "Check the client's certificate or token, and what the core trusts.",
    "ACCESS_DENIED": "Check the client's certificate or token, and what the core trusts.",
    "INVALID_REQUEST": "Check that client and core are of the same release.",
}
_REASON_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "CORE_UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "CORE_UNAVAILABLE",  # a core that is killed resets its streams so
    grpc.StatusCode.DEADLINE_EXCEEDED: "TIMEOUT",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "ACCESS_DENIED",
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_REQUEST",
    grpc.StatusCode.NOT_FOUND: "CLUSTER_NOT_FOUND",
}


def _name(names: Mapping[int, str], number: int, prefix: str, unknown: str) -> str:
    """Name of an enum value without its prefix; none, or a number from a newer peer, reads as `unknown`."""
    return names[number].removeprefix(prefix) if number and number in names else unknown


def _seconds(error: Error) -> float | None:
    return error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None
