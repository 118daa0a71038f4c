from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from cluster_gateway_client.errors import CoreError
from cluster_gateway_core.errors import (
    AccessDeniedError,
    ClusterUnreachableError,
    GatewayError,
    Hop,
    OverloadedError,
)
from cluster_gateway_core.server.status_mapping import ERROR_DOMAIN, code_of, render_error, render_status
from clustergateway.errors.v1 import error_reason_pb2


def leaf_classes() -> list[type[GatewayError]]:
    found = [cls for cls in GatewayError.__subclasses__() if cls.__module__ == GatewayError.__module__]
    assert found
    return found


def make(cls: type[GatewayError]) -> GatewayError:
    return cls("c1" if "cluster_name" in cls.__init__.__annotations__ else "text")


@pytest.mark.parametrize("cls", leaf_classes())
def test_every_error_has_a_code_a_reason_and_a_hop(cls: type[GatewayError]) -> None:
    error = make(cls)
    assert code_of(error) is not grpc.StatusCode.OK
    message = render_error(error)
    assert error_reason_pb2.ErrorReason.Name(message.reason) == f"ERROR_REASON_{cls.reason}"
    assert message.hop != error_reason_pb2.HOP_UNSPECIFIED


def test_every_reason_has_an_error() -> None:
    reasons = {f"ERROR_REASON_{cls.reason}" for cls in leaf_classes()} | {"ERROR_REASON_UNSPECIFIED"}
    assert reasons == set(error_reason_pb2.ErrorReason.keys())


@pytest.mark.parametrize("hop", list(Hop))
def test_every_hop_has_a_number(hop: Hop) -> None:
    assert render_error(AccessDeniedError("no", hop=hop)).hop == error_reason_pb2.Hop.Value(f"HOP_{hop}")


def test_a_status_holds_the_error_and_googles_own_details() -> None:
    error = ClusterUnreachableError("dial tcp: refused", cluster_name="c1", hint="start it", retry_after_seconds=1.5)
    status = render_status(error)
    assert (status.code, status.message) == (14, "dial tcp: refused")
    whole = error_reason_pb2.Error()
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert all(detail.Unpack(kind) for detail, kind in zip(status.details, (whole, info, retry), strict=True))
    assert whole == render_error(error)
    assert whole.hint == "start it"
    assert (info.reason, info.domain) == ("CLUSTER_UNREACHABLE", ERROR_DOMAIN)
    assert dict(info.metadata) == {"cluster": "c1", "hop": "NETWORK"}
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert CoreError.from_message(whole).retry_after_seconds == 1.5


def test_no_retry_is_announced_where_it_does_not_help() -> None:
    status = render_status(OverloadedError("full"))
    assert len(status.details) == 2


def test_a_long_text_is_cut_below_what_metadata_carries() -> None:
    error = AccessDeniedError("ä" * 100_000, hint="ö" * 100_000, cluster_name="c" * 253)
    status = render_status(error)
    assert status.message.endswith("...")
    # The status travels base64-encoded, the message once more percent-encoded.
    assert status.ByteSize() * 4 / 3 + 3 * len(status.message.encode()) < 8192
