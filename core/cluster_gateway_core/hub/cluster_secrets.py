"""Registers clusters from the labelled Secrets of one namespace on the hub."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from cluster_gateway_core.hub.informer import Collection, Informer
from cluster_gateway_core.hub.json_values import as_object, as_text
from cluster_gateway_core.registry.secret_decoder import CREDENTIAL_TYPE_LABEL, decode_secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_gateway_core.hub.client import HubClient
    from cluster_gateway_core.hub.condition import Condition
    from cluster_gateway_core.hub.json_values import JSONObject
    from cluster_gateway_core.model.cluster import Cluster
    from cluster_gateway_core.registry.store import ClusterRegistry
    from cluster_gateway_core.settings import HubSettings

_LOGGER = logging.getLogger(__name__)


def secrets_path(namespace: str) -> str:
    """Path of a namespace's Secrets."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets"


class ClusterSecrets:
    """Feeds a registry. `run` keeps it fed."""

    def __init__(self, client: HubClient, settings: HubSettings, registry: ClusterRegistry) -> None:
        self._settings = settings
        self._registry = registry
        collection = Collection(
            name="cluster-secrets",
            path=secrets_path(settings.secret_namespace),
            selector={"labelSelector": CREDENTIAL_TYPE_LABEL},
            denied_hint=(
                f"grant the gateway's service account get, list and watch on secrets "
                f"in namespace {settings.secret_namespace}"
            ),
        )
        self._informer = Informer(client, collection, self)

    def condition(self) -> Condition:
        """Whether the clusters are known."""
        return self._informer.condition()

    async def run(self) -> None:
        """Follow the Secrets until cancelled."""
        await self._informer.run()

    def replace(self, objects: Sequence[JSONObject]) -> None:
        """Register exactly these; Secrets that have not changed are not decoded again."""
        self._registry.replace(cluster for value in objects if (cluster := self._decode(value)).name)

    def upsert(self, value: JSONObject) -> None:
        """Register one."""
        cluster = self._decode(value)
        if cluster.name:
            self._registry.upsert(cluster)

    def delete(self, value: JSONObject) -> None:
        """Remove one."""
        self._registry.delete(as_text(as_object(value.get("metadata")).get("name")))

    def _decode(self, value: JSONObject) -> Cluster:
        known = self._known(value)
        if known is not None:
            return known
        cluster = decode_secret(value, self._settings)
        if cluster.fault:
            _LOGGER.warning("Secret %s registers no usable cluster: %s", cluster.name, cluster.fault)
        return cluster

    def _known(self, value: JSONObject) -> Cluster | None:
        """The registered cluster when it was decoded from this very version of the Secret."""
        metadata = as_object(value.get("metadata"))
        known = self._registry.peek(as_text(metadata.get("name")))
        if known is None or not known.resource_version:
            return None
        same = (known.resource_version, known.uid) == (metadata.get("resourceVersion"), metadata.get("uid"))
        return known if same else None
