"""Stores a cluster's health with its Secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster_gateway_core.errors import AccessDeniedError, ClusterNotFoundError, ConflictError, GatewayError
from cluster_gateway_core.hub.cluster_secrets import secrets_path
from cluster_gateway_core.registry.secret_decoder import (
    HEALTHY_ANNOTATION,
    HEALTHY_REASON_ANNOTATION,
    decode_secret,
)

if TYPE_CHECKING:
    from cluster_gateway_core.hub.client import HubClient
    from cluster_gateway_core.model.cluster import Cluster, Health
    from cluster_gateway_core.settings import HubSettings


class HealthStore:
    """Writes the two health annotations."""

    def __init__(self, client: HubClient, settings: HubSettings) -> None:
        self._client = client
        self._settings = settings

    async def update(
        self, cluster_name: str, health: Health, *, resource_version: str = "", validate_only: bool = False
    ) -> Cluster:
        """Store it.

        Args:
            cluster_name: Name of a registered cluster; the caller has looked it up, since a Secret that
                registers none must not be written.
            health: What to store; the reason verbatim.
            resource_version: Version that the Secret must still have; empty for any.
            validate_only: True to have the hub check it and store nothing.

        Returns:
            The cluster as it is registered now.

        Raises:
            ClusterNotFoundError: The Secret is gone.
            ConflictError: It has another version.
            AccessDeniedError: The gateway may not write it.
            HubUnavailableError: The hub failed.
        """
        metadata: dict[str, Any] = {
            "annotations": {
                HEALTHY_ANNOTATION: "true" if health.healthy else "false",
                HEALTHY_REASON_ANNOTATION: health.reason,
            }
        }
        if resource_version:
            metadata["resourceVersion"] = resource_version
        path = f"{secrets_path(self._settings.secret_namespace)}/{quote(cluster_name, safe='')}"
        query = {"dryRun": "All"} if validate_only else None
        try:
            secret = await self._client.patch(path, {"metadata": metadata}, query)
        except GatewayError as error:
            error.cluster_name = cluster_name
            if isinstance(error, ConflictError):
                error.message = f"cluster {cluster_name} changed since it was read"
            if isinstance(error, AccessDeniedError):
                error.hint = (
                    "Grant the gateway's service account patch on secrets "
                    f"in namespace {self._settings.secret_namespace}."
                )
            raise
        if secret is None:
            raise ClusterNotFoundError(cluster_name)
        return decode_secret(secret, self._settings)
