"""What the facade asks of the cores besides exchanges: trust anchors, reviews and the registry."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import grpc

from cluster_gateway_client.errors import CoreError
from clustergateway.access.v1.access_service_pb2 import (
    AuthenticateRequest,
    AuthorizeRequest,
    ImpersonateRequest,
    ImpersonationHeader,
    NonResourceAttributes,
    ResourceAttributes,
    WatchTrustRequest,
)
from clustergateway.registry.v1.registry_service_pb2 import GetClusterRequest, ListClustersRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster_gateway_client.client import CoreClient
    from clustergateway.access.v1.access_service_pb2 import AuthorizeResponse, WatchTrustResponse
    from clustergateway.access.v1.user_info_pb2 import UserInfo
    from clustergateway.registry.v1.cluster_pb2 import Cluster
    from clustergateway.registry.v1.registry_service_pb2 import ListClustersResponse

_log = logging.getLogger(__name__)

_DEADLINE_SECONDS: Final = 15.0
"""Limit of one question: above the ten seconds that a core gives the hub."""
_IMPERSONATION_SECONDS: Final = 35.0
"""Limit of acting as somebody else, many questions to the hub: above the thirty seconds that a core gives them."""
_TRUST_RETRY_SECONDS: Final = 0.2
_LONGEST_TRUST_RETRY_SECONDS: Final = 5.0
_CACHED_TOKENS: Final = 4096


class CoreAccess:
    """Asks the cores; every failure is a CoreError."""

    def __init__(self, core: CoreClient) -> None:
        self._core = core
        self._tokens: OrderedDict[bytes, tuple[float, UserInfo | None]] = OrderedDict()

    async def review(self, token: str) -> UserInfo | None:
        """Return a bearer token's user, None when the hub does not accept it.

        An answer is believed for as long as the core says; the token itself is never kept.
        """
        digest = hashlib.sha256(token.encode()).digest()
        now = asyncio.get_running_loop().time()
        cached = self._tokens.get(digest)
        if cached is not None and now < cached[0]:
            return cached[1]
        try:
            response = await self._core.access.Authenticate(AuthenticateRequest(token=token), timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CoreError.from_rpc_error(error) from error
        user = response.user if response.HasField("user") else None
        # Counted from before the question, so that its way here is not added to the core's time.
        self._tokens[digest] = (now + response.believed_for.ToMilliseconds() / 1000, user)
        if len(self._tokens) > _CACHED_TOKENS:
            self._tokens.popitem(last=False)
        return user

    async def authorize(
        self, user: UserInfo, attributes: ResourceAttributes | NonResourceAttributes
    ) -> AuthorizeResponse:
        """Ask whether a user may do something."""
        question = AuthorizeRequest(user=user)
        if isinstance(attributes, ResourceAttributes):
            question.resource.CopyFrom(attributes)
        else:
            question.non_resource.CopyFrom(attributes)
        try:
            return await self._core.access.Authorize(question, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CoreError.from_rpc_error(error) from error

    async def impersonate(self, user: UserInfo, headers: Sequence[tuple[bytes, bytes]]) -> UserInfo:
        """Ask whom a user acts as who sends these `Impersonate-*` headers."""
        question = ImpersonateRequest(
            user=user, headers=[ImpersonationHeader(name=name, value=value) for name, value in headers]
        )
        try:
            return (await self._core.access.Impersonate(question, timeout=_IMPERSONATION_SECONDS)).user
        except grpc.aio.AioRpcError as error:
            raise CoreError.from_rpc_error(error) from error

    async def get(self, name: str, user: UserInfo) -> Cluster:
        """Read one cluster."""
        question = GetClusterRequest(name=name, asserted_user=user)
        try:
            return (await self._core.registry.GetCluster(question, timeout=_DEADLINE_SECONDS)).cluster
        except grpc.aio.AioRpcError as error:
            raise CoreError.from_rpc_error(error) from error

    async def list(
        self, *, label_selector: str, page_size: int, page_token: str, user: UserInfo
    ) -> ListClustersResponse:
        """Read one page of clusters."""
        question = ListClustersRequest(
            label_selector=label_selector, page_size=page_size, page_token=page_token, asserted_user=user
        )
        try:
            return await self._core.registry.ListClusters(question, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CoreError.from_rpc_error(error) from error


class TrustWatch:
    """Follows the trust anchors that a core streams, for as long as the facade runs.

    Attributes:
        fault: Why there are none yet; empty once there are some. Losing the core later keeps the last.
        note: What is wrong with the newest ones, where older ones are in force; empty when nothing is.
    """

    def __init__(self, core: CoreClient, apply: Callable[[WatchTrustResponse], None]) -> None:
        self._core = core
        self._apply = apply
        self.fault = "the routing core has not sent usable trust anchors of the hub yet"
        self.note = ""
        self._call: grpc.aio.UnaryStreamCall[WatchTrustRequest, WatchTrustResponse] | None = None
        core.when_channel_changes(self._begin_anew)

    async def run(self) -> None:
        """Watch until cancelled, beginning anew whenever the stream ends."""
        delay = _TRUST_RETRY_SECONDS
        while True:
            self._call = self._core.access.WatchTrust(WatchTrustRequest(), wait_for_ready=True)
            try:
                async for anchors in self._call:
                    delay = _TRUST_RETRY_SECONDS
                    self._take(anchors)
            except grpc.aio.AioRpcError as error:
                _log.warning("watching the trust anchors failed: %s: %s", error.code().name, error.details())
            except asyncio.CancelledError:
                # The library raises this for a call that was cancelled, as well as for a task that is.
                if _being_cancelled():
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_TRUST_RETRY_SECONDS)

    def _begin_anew(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _take(self, anchors: WatchTrustResponse) -> None:
        try:
            self._apply(anchors)
        except ValueError as error:
            _log.error("the hub's trust anchors cannot be used, the last ones stay: %s", error)
            self.note = "the hub's newest trust anchors cannot be used"
        else:
            self.fault = self.note = ""


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
