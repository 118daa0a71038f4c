"""From a Secret to the cluster that it registers; pure.

The keys, labels and fault texts are oam-dev/cluster-gateway's (pkg/apis/cluster/v1alpha1,
clustergateway_types_secret.go), so that its users' Secrets keep working.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from cluster_gateway_core.model.cluster import (
    Cluster,
    Credential,
    CredentialType,
    Endpoint,
    EndpointType,
    Health,
)
from cluster_gateway_core.routing.identity_rules import (
    MAXIMUM_ANNOTATION_BYTES,
    PROXY_CONFIGURATION_ANNOTATION,
    InvalidIdentityRulesError,
    parse_identity_rules,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_gateway_core.model.identity import IdentityRule
    from cluster_gateway_core.settings import HubSettings

CREDENTIAL_TYPE_LABEL: Final = "cluster.core.oam.dev/cluster-credential-type"
ENDPOINT_TYPE_LABEL: Final = "cluster.core.oam.dev/cluster-endpoint-type"
INSECURE_ANNOTATION: Final = "cluster.core.oam.dev/insecure-skip-tls-verify"
HEALTHY_ANNOTATION: Final = "status.cluster.core.oam.dev/healthy"
HEALTHY_REASON_ANNOTATION: Final = "status.cluster.core.oam.dev/healthy-reason"

_Object: TypeAlias = "Mapping[str, Any]"

# Go's strconv.ParseBool, by which the original reads the annotation.
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_PROXY_SCHEMES: Final = frozenset({"http", "https", "socks5", "socks5h"})


class _FaultError(Exception):
    """The registration cannot be used; the message never holds a value of the Secret's data."""


def decode_secret(secret: _Object, settings: HubSettings) -> Cluster:
    """Decode one Secret.

    Args:
        secret: The object as the hub's JSON has it, data in base64. It may be broken in any way.
        settings: Whether an endpoint may go unverified, and whether health is copied.

    Returns:
        The cluster. What is wrong is told by `fault`, the first fault in the original's checking order;
        the parts before it are filled. The name is empty when the object has none.
    """
    metadata = _mapping(secret.get("metadata"))
    labels = _strings(metadata.get("labels"))
    annotations = _strings(metadata.get("annotations"))
    data = _mapping(secret.get("data"))
    endpoint, credential, health, fault = None, None, Health(), ""
    name = _text(metadata.get("name"))
    identity_rules: tuple[IdentityRule, ...] = ()
    try:
        endpoint = _decode_endpoint(labels, annotations, data, settings)
        credential = _decode_credential(labels, data)
        health = _decode_health(annotations) if settings.copy_health else Health()
        _check_served(labels, endpoint)
        identity_rules = _decode_identity_rules(annotations, name) if settings.read_identity_rules else ()
    except _FaultError as error:
        fault = str(error)
    return Cluster(
        name=name,
        uid=_text(metadata.get("uid")),
        resource_version=_text(metadata.get("resourceVersion")),
        creation_timestamp=_decode_time(_text(metadata.get("creationTimestamp"))),
        labels=labels,
        credential_type=labels.get(CREDENTIAL_TYPE_LABEL, ""),
        endpoint=endpoint,
        credential=credential,
        health=health,
        identity_rules=identity_rules,
        fault=fault,
    )


def _decode_endpoint(
    labels: Mapping[str, str], annotations: Mapping[str, str], data: _Object, settings: HubSettings
) -> Endpoint:
    kind = labels.get(ENDPOINT_TYPE_LABEL, EndpointType.CONST)
    if kind == EndpointType.CLUSTER_PROXY:
        return Endpoint(type=EndpointType.CLUSTER_PROXY)
    address = _decode_text(data, "endpoint").removesuffix("\n")
    if not address:
        raise _FaultError("missing label key: api-endpoint")
    if kind != EndpointType.CONST:
        raise _FaultError(f"unsupported cluster gateway endpoint type {kind}")
    _check_address(address)
    ca_key = next((key for key in ("ca.crt", "ca") if key in data), None)
    insecure_wanted = settings.allow_insecure_endpoints or annotations.get(INSECURE_ANNOTATION) == "true"
    return Endpoint(
        type=EndpointType.CONST,
        address=address,
        ca_bundle_pem=_decode_ca(data, ca_key) if ca_key else None,
        insecure=ca_key is None and insecure_wanted,
        proxy_url=_decode_proxy_url(data),
    )


def _check_address(address: str) -> None:
    url = _split_url(address, "endpoint")
    if url.scheme not in ("https", "http"):
        raise _FaultError("the Secret's endpoint is not an https or http URL")
    if url.username is not None or url.password is not None:
        raise _FaultError("the Secret's endpoint must not hold a user name or password")
    if "?" in address or "#" in address:
        raise _FaultError("the Secret's endpoint must not have a query or a fragment")


def _decode_proxy_url(data: _Object) -> str | None:
    text = _decode_text(data, "proxy-url")
    if not text:
        return None
    if _split_url(text, "proxy-url").scheme not in _PROXY_SCHEMES:
        raise _FaultError("the Secret's proxy-url is not an http, https or socks5 URL")
    return text


def _split_url(text: str, key: str) -> SplitResult:
    # urlsplit drops tabs and newlines without a word; what is dialled must be what was checked.
    if not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise _FaultError(f"the Secret's {key} holds white space or other characters that no URL has")
    try:
        url = urlsplit(text)
        usable = bool(url.hostname) and url.port != 0
    except ValueError as error:
        raise _FaultError(f"the Secret's {key} is not a URL") from error
    if not usable:
        raise _FaultError(f"the Secret's {key} is not a URL with a host")
    return url


def _decode_ca(data: _Object, key: str) -> bytes | None:
    """Read the CA bundle; a key that is present but empty asks for the system's roots."""
    pem = _decode_data(data, key)
    if not pem.strip():
        return None
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _FaultError(f"the Secret's {key} holds no certificate that can be read") from error
    return pem


def _decode_credential(labels: Mapping[str, str], data: _Object) -> Credential:
    kind = labels.get(CREDENTIAL_TYPE_LABEL)
    if kind is None:
        raise _FaultError(f"missing label {CREDENTIAL_TYPE_LABEL}")
    if kind == CredentialType.SERVICE_ACCOUNT_TOKEN:
        return Credential(type=CredentialType.SERVICE_ACCOUNT_TOKEN, token=_decode_token(data))
    if kind == CredentialType.X509_CERTIFICATE:
        return _decode_certificate(data)
    if kind == CredentialType.DYNAMIC:
        return Credential(type=CredentialType.DYNAMIC)
    raise _FaultError(f"unrecognized secret credential type {kind}")


def _decode_token(data: _Object) -> str:
    """Read the token without surrounding white space: an editor's newline must not break a header."""
    token = _decode_text(data, "token").strip()
    if not token:
        raise _FaultError("missing secret data key: token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise _FaultError("the Secret's token holds characters that no bearer token has")
    return token


def _decode_certificate(data: _Object) -> Credential:
    certificate_pem, key_pem = _decode_data(data, "tls.crt"), _decode_data(data, "tls.key")
    for key, pem in (("tls.crt", certificate_pem), ("tls.key", key_pem)):
        if not pem.strip():
            raise _FaultError(f"missing secret data key: {key}")
    try:
        public = x509.load_pem_x509_certificates(certificate_pem)[0].public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _FaultError("the Secret's tls.crt holds no certificate that can be read") from error
    try:
        # Whether the primes of an RSA key are sound takes milliseconds; TLS finds out soon enough.
        private = load_pem_private_key(key_pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _FaultError("the Secret's tls.key holds no unencrypted private key that can be read") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != private.public_key().public_bytes(*form):
        raise _FaultError("the Secret's tls.crt and tls.key do not belong together")
    return Credential(type=CredentialType.X509_CERTIFICATE, certificate_pem=certificate_pem, private_key_pem=key_pem)


def _check_served(labels: Mapping[str, str], endpoint: Endpoint) -> None:
    """Refuse, in plain words, what is decoded but cannot be reached: a proxy passed by would be a leak."""
    if endpoint.proxy_url is not None:
        raise _FaultError("proxy-url is not supported by this gateway")
    if labels.get(ENDPOINT_TYPE_LABEL) == EndpointType.CLUSTER_PROXY:
        raise _FaultError("endpoint type ClusterProxy is not supported by this gateway")
    if labels.get(CREDENTIAL_TYPE_LABEL) == CredentialType.DYNAMIC:
        raise _FaultError("credential type Dynamic is not supported by this gateway")


def _decode_health(annotations: Mapping[str, str]) -> Health:
    raw = annotations.get(HEALTHY_ANNOTATION)
    reason = annotations.get(HEALTHY_REASON_ANNOTATION, "")
    if raw is None:
        return Health(healthy=False, reason=reason)
    if raw not in _TRUE and raw not in _FALSE:
        raise _FaultError(f"unrecogized healthiness status: {raw}")
    return Health(healthy=raw in _TRUE, reason=reason)


def _decode_identity_rules(annotations: Mapping[str, str], cluster_name: str) -> tuple[IdentityRule, ...]:
    """Read the cluster's own rules; the original passes by what it cannot read, and with it whom the rules bind."""
    text = annotations.get(PROXY_CONFIGURATION_ANNOTATION)
    if text is None:
        return ()
    try:
        return parse_identity_rules(text, maximum_bytes=MAXIMUM_ANNOTATION_BYTES, cluster_name=cluster_name)
    except InvalidIdentityRulesError as error:
        raise _FaultError(f"annotation {PROXY_CONFIGURATION_ANNOTATION}: {error}") from error


def _decode_time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _decode_data(data: _Object, key: str) -> bytes:
    value = data.get(key)
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError) as error:
        raise _FaultError(f"the Secret's {key} is not base64") from error


def _decode_text(data: _Object, key: str) -> str:
    try:
        return _decode_data(data, key).decode()
    except UnicodeDecodeError as error:
        raise _FaultError(f"the Secret's {key} is not text") from error


def _mapping(value: object) -> _Object:
    return cast("_Object", value) if isinstance(value, dict) else {}


def _strings(value: object) -> dict[str, str]:
    return {key: text for key, text in _mapping(value).items() if isinstance(text, str)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
