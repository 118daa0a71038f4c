"""The way of one request through the facade: who asks, for what, and by whom it is answered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade import status
from cluster_gateway_facade.authn.impersonation import impersonation_headers
from cluster_gateway_facade.exchange import ApiRequest
from cluster_gateway_facade.handlers.proxied_path import parse_proxied_target
from cluster_gateway_facade.handlers.proxy import proxy
from cluster_gateway_facade.handlers.router import Review
from cluster_gateway_facade.serving.message_rules import broken_rule
from cluster_gateway_facade.serving.response import CLOSES, write_answer
from clustergateway.access.v1.access_service_pb2 import NonResourceAttributes, ResourceAttributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from cluster_gateway_client.client import CoreClient
    from cluster_gateway_facade.authn.authenticator import Authenticator
    from cluster_gateway_facade.authn.peer_certificate import PeerCertificate
    from cluster_gateway_facade.core_access import CoreAccess
    from cluster_gateway_facade.exchange import Answer
    from cluster_gateway_facade.handlers.router import Router
    from clustergateway.access.v1.user_info_pb2 import UserInfo

_log = logging.getLogger(__name__)

_MAXIMUM_QUERY_PAIRS: Final = 1000


class Gateway:
    """Handles every request of the HTTPS endpoint."""

    def __init__(
        self,
        *,
        core: CoreClient,
        access: CoreAccess,
        authenticator: Authenticator,
        router: Router,
        peer_certificate: Callable[[web.BaseRequest], PeerCertificate | None],
    ) -> None:
        self._core = core
        self._access = access
        self._authenticator = authenticator
        self._router = router
        self._peer_certificate = peer_certificate

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        try:
            return await self._handle(request)
        except CoreError as error:
            return write_answer(request, status.answer_for(error))
        except ConnectionError:
            return CLOSES  # The client is gone.
        except Exception:  # noqa: BLE001 - logged, and every request gets an answer
            _log.exception("a request failed in the facade")
            defect = CoreError(
                "INTERNAL",
                "the facade failed; its log has the details",
                hop="FACADE",
                hint="Look at the facade's log, and report what it says.",
            )
            return write_answer(request, status.answer_for(defect), last=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        broken = broken_rule(request)
        if broken:
            return write_answer(request, status.bad_request(broken), last=True)
        target = request.raw_path.encode("utf-8", "surrogateescape")
        certificate = self._peer_certificate(request)
        proxied = parse_proxied_target(target)
        if proxied is None:
            return write_answer(request, await self._answer(request, certificate))
        user = await self._authenticator.authenticate(request.raw_headers, certificate)
        if proxied.cluster_name is None:
            return write_answer(request, status.bad_request("no cluster can have the name in the path"))
        headers = self._authenticator.without_identity(request.raw_headers)
        return await proxy(self._core, request, headers, proxied, user, self._forwarded_for(request, certificate))

    async def _answer(self, request: web.BaseRequest, certificate: PeerCertificate | None) -> Answer:
        """Answer a request that is for the gateway itself."""
        path, _, query = request.raw_path.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAXIMUM_QUERY_PAIRS)
        except ValueError:
            return status.bad_request("the request has too many query parameters")
        asked = ApiRequest(method=request.method, path=unquote(path), query=pairs, headers=request.headers)
        route = self._router.resolve(asked)
        if route.access is Review.NONE:
            return await route.handler(asked)
        user = await self._authenticator.authenticate(request.raw_headers, certificate)
        impersonation = impersonation_headers(request.raw_headers)
        if impersonation:
            user = await self._access.impersonate(user, impersonation)
        if isinstance(route.access, (ResourceAttributes, NonResourceAttributes)):
            refusal = await self._refusal(user, route.access)
            if refusal is not None:
                return refusal
        return await route.handler(asked.asked_by(user))

    async def _refusal(self, user: UserInfo, attributes: ResourceAttributes | NonResourceAttributes) -> Answer | None:
        decision = await self._access.authorize(user, attributes)
        return None if decision.allowed else status.forbidden(user.username, attributes, decision.reason)

    def _forwarded_for(self, request: web.BaseRequest, certificate: PeerCertificate | None) -> str:
        """Return the addresses for X-Forwarded-For: the hub's word for them is believed, nobody else's."""
        peer = request.remote
        addresses = [peer] if peer else []
        if self._authenticator.is_front_proxy(certificate):
            # The hub appends to what its caller sent, whatever that was.
            told = [value for value in request.headers.getall("X-Forwarded-For", []) if _is_plain(value)]
            addresses = [*told, *addresses]
        return ", ".join(addresses)


def _is_plain(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable()
