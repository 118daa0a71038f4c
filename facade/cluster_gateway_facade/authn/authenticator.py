"""Deciding who asks, in the order in which kube-apiserver's delegated authentication tries.

Front proxy, client certificate, bearer token, else anonymous. Identity is a request's, never a connection's:
only what a connection's certificate may vouch for is kept with the connection. A certificate that vouches for
nobody is no anonymous user either: it is refused.

Source:
    kubernetes/apiserver, pkg/authentication/authenticatorfactory/delegating.go, New.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from cluster_gateway_client.errors import CoreError
from cluster_gateway_facade.authn.front_proxy import read_front_proxy_user
from clustergateway.access.v1.user_info_pb2 import UserInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_facade.authn.anchors import TrustAnchors
    from cluster_gateway_facade.authn.peer_certificate import PeerCertificate

_AUTHENTICATED: Final = "system:authenticated"
_ANONYMOUS: Final = UserInfo(username="system:anonymous", groups=["system:unauthenticated"])


class TokenReviewer(Protocol):
    """Whose token it is, asked of the hub through a core."""

    async def review(self, token: str) -> UserInfo | None:
        """Return the token's user, None when the hub does not accept it.

        Raises:
            CoreError: The hub could not be asked.
        """
        ...


class Authenticator:
    """Knows the trust anchors in force; `trust` is replaced whole when they change."""

    def __init__(self, tokens: TokenReviewer) -> None:
        self._tokens = tokens
        self.trust: TrustAnchors | None = None

    async def authenticate(
        self, headers: Sequence[tuple[bytes, bytes]], certificate: PeerCertificate | None
    ) -> UserInfo:
        """Say who asks.

        Args:
            headers: Of the request, as received.
            certificate: Of the connection, verified by TLS against one of the trusted CAs; None without one.

        Raises:
            CoreError: UNAUTHENTICATED when a credential is given and not accepted; or the core could not be
                asked.
        """
        if certificate is not None:
            user = self._by_certificate(headers, certificate)
            if user is not None:
                return user
        token = _bearer_token(headers)
        if token is None:
            if certificate is not None:
                raise _unknown_certificate()
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

    def without_identity(self, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Return the headers without those in which this hub names users, whoever sent them.

        The usual `X-Remote-*` are left to the core, which drops them for every caller; nothing is done where the hub
        has no others.

        Source:
            kubernetes/apiserver, pkg/authentication/request/headerrequest/requestheader.go, ClearAuthenticationHeaders.
        """
        anchor = self.trust.front_proxy if self.trust is not None else None
        if anchor is None or not (anchor.own_headers or anchor.own_prefixes):
            return headers
        return [
            header
            for header in headers
            if (alike := header[0].lower().replace(b"_", b"-")) not in anchor.own_headers
            and not alike.startswith(anchor.own_prefixes)
        ]

    def is_front_proxy(self, certificate: PeerCertificate | None) -> bool:
        """Whether a connection is the hub's front proxy, whose identity headers are believed."""
        anchor = self.trust.front_proxy if self.trust is not None else None
        if certificate is None or anchor is None:
            return False
        allowed = not anchor.allowed_names or certificate.common_name in anchor.allowed_names
        return allowed and certificate.is_issued_by(anchor.ca)

    def _by_certificate(self, headers: Sequence[tuple[bytes, bytes]], certificate: PeerCertificate) -> UserInfo | None:
        trust = self.trust
        if trust is None:
            return None
        if trust.front_proxy is not None and self.is_front_proxy(certificate):
            user = read_front_proxy_user(headers, trust.front_proxy)
            if user is not None:
                return _with_authenticated_group(user)
        if certificate.common_name and certificate.is_issued_by(trust.client_ca):
            return UserInfo(username=certificate.common_name, groups=[*certificate.organizations, _AUTHENTICATED])
        return None


def _with_authenticated_group(user: UserInfo) -> UserInfo:
    """Add the group of everybody who is known, as every aggregated API server does to what the front proxy says.

    The hub fetches OpenAPI documents as "system:aggregator" without any group.

    Source:
        kubernetes/apiserver, pkg/authentication/group/authenticated_group_adder.go;
        kubernetes/kube-aggregator, pkg/controllers/openapi/aggregator/downloader.go.
    """
    if user.username != _ANONYMOUS.username and not {_AUTHENTICATED, *_ANONYMOUS.groups} & set(user.groups):
        user.groups.append(_AUTHENTICATED)
    return user


def _unknown_certificate() -> CoreError:
    return CoreError(
        "UNAUTHENTICATED",
        "the client certificate is neither the front proxy's nor a user's of the hub",
        hop="CALLER",
        hint="Use a certificate that the hub accepts, or reach the gateway through the hub.",
    )


def _bearer_token(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the token of the Authorization header; other schemes and empty tokens count as none.

    Source:
        kubernetes/apiserver, pkg/authentication/request/bearertoken/bearertoken.go.
    """
    for name, value in headers:
        if name.lower() == b"authorization":
            scheme, _, rest = value.decode("latin-1").strip().partition(" ")
            return rest.partition(" ")[0] or None if scheme.lower() == "bearer" else None
    return None
