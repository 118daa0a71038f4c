"""The client certificate of a connection, and which CA vouches for it."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

_REMEMBERED_CAS: Final = 8


class PeerCertificate:
    """A certificate that the TLS layer has verified against some trusted CA; this says which.

    Attributes:
        common_name: CN of the subject; empty without one.
        organizations: O of the subject, in order.
    """

    def __init__(self, der: bytes) -> None:
        self._certificate = x509.load_der_x509_certificate(der)
        subject = self._certificate.subject
        self.common_name = next(iter(_texts(subject, NameOID.COMMON_NAME)), "")
        self.organizations = _texts(subject, NameOID.ORGANIZATION_NAME)
        self._not_before = self._certificate.not_valid_before_utc.timestamp()
        self._not_after = self._certificate.not_valid_after_utc.timestamp()
        self._vouchers: dict[bytes, bool] = {}

    def is_issued_by(self, ca_pem: bytes) -> bool:
        """Whether a CA of the bundle signed this certificate for use by clients, and it is in force now.

        A certificate that one CA signed says nothing under another: only the front proxy's CA unlocks identity
        headers.
        """
        if not self._not_before <= time.time() <= self._not_after:
            return False
        vouched = self._vouchers.get(ca_pem)
        if vouched is None:
            # A signature is checked once a connection and CA; a request then costs a look-up.
            vouched = self._is_for_clients() and any(_signed(self._certificate, ca) for ca in load_ca_bundle(ca_pem))
            self._vouchers = {**self._vouchers, ca_pem: vouched} if len(self._vouchers) < _REMEMBERED_CAS else {}
        return vouched

    def _is_for_clients(self) -> bool:
        """Whether its extended key usage allows clients; one without the extension is good for anything."""
        try:
            usage = self._certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return True
        return ExtendedKeyUsageOID.CLIENT_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


@lru_cache(maxsize=16)
def load_ca_bundle(ca_pem: bytes) -> Sequence[x509.Certificate]:
    """Parse a CA bundle; an empty one has no certificates.

    Raises:
        ValueError: It is not PEM.
    """
    return x509.load_pem_x509_certificates(ca_pem) if ca_pem.strip() else []


def _signed(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _texts(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]
