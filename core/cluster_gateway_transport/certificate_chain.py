"""Which way leads from a client certificate to an authority: Go's rules, as kube-apiserver verifies certificates.

TLS has verified the certificate against all trusted authorities at once. This says whether those of one bundle
vouch for it, by the intermediates that the client sent with it.

Source: Go's crypto/x509, Certificate.Verify.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOR_CLIENTS: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
# Kubernetes' certificates have neither alternative names nor key identifiers, which the web's rules ask for.
_LEAVES: Final = ExtensionPolicy.permit_all()
_AUTHORITIES: Final = _LEAVES.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """When a whole chain is valid, in seconds since 1970.

    Attributes:
        not_before: Latest beginning of a certificate in it.
        not_after: Earliest end.
    """

    not_before: float
    not_after: float


def find_validity(
    leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: float
) -> Validity | None:
    """Look for a chain of certificates for clients.

    Args:
        leaf: The client's certificate.
        intermediates: What the client sent with it, in any order.
        anchors: The bundle; each of its certificates is trusted as it is, an intermediate one as well.
        now: Seconds since 1970.

    Returns:
        When the chain is valid, `now` included; None when there is none.
    """
    if not is_for_clients(leaf):
        return None
    for anchor in anchors:
        if _issued(leaf, anchor):
            validity = _validity((leaf, anchor))
            if validity.not_before <= now <= validity.not_after and is_for_clients(anchor):
                return validity
    return _find_longer(leaf, intermediates, anchors, now) if intermediates and anchors else None


def is_for_clients(certificate: x509.Certificate) -> bool:
    """Whether its extended key usage allows clients; one without the extension is good for anything (X5-4).

    Raises:
        ValueError: An extension is malformed.
        DuplicateExtension: It has one twice.
    """
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return any(purpose in usage for purpose in _FOR_CLIENTS)


def _find_longer(
    leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: float
) -> Validity | None:
    verifier = (
        PolicyBuilder()
        .store(Store(list(anchors)))
        .time(dt.datetime.fromtimestamp(now, dt.UTC))
        .extension_policies(ca_policy=_AUTHORITIES, ee_policy=_LEAVES)
        .build_client_verifier()
    )
    try:
        chain = verifier.verify(leaf, list(intermediates)).chain
        usable = all(is_for_clients(certificate) for certificate in chain)
    except (VerificationError, ValueError, x509.DuplicateExtension):
        return None
    return _validity(chain) if usable else None


def _issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _validity(chain: Sequence[x509.Certificate]) -> Validity:
    return Validity(
        not_before=max(certificate.not_valid_before_utc.timestamp() for certificate in chain),
        not_after=min(certificate.not_valid_after_utc.timestamp() for certificate in chain),
    )
