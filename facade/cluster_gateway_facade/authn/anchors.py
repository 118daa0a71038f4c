"""The trust anchors in force, read once when they arrive instead of for every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clustergateway.access.v1.access_service_pb2 import FrontProxyTrust, WatchTrustResponse


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CABundle:
    """Certificates of authorities; compared by identity.

    Attributes:
        certificates: In the bundle's order; none trusts nobody.
    """

    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProxyAnchor:
    """How the hub's front proxy is recognised, and which headers it names users in.

    Attributes:
        ca: Signs its client certificate.
        allowed_names: Common names that the certificate may carry; empty allows all.
        username_headers: Lower-case names, in the order in which they are tried.
        uid_headers: Likewise.
        group_headers: Lower-case names.
        extra_prefixes: Lower-case prefixes.
    """

    ca: CABundle
    allowed_names: frozenset[str]
    username_headers: tuple[bytes, ...]
    uid_headers: tuple[bytes, ...]
    group_headers: tuple[bytes, ...]
    extra_prefixes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """Whom the facade believes.

    Attributes:
        front_proxy: None when the hub publishes no request-header settings.
        client_ca: The hub's CA of its users' certificates.
    """

    front_proxy: FrontProxyAnchor | None
    client_ca: CABundle


def read_trust_anchors(message: WatchTrustResponse) -> TrustAnchors:
    """Read the anchors that a core sent.

    Raises:
        ValueError: A bundle is no PEM, or a header name is not ASCII.
    """
    front_proxy = _read_front_proxy(message.front_proxy) if message.HasField("front_proxy") else None
    return TrustAnchors(front_proxy=front_proxy, client_ca=load_ca_bundle(message.client_ca_pem))


def load_ca_bundle(ca_pem: bytes) -> CABundle:
    """Read PEM certificates; an empty bundle has none. Raises ValueError when it is no PEM."""
    return CABundle(certificates=tuple(x509.load_pem_x509_certificates(ca_pem)) if ca_pem.strip() else ())


def _read_front_proxy(trust: FrontProxyTrust) -> FrontProxyAnchor:
    return FrontProxyAnchor(
        ca=load_ca_bundle(trust.ca_pem),
        allowed_names=frozenset(trust.allowed_names),
        username_headers=_lowered(trust.username_headers),
        uid_headers=_lowered(trust.uid_headers),
        group_headers=_lowered(trust.group_headers),
        extra_prefixes=_lowered(trust.extra_header_prefixes),
    )


def _lowered(names: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode("ascii") for name in names)
