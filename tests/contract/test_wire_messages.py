"""Messages as bytes on the wire, written down: a changed number or type breaks running cores and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster_gateway_core.errors import ClusterUnreachableError, GatewayError
from cluster_gateway_core.server.status_mapping import render_error
from clustergateway.access.v1.user_info_pb2 import UserInfo
from clustergateway.errors.v1 import error_reason_pb2
from clustergateway.routing.v1.routing_service_pb2 import (
    ExchangeRequest,
    ExchangeResponse,
    Header,
    RequestEnd,
    RequestHead,
    ResponseEnd,
    ResponseHead,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

_UNREACHABLE = ClusterUnreachableError("m", cluster_name="c", hint="h", retry_after_seconds=5)

GOLDEN = {
    "head and end": (
        ExchangeRequest(
            head=RequestHead(
                cluster_name="c",
                method="GET",
                target=b"/x",
                headers=[Header(name=b"A", value=b"b")],
                asserted_user=UserInfo(username="jane"),
                forwarded_for="1.2.3.4",
                upgrade="websocket",
                expect_continue=True,
            ),
            end=RequestEnd(),
        ),
        "0a320a016312034745541a022f7822060a01411201622a060a046a616e653207312e322e332e343a09776562736f636b657440011a00",
    ),
    "request body": (ExchangeRequest(body=b"hi"), "12026869"),
    "response": (
        ExchangeResponse(
            head=ResponseHead(status=200, reason=b"OK", headers=[Header(name=b"A", value=b"b")]),
            body=b"hi",
            end=ResponseEnd(),
        ),
        "0a0f08c80112024f4b1a060a0141120162120268691a00",
    ),
    "proceed": (ExchangeResponse(proceed=True), "2001"),
    "error": (
        ExchangeResponse(end=ResponseEnd(error=render_error(_UNREACHABLE))),
        "1a130a11080712016d18052201632a016832020805",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_message_keeps_its_bytes(name: str) -> None:
    message, golden = GOLDEN[name]
    kind: type[Message] = type(message)

    assert message.SerializeToString(deterministic=True).hex() == golden
    assert kind.FromString(bytes.fromhex(golden)) == message


def leaves(base: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from leaves(kind)


@pytest.mark.parametrize("kind", list(leaves()), ids=lambda kind: kind.__name__)
def test_every_error_of_the_core_has_a_reason_and_hop_on_the_wire(kind: type[GatewayError]) -> None:
    assert error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{kind.reason}")
    assert error_reason_pb2.Hop.Value(f"HOP_{kind.default_hop}")


def test_every_reason_on_the_wire_is_one_of_the_cores() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name, number in error_reason_pb2.ErrorReason.items() if number}

    assert reasons == {kind.reason for kind in leaves()}
