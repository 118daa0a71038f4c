"""Whether the hub's authorizer lets a user do something: SubjectAccessReview, cached.

The numbers are kube-apiserver's for delegated authorization. Source: kubernetes/apiserver,
plugin/pkg/authorizer/webhook/webhook.go and pkg/server/options/authorization.go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Self

from cluster_gateway_core.errors import AccessDeniedError, GatewayError, HubUnavailableError
from cluster_gateway_core.hub.condition import Condition, FaultReport
from cluster_gateway_core.hub.json_values import as_object, as_text
from cluster_gateway_core.hub.retry import with_retries
from cluster_gateway_core.hub.review_cache import ReviewCache
from cluster_gateway_core.model.attributes import (
    CLUSTER_GATEWAYS,
    Attributes,
    Decision,
    NonResourceAttributes,
    ResourceAttributes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from cluster_gateway_core.hub.client import HubClient
    from cluster_gateway_core.model.user import UserInfo
    from cluster_gateway_core.settings import ReviewSettings

_LOGGER = logging.getLogger(__name__)
_PATH: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_MAXIMUM_CACHED_BYTES: Final = 10_000
"""Attributes of this size are not cached, lest a caller fills the memory (webhook.go, shouldCache)."""
_MAXIMUM_CACHED_USER_BYTES: Final = 32 * 1024
"""Users of this size are not cached either: some hundred groups, so that all that are kept take at most 256 MiB."""
_SUPERUSER: Final = Decision(allowed=True, reason="member of system:masters")
DELEGATOR_HINT: Final = "Bind ClusterRole system:auth-delegator to the gateway's service account on the hub."


class AccessReviewer:
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
        self._faults = FaultReport(_LOGGER, "access reviews", clock=clock)
        self._cache: ReviewCache[tuple[UserInfo, Attributes], Decision] = ReviewCache(
            capacity=settings.capacity, pending=settings.pending, name="access review", clock=clock
        )

    async def __aenter__(self) -> Self:
        await self._cache.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cache.__aexit__(kind, error, trace)

    def condition(self) -> Condition:
        """Always ready: a hub that cannot be asked must not take every replica out (SAR-15)."""
        return Condition(name="access-reviews", ready=True, detail=self._faults.text)

    async def review(self, user: UserInfo, attributes: Attributes) -> Decision:
        """Decide.

        Args:
            user: Who asks. Members of system:masters are allowed without asking, as in kube-apiserver.
            attributes: What is asked.

        Returns:
            The hub's decision, at most as old as the settings say.

        Raises:
            HubUnavailableError: The hub could not be asked; errors deny.
        """
        if user.is_superuser:
            return _SUPERUSER
        key = (user, attributes)
        decision = self._cache.peek(key)
        if decision is not None:
            return decision
        return await self._cache.ask(
            key, lambda: self._ask(user, attributes), lambda answer: self._ttl_seconds(user, attributes, answer)
        )

    async def require(self, user: UserInfo, attributes: Attributes) -> None:
        """Pass when the user may.

        Raises:
            AccessDeniedError: The user may not.
            HubUnavailableError: The hub could not be asked.
        """
        decision = await self.review(user, attributes)
        if not decision.allowed:
            raise denied_error(user, attributes, decision)

    async def _ask(self, user: UserInfo, attributes: Attributes) -> Decision:
        body = render_review(user, attributes)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await with_retries(lambda: self._client.post(_PATH, body))
        except (GatewayError, TimeoutError) as error:
            refused = isinstance(error, AccessDeniedError)
            cause = str(error) or f"no answer within {self._timeout_seconds:g} s"
            hint = DELEGATOR_HINT if refused else "Check that the gateway reaches the hub's API server."
            self._faults.report(f"the hub cannot be asked: {cause}. {hint}")
            # Not a denial: a controller takes a 403 as final, while this passes with the hub's trouble (SAR-15).
            raise HubUnavailableError(
                f"the hub could not be asked whether this is allowed: {cause}",
                cluster_name=_cluster_name(attributes),
                hint=hint,
                retry_after_seconds=None if refused else 1.0,
            ) from error
        self._faults.clear()
        return parse_decision(answer)

    def _ttl_seconds(self, user: UserInfo, attributes: Attributes, decision: Decision) -> float:
        if _size_bytes(attributes) >= _MAXIMUM_CACHED_BYTES or _size_of_user(user) >= _MAXIMUM_CACHED_USER_BYTES:
            return 0.0
        return self._settings.allowed_ttl_seconds if decision.allowed else self._settings.denied_ttl_seconds


def render_review(user: UserInfo, attributes: Attributes) -> dict[str, Any]:
    """Make the SubjectAccessReview: resource or path, never both (SAR-10)."""
    spec: dict[str, Any] = {"user": user.username, "groups": list(user.groups)}
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra}
    if isinstance(attributes, NonResourceAttributes):
        spec["nonResourceAttributes"] = {"verb": attributes.verb, "path": attributes.path}
    else:
        values = {
            "verb": attributes.verb,
            "group": attributes.group,
            "version": attributes.version,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "name": attributes.name,
            "namespace": attributes.namespace,
        }
        spec["resourceAttributes"] = {key: value for key, value in values.items() if value}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def parse_decision(review: Mapping[str, Any]) -> Decision:
    """Read the answer: only an unambiguous yes is one (SAR-9)."""
    status = as_object(review.get("status"))
    allowed, denied = status.get("allowed") is True, bool(status.get("denied"))
    if allowed and denied:
        return Decision(allowed=False, reason="the hub's review both allows and denies")
    return Decision(allowed=allowed, reason=as_text(status.get("reason")))


def denied_error(user: UserInfo, attributes: Attributes, decision: Decision) -> AccessDeniedError:
    """Say a denial in the words of kube-apiserver.

    Source: kubernetes/apiserver, pkg/endpoints/handlers/responsewriters/errors.go, forbiddenMessage.
    """
    reason = f": {decision.reason}" if decision.reason else ""
    if isinstance(attributes, NonResourceAttributes):
        return AccessDeniedError(f'User "{user.username}" cannot {attributes.verb} path "{attributes.path}"{reason}')
    resource = "/".join(filter(None, (attributes.resource, attributes.subresource)))
    scope = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return AccessDeniedError(
        f'User "{user.username}" cannot {attributes.verb} resource "{resource}" '
        f'in API group "{attributes.group}" {scope}{reason}',
        cluster_name=_cluster_name(attributes),
        hint=f"Grant {attributes.verb} on {resource} to this user or a group of theirs on the hub.",
    )


def _cluster_name(attributes: Attributes) -> str:
    if isinstance(attributes, ResourceAttributes) and attributes.resource == CLUSTER_GATEWAYS:
        return attributes.name
    return ""


def _size_of_user(user: UserInfo) -> int:
    extra = sum(len(key) + sum(map(len, values)) for key, values in user.extra)
    return len(user.username) + len(user.uid) + sum(map(len, user.groups)) + extra


def _size_bytes(attributes: Attributes) -> int:
    if isinstance(attributes, NonResourceAttributes):
        return len(attributes.verb) + len(attributes.path)
    return sum(
        map(
            len,
            (
                attributes.verb,
                attributes.group,
                attributes.version,
                attributes.resource,
                attributes.subresource,
                attributes.name,
                attributes.namespace,
            ),
        )
    )
