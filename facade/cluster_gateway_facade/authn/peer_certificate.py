"""The client certificate of a connection, and which CA vouches for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from cluster_gateway_facade.authn.anchors import CABundle


class PeerCertificate:
    """A certificate that the TLS layer has verified against some trusted CA; this says which.

    Attributes:
        common_name: CN of the subject, the last of several, as Go reads it; empty without one.
        organizations: O of the subject, in order.
    """

    def __init__(self, der: bytes) -> None:
        """Read a certificate. Raises ValueError when it is malformed."""
        self._certificate = x509.load_der_x509_certificate(der)
        subject = self._certificate.subject
        self.common_name = next(reversed(_texts(subject, NameOID.COMMON_NAME)), "")
        self.organizations = _texts(subject, NameOID.ORGANIZATION_NAME)
        self._not_before = self._certificate.not_valid_before_utc.timestamp()
        self._not_after = self._certificate.not_valid_after_utc.timestamp()
        self._for_clients = _is_for_clients(self._certificate)
        self._issuers: dict[CABundle, bool] = {}

    def is_issued_by(self, bundle: CABundle) -> bool:
        """Whether a CA of the bundle signed this certificate for use by clients, and it is in force now.

        A certificate that one CA signed says nothing under another: only the front proxy's CA unlocks
        identity headers. The signature is verified once for each bundle; a bundle that is no longer in force
        is forgotten with the connection.
        """
        if not (self._for_clients and self._not_before <= time.time() <= self._not_after):
            return False
        issued = self._issuers.get(bundle)
        if issued is None:
            issued = any(_signed(self._certificate, ca) for ca in bundle.certificates)
            self._issuers[bundle] = issued
        return issued


def _is_for_clients(certificate: x509.Certificate) -> bool:
    """Whether its extended key usage allows clients; one without the extension is good for anything."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _signed(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _texts(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]
