"""Pure parts of carrying a request to a cluster."""

from __future__ import annotations

import pytest

from cluster_gateway_facade.handlers.proxy import _is_watch, _render_switch
from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse, Header, ResponseHead


@pytest.mark.parametrize(
    ("target", "watch"),
    [
        (b"/pods", False),
        (b"/pods?watch=true", True),
        (b"/pods?watch=1&x", True),
        (b"/pods?watch=", True),
        (b"/pods?watch", True),
        (b"/pods?watch=False", False),
        (b"/pods?watch=0", False),
        (b"/pods?watch=false&watch=true", False),
        (b"/pods?xwatch=true", False),
        (b"/watch=true", False),
    ],
)
def test_a_watch_is_told_by_the_first_parameter(target: bytes, watch: bool) -> None:  # noqa: FBT001
    assert _is_watch(target) is watch


def test_a_switch_carries_the_cluster_s_headers_this_hop_s_own_and_the_first_bytes_up_20() -> None:
    headers = [Header(name=b"Sec-WebSocket-Accept", value=b"x"), Header(name=b"connection", value=b"close")]
    message = ExchangeResponse(head=ResponseHead(status=101, headers=headers), body=b"first")
    assert _render_switch(message, "websocket") == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst"
    )
