"""The trust anchors in force, read once when they arrive instead of for every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clustergateway.access.v1.access_service_pb2 import FrontProxyTrust, WatchTrustResponse

_USUAL_PREFIX: Final = b"x-remote-"


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
        own_headers: Those of the headers above that a core does not drop by itself, because the hub's operator named
            them; "_" read as "-".
        own_prefixes: Likewise.
    """

    ca: CABundle
    allowed_names: frozenset[str]
    username_headers: tuple[bytes, ...]
    uid_headers: tuple[bytes, ...]
    group_headers: tuple[bytes, ...]
    extra_prefixes: tuple[bytes, ...]
    own_headers: frozenset[bytes]
    own_prefixes: tuple[bytes, ...]


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
    usernames, uids, groups = map(_lowered, (trust.username_headers, trust.uid_headers, trust.group_headers))
    prefixes = _lowered(trust.extra_header_prefixes)
    return FrontProxyAnchor(
        ca=load_ca_bundle(trust.ca_pem),
        allowed_names=frozenset(trust.allowed_names),
        username_headers=usernames,
        uid_headers=uids,
        group_headers=groups,
        extra_prefixes=prefixes,
        own_headers=frozenset(_own((*usernames, *uids, *groups))),
        own_prefixes=tuple(_own(prefixes)),
    )


def _own(names: Iterable[bytes]) -> Iterator[bytes]:
    """Names beside the usual `X-Remote-*`; an empty prefix would take every header and is left out."""
    for name in names:
        alike = name.replace(b"_", b"-")
        if alike and not alike.startswith(_USUAL_PREFIX):
            yield alike


def _lowered(names: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode("ascii") for name in names)
