"""The serving TLS context, replaced whole whenever the certificate or the trusted CAs change.

A context in use is never altered: adding a CA would keep the old one trusted, and a failed load would leave the
context broken for everybody. Instead a new one is built and tested, and each new connection is begun with the newest.
Sessions are resumed within one context at most, because OpenSSL keeps them with the context they began in, and there
are no tickets: whoever came before a change makes a whole handshake after it, and shows a certificate that counts now.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

_DER: Final = 2
"""OpenSSL's name for the encoding, `_ssl.ENCODING_DER`."""


class ServingContext:
    """Holds the context that new connections get.

    Attributes:
        listening: The context to listen with.
        fault: Why the newest files are not in force; empty when they are.
    """

    def __init__(self, certificate_file: str, private_key_file: str) -> None:
        """Load the certificate. Raises OSError, ssl.SSLError or ValueError when it cannot be used."""
        self._certificate_file = certificate_file
        self._private_key_file = private_key_file
        self._client_ca_pem = b""
        self._wanted_ca_pem = b""
        self._pair = self._read_pair()
        self._current = self._build(b"")
        self.fault = ""
        self.listening: ssl.SSLContext = _Listening(lambda: self._current)

    def trust(self, client_ca_pem: bytes) -> bool:
        """Verify client certificates against these CAs from now on.

        Returns:
            False when the bundle cannot be used; then the last good one stays, with a log line.
        """
        try:
            _verify_by(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_ca_pem)
        except (ssl.SSLError, ValueError) as error:
            _log.warning("a CA bundle cannot be used, the last stays: %s", type(error).__name__)
            return False
        self._wanted_ca_pem = client_ca_pem
        if client_ca_pem != self._client_ca_pem:
            # Where the certificate on disk is broken just now, the next look at it repeats this.
            self._replace()
        return True

    def reload_if_changed(self) -> bool:
        """Read the certificate again; returns whether new material is in force.

        A broken pair on disk is not taken.
        """
        try:
            pair = self._read_pair()
        except OSError as error:
            self._report(f"the serving certificate cannot be read, the last one stays: {error.strerror}")
            return False
        if pair == self._pair and self._wanted_ca_pem == self._client_ca_pem:
            self._report("")
            return False
        if not self._replace():
            return False
        self._pair = pair
        return True

    def _replace(self) -> bool:
        try:
            self._current = self._build(self._wanted_ca_pem)
        except (ssl.SSLError, ValueError, OSError) as error:
            self._report(f"the serving certificate cannot be used, the last one stays: {type(error).__name__}")
            return False
        self._client_ca_pem = self._wanted_ca_pem
        self._report("")
        return True

    def _report(self, fault: str) -> None:
        """Log a fault when it is new, not each time that it is met."""
        if fault and fault != self.fault:
            _log.warning("%s", fault)
        self.fault = fault

    def _build(self, client_ca_pem: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._certificate_file, self._private_key_file, password=_no_password)
        # Optional, because probes and bearer-token clients come without a certificate. One that is shown and
        # does not verify ends the handshake.
        context.verify_mode = ssl.CERT_OPTIONAL
        # Go takes any certificate of a bundle as an anchor, an intermediate one as well.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _verify_by(context, client_ca_pem)
        return context

    def _read_pair(self) -> tuple[bytes, bytes]:
        return Path(self._certificate_file).read_bytes(), Path(self._private_key_file).read_bytes()


class _Listening(ssl.SSLContext):
    """What a listener is given; it begins each connection with the context in force then.

    An event loop uses a listener's context for nothing but `wrap_bio`, once a connection. A callback for the server's
    name could change the context too, but comes after OpenSSL has looked for a session to resume.
    """

    def __new__(cls, current: Callable[[], ssl.SSLContext]) -> Self:
        del current
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        self._current = current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection; arguments are those of `ssl.SSLContext.wrap_bio`."""
        return self._current().wrap_bio(*arguments, **options)


def sent_intermediates(connection: ssl.SSLObject) -> list[bytes]:
    """Return the certificates, in DER, that a client sent behind its own."""
    # Public from Python 3.13 on, when it returns bytes.
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:
        return list(public()[1:])
    private = cast("Any", connection)._sslobj  # noqa: SLF001
    chain = cast("list[Any] | None", private.get_unverified_chain())
    return [certificate.public_bytes(_DER) for certificate in chain[1:]] if chain else []


def _verify_by(context: ssl.SSLContext, client_ca_pem: bytes) -> None:
    if client_ca_pem.strip():
        context.load_verify_locations(cadata=client_ca_pem.decode("ascii"))


def _no_password() -> str:
    """Keep OpenSSL from asking at the terminal for the password of an encrypted key."""
    raise ValueError("the private key is encrypted")
