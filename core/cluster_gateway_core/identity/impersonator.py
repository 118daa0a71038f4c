"""Callers who act as somebody else, as at the hub: each piece of the other identity is authorized by the hub first."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from cluster_gateway_core.errors import AccessDeniedError, HubUnavailableError
from cluster_gateway_core.routing.impersonation import parse_impersonation

if TYPE_CHECKING:
    from cluster_gateway_core.model.attributes import Attributes, ResourceAttributes
    from cluster_gateway_core.model.http import Headers
    from cluster_gateway_core.model.user import UserInfo

_log = logging.getLogger(__name__)

_REVIEWS_SECONDS: Final = 30.0
"""Limit of all the reviews of one request together; each has one of its own."""


class Authorizer(Protocol):
    """The hub's authorizer; `hub.access_review.AccessReviewer` is."""

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        """Pass when the user may; AccessDeniedError when not, HubUnavailableError when the hub cannot be asked."""
        ...


class Impersonator:
    """Turns a caller and its impersonation headers into the user for whom the request is handled."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def impersonate(self, caller: UserInfo, headers: Headers) -> UserInfo:
        """Return the user whom the caller acts as.

        Reviews are asked one after the other and the first denial is the last, so that a caller without the right
        costs the hub one review.

        Args:
            caller: Who asks.
            headers: The request's `Impersonate-*` headers alone, at least one.

        Raises:
            InvalidRequestError: The headers break a rule.
            AccessDeniedError: The caller may not act so, or the hub could not be asked.
        """
        impersonation = parse_impersonation(headers)
        try:
            async with asyncio.timeout(_REVIEWS_SECONDS):
                for attributes in impersonation.required:
                    await self._require(caller, attributes)
        except TimeoutError as error:
            raise AccessDeniedError(
                f"the hub did not say within {_REVIEWS_SECONDS:g} seconds whether all of the impersonation is allowed",
                retry_after_seconds=1,
            ) from error
        _log.info('"%s" acts as "%s"', caller.username, impersonation.user.username)
        return impersonation.user

    async def _require(self, caller: UserInfo, attributes: ResourceAttributes) -> None:
        try:
            await self._authorizer.require(caller, attributes)
        except (AccessDeniedError, HubUnavailableError) as error:
            # kube-apiserver's filter, too, makes no difference between the two: nobody acts as another unreviewed.
            resource = "/".join(filter(None, (attributes.resource, attributes.subresource)))
            raise AccessDeniedError(
                f'{resource} "{attributes.name}" is forbidden: {error.message}',
                hint=error.hint,
                retry_after_seconds=error.retry_after_seconds,
            ) from error
