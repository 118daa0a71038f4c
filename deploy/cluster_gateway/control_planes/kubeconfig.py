"""Kubeconfig files."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster_gateway.control_planes.pki import KeyPair


def render_kubeconfig(name: str, url: str, ca_bundle: bytes, user: KeyPair) -> bytes:
    """Render a kubeconfig with one context.

    Args:
        name: Name of the cluster and of the context.
        url: Where the apiserver is.
        ca_bundle: Who signs its certificate (PEM).
        user: Client certificate of the user; the result holds its key.

    Returns:
        JSON, which is YAML as well.
    """
    cluster = {"server": url, "certificate-authority-data": _base64(ca_bundle)}
    credential = {
        "client-certificate-data": _base64(user.certificate),
        "client-key-data": _base64(user.key),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": "user", "user": credential}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "user"}}],
    }
    return json.dumps(config, indent=1).encode() + b"\n"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
