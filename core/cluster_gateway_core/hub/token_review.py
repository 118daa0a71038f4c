"""Whose bearer token it is: TokenReview, cached. Tokens are kept as digests only and never logged."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from cluster_gateway_core.errors import AccessDeniedError, GatewayError, HubUnavailableError
from cluster_gateway_core.hub.access_review import DELEGATOR_HINT
from cluster_gateway_core.hub.condition import Condition, FaultReport
from cluster_gateway_core.hub.json_values import as_list, as_object, as_text
from cluster_gateway_core.hub.retry import with_retries
from cluster_gateway_core.hub.review_cache import ReviewCache
from cluster_gateway_core.model.user import UserInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from cluster_gateway_core.hub.client import HubClient
    from cluster_gateway_core.settings import ReviewSettings

_LOGGER = logging.getLogger(__name__)
_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"


@dataclass(frozen=True, slots=True)
class _Answer:
    user: UserInfo | None
    expiry_seconds: float
    """Until when it is believed, by the reviewer's clock."""


class TokenReviewer:
    """Asks the hub and keeps the answers; an async context manager."""

    def __init__(
        self,
        client: HubClient,
        settings: ReviewSettings,
        *,
        timeout_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._faults = FaultReport(_LOGGER, "token reviews", clock=clock)
        self._cache: ReviewCache[bytes, _Answer] = ReviewCache(
            capacity=settings.capacity, pending=settings.pending, name="token review", clock=clock
        )

    async def __aenter__(self) -> Self:
        await self._cache.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cache.__aexit__(kind, error, trace)

    def condition(self) -> Condition:
        """Always ready; the detail says when the hub cannot be asked."""
        return Condition(name="token-reviews", ready=True, detail=self._faults.text)

    async def authenticate(self, token: str) -> UserInfo | None:
        """Identify a token's user.

        Args:
            token: The bearer token, without "Bearer ".

        Returns:
            The user; None when the hub does not accept the token.

        Raises:
            HubUnavailableError: The hub could not be asked.
        """
        user, _ = await self.review(token)
        return user

    async def review(self, token: str) -> tuple[UserInfo | None, float]:
        """As `authenticate`; returns also for how many seconds more the answer may be believed."""
        if not token:
            return None, 0.0
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        answer = await self._cache.ask(key, lambda: self._ask(token), lambda _: self._settings.token_ttl_seconds)
        return answer.user, max(answer.expiry_seconds - self._clock(), 0.0)

    async def _ask(self, token: str) -> _Answer:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        try:
            async with asyncio.timeout(self._timeout_seconds):
                review = await with_retries(lambda: self._client.post(_PATH, body))
        except (GatewayError, TimeoutError) as error:
            cause = str(error) or f"no answer within {self._timeout_seconds:g} s"
            refused = isinstance(error, AccessDeniedError)
            hint = DELEGATOR_HINT if refused else "Check that the gateway reaches the hub's API server."
            self._faults.report(f"the hub cannot be asked: {cause}. {hint}")
            raise HubUnavailableError(
                f"the hub could not be asked whose token this is: {cause}",
                hint=hint,
                retry_after_seconds=None if refused else 1.0,
            ) from error
        self._faults.clear()
        return _Answer(parse_user(review), self._clock() + self._settings.token_ttl_seconds)


def parse_user(review: Mapping[str, Any]) -> UserInfo | None:
    """Read the answer; everything but an explicit yes with a user name is a no."""
    status = as_object(review.get("status"))
    user = as_object(status.get("user"))
    username = as_text(user.get("username"))
    if status.get("authenticated") is not True or not username:
        return None
    extra = as_object(user.get("extra"))
    return UserInfo(
        username=username,
        uid=as_text(user.get("uid")),
        groups=tuple(as_list(user.get("groups"))),
        extra=tuple(sorted((key.lower(), tuple(as_list(values))) for key, values in extra.items())),
    )
