"""Deciding who asks, in the order in which kube-apiserver's delegated authentication tries.

Front proxy, client certificate, bearer token, else anonymous. Identity is a request's, never a connection's: only
what a connection's certificate may vouch for is kept with the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from cluster_gateway_client.errors import CoreError
from clustergateway.access.v1.user_info_pb2 import UserInfo

from cluster_gateway_facade.authn.front_proxy import read_front_proxy_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clustergateway.access.v1.access_service_pb2 import FrontProxyTrust, WatchTrustResponse

    from cluster_gateway_facade.authn.peer_certificate import PeerCertificate

_AUTHENTICATED: Final = "system:authenticated"
_ANONYMOUS: Final = UserInfo(username="system:anonymous", groups=["system:unauthenticated"])


class TokenReviewer(Protocol):
    """Whose token it is, asked of the hub through a core."""

    async def review(self, token: str) -> UserInfo | None:
        """Return the token's user, None when the hub does not accept it; raises CoreError when it cannot be asked."""
        ...


class Authenticator:
    """Knows the trust anchors in force; `trust` is replaced whole when they change."""

    def __init__(self, tokens: TokenReviewer) -> None:
        self._tokens = tokens
        self.trust: WatchTrustResponse | None = None

    async def authenticate(
        self, headers: Sequence[tuple[bytes, bytes]], certificate: PeerCertificate | None
    ) -> UserInfo:
        """Say who asks.

        Args:
            headers: Of the request, as received.
            certificate: Of the connection, verified by TLS against one of the trusted CAs; None without one.

        Raises:
            CoreError: UNAUTHENTICATED when a credential is given and not accepted; or the core could not be asked.
        """
        if certificate is not None:
            user = self._by_certificate(headers, certificate)
            if user is not None:
                return user
        token = _bearer_token(headers)
        if token is None:
            return _ANONYMOUS
        user = await self._tokens.review(token)
        if user is None:
            raise CoreError(
                "UNAUTHENTICATED",
                "the hub does not accept the bearer token",
                hop="CALLER",
                hint="Renew the token, or reach the gateway through the hub.",
            )
        return user

    def is_front_proxy(self, certificate: PeerCertificate | None) -> bool:
        """Whether a connection is the hub's front proxy, whose identity headers are believed."""
        trust = self.trust
        return (
            certificate is not None
            and trust is not None
            and trust.HasField("front_proxy")
            and _is_front_proxy(certificate, trust.front_proxy)
        )

    def _by_certificate(
        self, headers: Sequence[tuple[bytes, bytes]], certificate: PeerCertificate
    ) -> UserInfo | None:
        trust = self.trust
        if trust is None:
            return None
        if self.is_front_proxy(certificate):
            user = read_front_proxy_user(headers, trust.front_proxy)
            if user is not None:
                return user
        if certificate.common_name and certificate.is_issued_by(trust.client_ca_pem):
            return UserInfo(
                username=certificate.common_name, groups=[*certificate.organizations, _AUTHENTICATED]
            )
        return None


def _is_front_proxy(certificate: PeerCertificate, trust: FrontProxyTrust) -> bool:
    allowed = not trust.allowed_names or certificate.common_name in trust.allowed_names
    return allowed and certificate.is_issued_by(trust.ca_pem)


def _bearer_token(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the token of the Authorization header; other schemes count as none, as with kube-apiserver."""
    for name, value in headers:
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").strip().partition(" ")
            return token.strip() or None if scheme.lower() == "bearer" else None
    return None
