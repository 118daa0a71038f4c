from __future__ import annotations

import pytest

from cluster_gateway_core.model.http import RequestHead
from cluster_gateway_core.upstream.request_head import Framing, render_request_head


@pytest.mark.parametrize(
    ("base_path", "target", "line"),
    [
        (b"/base", b"/api/", b"GET /base/api/ HTTP/1.1"),  # RT-5
        (b"", b"/api", b"GET /api HTTP/1.1"),
    ],
)
def test_base_path_goes_before_the_target(base_path: bytes, target: bytes, line: bytes) -> None:
    request = RequestHead(method="GET", target=target, headers=())
    head = render_request_head(request, (), Framing(), base_path=base_path, own_headers=b"Host: a\r\n")
    assert head == line + b"\r\nHost: a\r\n\r\n"
