"""Who a gRPC client is.

A client on the private unix socket is a facade. One with a certificate is a facade when the facade CA signed
it and its common name is allowed, and a user of the hub when the hub's client CA signed it: the name alone
proves nothing, since the hub signs any name for its users. One without presents a bearer token.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from cryptography import x509
from cryptography.x509.oid import NameOID

from cluster_gateway_core.errors import AccessDeniedError, UnauthenticatedError
from cluster_gateway_core.model.user import UserInfo
from cluster_gateway_transport.certificate_chain import find_validity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc

    from cluster_gateway_core.model.trust import TrustAnchors
    from cluster_gateway_core.settings import ServingSettings
    from clustergateway.access.v1 import user_info_pb2

_LOGGER = logging.getLogger(__name__)
_CAPACITY: Final = 1024
_FILE_CHECK_SECONDS: Final = 5.0
_AUTHENTICATED_GROUP: Final = "system:authenticated"
_BEARER: Final = "bearer "


class TokenAuthenticator(Protocol):
    """Knows whose bearer token it is; `hub.token_review.TokenReviewer` does."""

    async def authenticate(self, token: str) -> UserInfo | None:
        """Identify a token's user; None when it is not accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """A client certificate, understood.

    Attributes:
        facade: Whether it is a facade's.
        user: The hub's user that it names; None for none.
        not_before: Start of the validity of it and of what leads to its authority, seconds since 1970.
        not_after: End of that validity.
    """

    facade: bool
    user: UserInfo | None
    not_before: float
    not_after: float


_NOBODY: Final = _Peer(facade=False, user=None, not_before=0.0, not_after=float("inf"))


class CallerResolver:
    """Tells callers apart; certificates are understood once and remembered by digest."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        trust: Callable[[], TrustAnchors],
        tokens: TokenAuthenticator,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._facade_names = frozenset(settings.facade_names)
        self._facade_ca = _FacadeCA(settings.facade_ca_file)
        self._trust = trust
        self._tokens = tokens
        self._wall_clock = wall_clock
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()
        self._peers_trust: tuple[bytes, bytes] = (b"", b"")

    def is_facade(self, context: grpc.aio.ServicerContext[Any, Any]) -> bool:
        """Whether the client is a facade, whose word about users is believed."""
        authentication = cast("Mapping[str, list[bytes]]", context.auth_context())
        if _is_private_socket(context, authentication):
            return True
        certificate = authentication.get("x509_pem_cert")
        return self._peer(certificate[0], authentication).facade if certificate else False

    def require_facade(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Pass for facades only.

        Raises:
            AccessDeniedError: The client is none.
        """
        if not self.is_facade(context):
            raise AccessDeniedError(
                "only facades may call this method",
                hint="Let the facade's client certificate be signed by the facade CA, with an allowed name.",
            )

    async def resolve(
        self, context: grpc.aio.ServicerContext[Any, Any], asserted: user_info_pb2.UserInfo | None
    ) -> UserInfo:
        """Find out for whom a call is made.

        Args:
            context: The call's.
            asserted: The user that the request names; None when it names none.

        Returns:
            The asserted user for a facade, the client itself for anybody else.

        Raises:
            UnauthenticatedError: The client cannot be identified, or a facade names no user.
            AccessDeniedError: A client other than a facade names a user.
            HubUnavailableError: The hub could not be asked whose token it is.
        """
        if self.is_facade(context):
            if asserted is None or not asserted.username:
                raise UnauthenticatedError("a facade must name the user for whom it asks", hint="Set asserted_user.")
            return parse_user_info(asserted)
        user = await self._resolve_itself(context)
        if asserted is not None:
            raise AccessDeniedError(
                f'client "{user.username}" is no facade and may not ask for another user',
                hint="Leave asserted_user unset.",
            )
        return user

    async def _resolve_itself(self, context: grpc.aio.ServicerContext[Any, Any]) -> UserInfo:
        authentication = cast("Mapping[str, list[bytes]]", context.auth_context())
        if authentication.get("transport_security_type") != [b"ssl"]:
            raise UnauthenticatedError("calls without TLS are served on the private socket only")
        certificate = authentication.get("x509_pem_cert")
        if certificate:
            user = self._peer(certificate[0], authentication).user
            if user is None:
                raise UnauthenticatedError(
                    "the client certificate is not a valid one of the hub's client CA",
                    hint="Use a certificate that the hub's API server accepts, or a bearer token.",
                )
            return user
        token = _bearer_token(context)
        user = await self._tokens.authenticate(token) if token else None
        if user is None:
            raise UnauthenticatedError(
                "the bearer token is not accepted by the hub" if token else "no credential was presented",
                hint="Send metadata `authorization: Bearer <token>` with a token of the hub.",
            )
        return user

    def _peer(self, pem: bytes, authentication: Mapping[str, list[bytes]]) -> _Peer:
        trust = (self._facade_ca.read(), self._trust().client_ca_pem)
        if trust != self._peers_trust:
            self._peers.clear()
            self._peers_trust = trust
        chain = authentication.get("x509_pem_cert_chain")
        intermediates = chain[0] if chain else b""
        digest = hashlib.sha256(pem + intermediates).digest()
        peer = self._peers.get(digest)
        now = self._wall_clock()
        if peer is None:
            peer = classify_certificate(
                pem,
                intermediates,
                facade_ca_pem=trust[0],
                facade_names=self._facade_names,
                client_ca_pem=trust[1],
                now=now,
            )
            if peer is _NOBODY:
                return peer
            self._peers[digest] = peer
            if len(self._peers) > _CAPACITY:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(digest)
        # A connection may outlive its certificate; kube-apiserver too looks at every request.
        return peer if peer.not_before <= now <= peer.not_after else _NOBODY


def classify_certificate(
    pem: bytes,
    intermediates_pem: bytes,
    *,
    facade_ca_pem: bytes,
    facade_names: frozenset[str],
    client_ca_pem: bytes,
    now: float,
) -> _Peer:
    """Understand a client certificate whose possession TLS has proved.

    Args:
        pem: The leaf.
        intermediates_pem: What the client sent with it; may be empty, and may hold the leaf again.
        facade_ca_pem: CA of facades; empty for none.
        facade_names: Common names that are facades.
        client_ca_pem: CA of the hub's users; empty for none.
        now: Seconds since 1970.

    Returns:
        A facade, a user, or nobody; a certificate that is not for clients, or not valid now, is nobody's.
    """
    try:
        leaf = x509.load_pem_x509_certificate(pem)
        intermediates = _certificates(intermediates_pem)
        name = _attributes(leaf, NameOID.COMMON_NAME)
        organizations = _attributes(leaf, NameOID.ORGANIZATION_NAME)
        by_facade_ca = find_validity(leaf, intermediates, _certificates(facade_ca_pem), now)
        by_client_ca = find_validity(leaf, intermediates, _certificates(client_ca_pem), now)
    except (ValueError, x509.DuplicateExtension):
        return _NOBODY
    facade = bool(name) and name[0] in facade_names and by_facade_ca is not None
    user: UserInfo | None = None
    if name and by_client_ca is not None:
        user = UserInfo(username=name[0], groups=(*organizations, _AUTHENTICATED_GROUP))
    # Where both authorities vouch for it, the facade's counts: such a caller is never asked for as itself.
    validity = by_facade_ca if facade else by_client_ca
    if validity is None or not (facade or user):
        return _NOBODY
    return _Peer(facade=facade, user=user, not_before=validity.not_before, not_after=validity.not_after)


def parse_user_info(message: user_info_pb2.UserInfo) -> UserInfo:
    """Turn a message into the core's value."""
    return UserInfo(
        username=message.username,
        uid=message.uid,
        groups=tuple(message.groups),
        extra=tuple(sorted((key.lower(), tuple(values.values)) for key, values in message.extra.items())),
    )


class _FacadeCA:
    """The facade CA's certificates, read again when the file changes."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._pem = b""
        self._stamp: tuple[int, int] | None = None
        self._due = float("-inf")

    def read(self) -> bytes:
        """The PEM in force; the last good one while the file cannot be read."""
        now = time.monotonic()
        if self._path is None or now < self._due:
            return self._pem
        self._due = now + _FILE_CHECK_SECONDS
        try:
            state = self._path.stat()
            stamp = (state.st_mtime_ns, state.st_ino)
            if stamp != self._stamp:
                pem = self._path.read_bytes()
                x509.load_pem_x509_certificates(pem)
                self._pem, self._stamp = pem, stamp
        except (OSError, ValueError) as error:
            _LOGGER.warning("facade CA %s cannot be read: %s", self._path, type(error).__name__)
        return self._pem


def _is_private_socket(context: grpc.aio.ServicerContext[Any, Any], authentication: Mapping[str, list[bytes]]) -> bool:
    """Both must say so: no TLS, which is served there alone, and a unix address."""
    return authentication.get("transport_security_type") != [b"ssl"] and context.peer().startswith("unix:")


def _certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem) if pem.strip() else []


def _attributes(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    values = (attribute.value for attribute in leaf.subject.get_attributes_for_oid(oid))
    return tuple(value for value in values if isinstance(value, str) and value)


def _bearer_token(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return ""
