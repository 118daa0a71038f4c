from __future__ import annotations

import random

import pytest

from cluster_gateway_core.errors import AccessDeniedError, ExpiredError, GatewayError, HubUnavailableError
from cluster_gateway_core.hub.watch_events import must_relist, retry_delay_seconds


@pytest.mark.parametrize(
    ("error", "failures", "expected"),
    [
        (ExpiredError("gone"), 1, True),
        (HubUnavailableError("down", retry_after_seconds=1), 1, False),
        (HubUnavailableError("down", retry_after_seconds=1), 5, True),
        (HubUnavailableError("400"), 1, True),
        (AccessDeniedError("403"), 1, False),
    ],
)
def test_relists_when_resuming_cannot_help(error: GatewayError, failures: int, *, expected: bool) -> None:
    assert must_relist(error, failures) is expected


def test_delays_double_up_to_ten_seconds() -> None:
    longest = [retry_delay_seconds(failures, lambda _, high: high) for failures in range(1, 9)]
    assert longest == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert retry_delay_seconds(10_000, lambda low, _: low) == 5.0
    assert 0.1 <= retry_delay_seconds(1, random.uniform) <= 0.2
