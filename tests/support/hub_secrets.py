"""Secrets as the hub's JSON has them."""

from __future__ import annotations

import base64
from typing import Any

CREDENTIAL_LABEL = "cluster.core.oam.dev/cluster-credential-type"
ENDPOINT_LABEL = "cluster.core.oam.dev/cluster-endpoint-type"


def make_secret(
    name: str = "c1",
    *,
    data: dict[str, bytes] | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    resource_version: str = "7",
    credential_type: str = "ServiceAccountToken",
) -> dict[str, Any]:
    """Make a Secret that registers a cluster with a token, unless told otherwise."""
    plain = {"endpoint": b"https://10.0.0.1:6443", "token": b"canary-token"} if data is None else data
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": resource_version,
            "creationTimestamp": "2025-01-01T00:00:00Z",
            "labels": {CREDENTIAL_LABEL: credential_type, **(labels or {})},
            "annotations": annotations or {},
        },
        "data": {key: base64.b64encode(value).decode() for key, value in plain.items()},
    }
