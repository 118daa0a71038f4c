"""A hub that knows some clusters, allows everything and names who is trusted: enough for whole processes to run."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.fake_hub import Answer, FakeHub, make_list
from tests.support.hub_certificates import Identity, make_identity
from tests.support.running_facade import write_pair

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web
    from tests.support.scripted_cluster import ScriptedCluster

_TYPE_LABEL = "cluster.core.oam.dev/cluster-credential-type"


class AnsweringHub(FakeHub):
    """Answers what a test wrote down, and otherwise as a hub does whose API server is well.

    Attributes:
        client_ca: Signs the certificates of the hub's users.
        secrets: The Secrets that register clusters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client_ca = make_identity("hub-ca")
        self.secrets: list[dict[str, Any]] = []

    def register(self, name: str, cluster: ScriptedCluster, ca: Identity) -> None:
        """Register a cluster, before a core has read the Secrets."""
        data = {"endpoint": cluster.address.encode(), "ca.crt": ca.certificate_pem, "token": b"made-up"}
        labels = {_TYPE_LABEL: "ServiceAccountToken"}
        self.secrets.append(
            {
                "metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": labels},
                "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
            }
        )

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if not request.query.get("watch"):
            kind = "LIST" if request.method == "GET" else request.method
            if not self._answers[kind]:
                self.script(kind, Answer(body=self._usual(request.path)))
        return await super()._serve(request)

    def _usual(self, path: str) -> dict[str, Any]:
        if path.endswith("/secrets"):
            return make_list(*self.secrets)
        if path.endswith("/configmaps"):
            anchors = {"client-ca-file": self.client_ca.certificate_pem.decode()}
            metadata = {"name": "extension-apiserver-authentication", "resourceVersion": "1"}
            return make_list({"metadata": metadata, "data": anchors})
        return {"status": {"allowed": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStage:
    """Where `run_core` and `run_facade` find what they need.

    Attributes:
        directory: Where files are put.
        gateway_kubeconfig: The way to the hub.
        authority: Who signs the facades' serving certificates.
    """

    directory: Path
    gateway_kubeconfig: str
    authority: Identity

    def write_serving_certificate(self, folder: Path) -> None:
        """Write `serving.crt` and `serving.key`."""
        identity = make_identity("facade", issuer=self.authority, usages=(), hosts=("127.0.0.1", "localhost"))
        write_pair(identity, folder, "serving")
