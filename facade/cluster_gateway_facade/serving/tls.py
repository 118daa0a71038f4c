"""The serving TLS context, replaced whole whenever the certificate or the trusted CAs change.

A context in use is never altered: adding a CA would keep the old one trusted, and a failed load would leave the
context broken for everybody. Instead a new one is built and tested, and handed to each new connection by the SNI
callback, which OpenSSL calls whether or not the client names a server. There are no tickets, so TLS 1.3 resumes
nothing. OpenSSL resumes TLS 1.2 sessions by their id, which Python cannot turn off: such a client keeps its old
certificate, as on a connection that was never closed, and so the authenticator asks of each request whether
the certificate's CA is in force.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

_log = logging.getLogger(__name__)


class ServingContext:
    """Holds the context that new connections get.

    Attributes:
        listening: The context to listen with.
    """

    def __init__(self, certificate_file: str, private_key_file: str) -> None:
        """Load the certificate. Raises OSError, ssl.SSLError or ValueError when it cannot be used."""
        self._certificate_file = certificate_file
        self._private_key_file = private_key_file
        self._client_ca_pem = b""
        self._wanted_ca_pem = b""
        self._pair = self._read_pair()
        self._current = self._build(b"")
        self.listening = self._build(b"")
        self.listening.sni_callback = self._choose

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
            _log.warning("the serving certificate cannot be read, the last one stays: %s", error.strerror)
            return False
        if pair == self._pair and self._wanted_ca_pem == self._client_ca_pem:
            return False
        if not self._replace():
            return False
        self._pair = pair
        return True

    def _replace(self) -> bool:
        try:
            self._current = self._build(self._wanted_ca_pem)
        except (ssl.SSLError, ValueError, OSError) as error:
            _log.warning("new TLS material cannot be used, the last stays: %s", type(error).__name__)
            return False
        self._client_ca_pem = self._wanted_ca_pem
        return True

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
        _verify_by(context, client_ca_pem)
        return context

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _old: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read_pair(self) -> tuple[bytes, bytes]:
        return Path(self._certificate_file).read_bytes(), Path(self._private_key_file).read_bytes()


def _verify_by(context: ssl.SSLContext, client_ca_pem: bytes) -> None:
    if client_ca_pem.strip():
        context.load_verify_locations(cadata=client_ca_pem.decode("ascii"))


def _no_password() -> str:
    """Keep OpenSSL from asking at the terminal for the password of an encrypted key."""
    raise ValueError("the private key is encrypted")
