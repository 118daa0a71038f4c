"""TLS towards clusters: one context a cluster and credential, so that no connection is ever shared between two."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster_gateway_core.errors import ClusterMisconfiguredError

if TYPE_CHECKING:
    from collections.abc import Generator

    from cluster_gateway_core.model.cluster import Credential, Endpoint


def make_client_context(cluster_name: str, endpoint: Endpoint, credential: Credential | None) -> ssl.SSLContext:
    """Build the context for one cluster.

    Raises:
        ClusterMisconfiguredError: The CA bundle, certificate or key cannot be used; the message has no key material.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Upgrades exist in HTTP/1.1 alone, and this connection speaks nothing else.
        context.set_alpn_protocols(["http/1.1"])
        # Go takes any certificate of the bundle as an anchor, an intermediate one as well.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if endpoint.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif endpoint.ca_bundle_pem:
            context.load_verify_locations(
                cadata=endpoint.ca_bundle_pem.decode("ascii", "ignore")
            )  # comments may be in any encoding
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if credential is not None and credential.certificate_pem:
            with _readable_file(credential.certificate_pem + b"\n" + credential.private_key_pem) as path:
                # Without a password OpenSSL asks the terminal for that of an encrypted key.
                context.load_cert_chain(path, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise ClusterMisconfiguredError(
            f"the TLS material of cluster {cluster_name} cannot be used: {type(error).__name__}",
            cluster_name=cluster_name,
            hint="Check ca.crt, tls.crt and tls.key of the cluster's Secret.",
        ) from error
    return context


@contextmanager
def _readable_file(content: bytes) -> Generator[str, None, None]:
    """Lend content as a path, because `load_cert_chain` reads files only; on Linux it never touches a disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("cluster-gateway", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
