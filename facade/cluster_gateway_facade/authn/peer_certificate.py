"""The client certificate of a connection, and which CA vouches for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from cluster_gateway_transport.certificate_chain import find_validity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_facade.authn.anchors import CABundle
    from cluster_gateway_transport.certificate_chain import Validity


class PeerCertificate:
    """A certificate that the TLS layer has verified against some trusted CA; this says which.

    Attributes:
        common_name: CN of the subject, the last of several, as Go reads it; empty without one.
        organizations: O of the subject, in order.
    """

    def __init__(self, der: bytes, intermediates: Sequence[bytes] = ()) -> None:
        """Read a certificate and those that were sent with it. Raises ValueError when one is malformed."""
        self._certificate = x509.load_der_x509_certificate(der)
        self._intermediates = tuple(x509.load_der_x509_certificate(one) for one in intermediates)
        subject = self._certificate.subject
        self.common_name = next(reversed(_texts(subject, NameOID.COMMON_NAME)), "")
        self.organizations = _texts(subject, NameOID.ORGANIZATION_NAME)
        self._not_before = self._certificate.not_valid_before_utc.timestamp()
        self._not_after = self._certificate.not_valid_after_utc.timestamp()
        self._validities: dict[CABundle, Validity | None] = {}

    def is_issued_by(self, bundle: CABundle) -> bool:
        """Whether the bundle vouches for this certificate, for use by clients, and it is in force now.

        A certificate that one CA signed says nothing under another: only the front proxy's CA unlocks
        identity headers. The way to the CA may lead through intermediates, each valid now. It is looked for once
        for each bundle; a bundle that is no longer in force is forgotten with the connection.
        """
        now = time.time()
        if not self._not_before <= now <= self._not_after:
            return False
        validity = self._validities.get(bundle)
        if validity is None:
            if bundle in self._validities:
                return False
            validity = find_validity(self._certificate, self._intermediates, bundle.certificates, now)
            self._validities[bundle] = validity
        return validity is not None and validity.not_before <= now <= validity.not_after


def _texts(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]
