from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster_gateway_core.errors import AccessDeniedError, GatewayError, HubUnavailableError
from cluster_gateway_core.identity import impersonator
from cluster_gateway_core.identity.impersonator import Impersonator
from cluster_gateway_core.model.user import UserInfo

if TYPE_CHECKING:
    from cluster_gateway_core.model.attributes import Attributes

_ALICE = UserInfo(username="alice")
_HEADERS = [(b"Impersonate-User", b"tony")]


class BrokenAuthorizer:
    """Cannot be asked, or never answers."""

    def __init__(self, error: GatewayError | None) -> None:
        self._error = error

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        if self._error is None:
            await asyncio.Event().wait()
        else:
            raise self._error


async def test_a_hub_that_cannot_be_asked_denies() -> None:
    """IM-2."""
    failure = HubUnavailableError("the hub could not be asked", hint="look at it", retry_after_seconds=1)
    with pytest.raises(AccessDeniedError, match='users "tony" is forbidden: the hub could not be asked') as denied:
        await Impersonator(BrokenAuthorizer(failure)).impersonate(_ALICE, _HEADERS)
    assert (denied.value.hint, denied.value.retry_after_seconds) == ("look at it", 1)


async def test_reviews_that_take_too_long_together_deny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impersonator, "_REVIEWS_SECONDS", 0.01)
    with pytest.raises(AccessDeniedError, match="did not say"):
        await Impersonator(BrokenAuthorizer(None)).impersonate(_ALICE, _HEADERS)
