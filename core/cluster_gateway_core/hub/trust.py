"""The hub's trust anchors, live from ConfigMap kube-system/extension-apiserver-authentication.

Source: kubernetes/apiserver, pkg/authentication/request/headerrequest/requestheader_controller.go and
pkg/server/dynamiccertificates/configmap_cafile_content.go.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from cluster_gateway_core.hub.broadcast import Broadcast
from cluster_gateway_core.hub.condition import Condition, FaultReport
from cluster_gateway_core.hub.informer import Collection, Informer
from cluster_gateway_core.hub.json_values import as_list, as_object
from cluster_gateway_core.model.trust import FrontProxyTrust, TrustAnchors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from cluster_gateway_core.hub.client import HubClient
    from cluster_gateway_core.hub.json_values import JSONObject

_LOGGER = logging.getLogger(__name__)
_NAME: Final = "extension-apiserver-authentication"
_CLIENT_CA: Final = "client-ca-file"
_FRONT_PROXY_CA: Final = "requestheader-client-ca-file"

_COLLECTION: Final = Collection(
    name="trust-anchors",
    path="/api/v1/namespaces/kube-system/configmaps",
    selector={"fieldSelector": f"metadata.name={_NAME}"},
    denied_hint=(
        "bind Role extension-apiserver-authentication-reader of namespace kube-system to the gateway's service account"
    ),
)


class TrustFaultError(Exception):
    """A part of the ConfigMap cannot be used; the message says which and why."""


class TrustStore:
    """The trust anchors in force. `run` keeps them so."""

    def __init__(self, client: HubClient) -> None:
        self._anchors: Broadcast[TrustAnchors] = Broadcast()
        self._faults = FaultReport(_LOGGER, f"ConfigMap kube-system/{_NAME}")
        self._informer = Informer(client, _COLLECTION, self)

    @property
    def current(self) -> TrustAnchors:
        """The anchors now; empty ones, which trust nobody, before the first list."""
        return self._anchors.value or TrustAnchors()

    def watch(self) -> AsyncIterator[TrustAnchors]:
        """Yield the anchors once they are known, then each change; slow readers get only the latest."""
        return self._anchors.watch()

    def condition(self) -> Condition:
        """Ready once the ConfigMap was read; a part kept from before is told in the detail."""
        state = self._informer.condition()
        detail = "; ".join(filter(None, (state.detail, self._faults.text)))
        return Condition(name=state.name, ready=state.ready, detail=detail)

    async def run(self) -> None:
        """Follow the ConfigMap until cancelled."""
        await self._informer.run()

    def replace(self, objects: Sequence[JSONObject]) -> None:
        """Take the list over; a missing ConfigMap keeps the last anchors (RH-20)."""
        for value in objects:
            self.upsert(value)
        if not objects:
            self._faults.report("it does not exist; the last known anchors stay in force")
            self._anchors.publish(self.current)

    def upsert(self, value: JSONObject) -> None:
        """Take the ConfigMap over, each faulty part excepted."""
        anchors, fault = parse_trust_anchors(as_object(value.get("data")), previous=self.current)
        if fault:
            self._faults.report(f"{fault}; the last good value stays in force")
        else:
            self._faults.clear()
        self._anchors.publish(anchors)

    def delete(self, value: JSONObject) -> None:
        """Keep the last anchors (RH-20)."""
        del value
        self._faults.report("it was deleted; the last known anchors stay in force")


def parse_trust_anchors(data: Mapping[str, Any], *, previous: TrustAnchors) -> tuple[TrustAnchors, str]:
    """Read the ConfigMap's data.

    Args:
        data: Its `data`.
        previous: What a faulty part falls back to.

    Returns:
        The anchors, and what is wrong with the data; the text is empty when nothing is.
    """
    faults: list[str] = []
    front_proxy, client_ca = previous.front_proxy, previous.client_ca_pem
    try:
        front_proxy = _parse_front_proxy(data, required=previous.front_proxy is not None)
    except TrustFaultError as fault:
        faults.append(str(fault))
    try:
        client_ca = _parse_bundle(data, _CLIENT_CA, required=bool(previous.client_ca_pem))
    except TrustFaultError as fault:
        faults.append(str(fault))
    return TrustAnchors(front_proxy=front_proxy, client_ca_pem=client_ca), "; ".join(faults)


def _parse_front_proxy(data: Mapping[str, Any], *, required: bool) -> FrontProxyTrust | None:
    ca = _parse_bundle(data, _FRONT_PROXY_CA, required=required)
    trust = FrontProxyTrust(
        ca_pem=ca,
        allowed_names=_parse_names(data, "requestheader-allowed-names"),
        username_headers=_parse_names(data, "requestheader-username-headers"),
        uid_headers=_parse_names(data, "requestheader-uid-headers"),
        group_headers=_parse_names(data, "requestheader-group-headers"),
        extra_header_prefixes=_parse_names(data, "requestheader-extra-headers-prefix"),
    )
    return trust if ca else None


def _parse_bundle(data: Mapping[str, Any], key: str, *, required: bool) -> bytes:
    """Read PEM certificates; a bundle that was there once may change but not vanish."""
    text = data.get(key)
    if text is None and not required:
        return b""
    pem = text.encode() if isinstance(text, str) else b""
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TrustFaultError(f"{key} holds no certificate that can be read") from error
    return pem


def _parse_names(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Read a JSON list of strings; an absent or empty value is an empty list."""
    text = data.get(key)
    if not text:
        return ()
    try:
        names = json.loads(text)
    except (TypeError, ValueError) as error:
        raise TrustFaultError(f"{key} is not JSON") from error
    if names is None:
        return ()
    found = as_list(names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in found):
        raise TrustFaultError(f"{key} is not a list of strings")
    return tuple(found)
