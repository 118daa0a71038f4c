"""The hub's trust anchors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProxyTrust:
    """How the hub's front proxy is recognised and how it names the user.

    Source: ConfigMap kube-system/extension-apiserver-authentication, keys `requestheader-*`.

    Attributes:
        ca_pem: CA that signs front-proxy client certificates; never empty.
        allowed_names: Common names allowed; empty allows every name of that CA.
        username_headers: Tried in this order.
        uid_headers: Tried in this order.
        group_headers: All are read, in this order.
        extra_header_prefixes: All are read, in this order.
    """

    ca_pem: bytes
    allowed_names: tuple[str, ...] = ()
    username_headers: tuple[str, ...] = ()
    uid_headers: tuple[str, ...] = ()
    group_headers: tuple[str, ...] = ()
    extra_header_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """Everything by which a caller's identity can be verified.

    Attributes:
        front_proxy: None when the hub publishes no request-header settings.
        client_ca_pem: CA of the hub's client certificates; empty when the hub publishes none.
    """

    front_proxy: FrontProxyTrust | None = None
    client_ca_pem: bytes = b""
