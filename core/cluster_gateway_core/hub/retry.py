"""Tries a review again as kube-apiserver's webhook clients do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from cluster_gateway_core.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AnswerT = TypeVar("AnswerT")

_TRIES: Final = 5
_FIRST_DELAY_SECONDS: Final = 0.5
_FACTOR: Final = 1.5


async def with_retries(
    call: Callable[[], Awaitable[AnswerT]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AnswerT:
    """Call up to five times, 0.5 s apart and half as long again each time (SAR-2).

    Args:
        call: Asks the hub. An error without `retry_after_seconds`, such as 401, 403 or 404, is final (SAR-3).
        sleep: Waits; the caller sets the deadline of the whole.

    Returns:
        The first answer.

    Raises:
        GatewayError: That of the last try.

    Source:
        kubernetes/apiserver, pkg/server/options/authentication.go, DefaultAuthWebhookRetryBackoff.
    """
    delay = _FIRST_DELAY_SECONDS
    for _ in range(_TRIES - 1):
        try:
            return await call()
        except GatewayError as error:
            if error.retry_after_seconds is None:
                raise
            await sleep(delay)
        delay *= _FACTOR
    return await call()
